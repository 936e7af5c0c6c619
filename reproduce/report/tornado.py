"""The effects of the readings as a tornado plot: one panel for each response, the largest effect on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reproduce.report.canvas import BLUE, GREY, ORANGE, WIDTH, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 3
BAR, HEAD, ROOM, FOOT = 0.19, 0.9, 0.75, 0.65  # inches: of an effect; above all; around a panel; for the footer
EDGE, NAMES, GAP = 0.35, 1.75, 0.15  # inches: the figure's margin, the names left of a panel, between panels


def draw(data: Mapping[str, Any]) -> Figure:
    """The whole figure. data: as `readings.figure_data` gives it."""
    panels = data["responses"]
    high = BAR * max(len(panel["effects"]) for panel in panels)  # inches
    rows = -(-len(panels) // ABREAST)
    height = HEAD + rows * (high + ROOM) + FOOT
    figure = canvas(data, height, data["footer"])
    pitch = (WIDTH - 2 * EDGE + GAP) / ABREAST
    for place, panel in enumerate(panels):
        row, column = divmod(place, ABREAST)
        left = EDGE + column * pitch + NAMES
        bottom = height - HEAD - row * (high + ROOM) - high
        inner = pitch - GAP - NAMES
        bars(figure.add_axes((left / WIDTH, bottom / height, inner / WIDTH, high / height)), panel)
    return figure


def bars(axes: Axes, panel: Mapping[str, Any]) -> None:
    """Main effects in blue, groups of interactions in grey; whiskers are 95 % intervals over the seeds."""
    found = sorted(panel["effects"], key=lambda one: (abs(one["mean"]), one["words"]))
    colours = [BLUE if one["main"] else GREY for one in found]
    axes.barh(range(len(found)), [one["mean"] for one in found], height=0.7, color=colours)
    for place, one in enumerate(found):
        if one["interval95"] is not None:
            axes.plot(one["interval95"], [place, place], color=ORANGE, lw=1.3, solid_capstyle="butt")
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_yticks(range(len(found)), [one["short"] for one in found], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_title(panel["title"], fontsize=8.5, loc="right")
    axes.set_xlabel(panel["unit"], fontsize=8)
