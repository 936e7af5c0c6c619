"""The look that the figures share: colours, type, title lines, and files that are the same for the same data."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"
INK, GREY, FAINT = "#222222", "#666666", "#dddddd"
WIDTH = 11.0  # inches
LEFT = 0.06  # of the width
LINE = 145  # letters in a line of the subtitle

STYLE: dict[Any, Any] = {  # matplotlib names the keys in a type of its own
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "image.composite_image": False,
    "svg.hashsalt": "effconv",
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def rendered(draw: Callable[[Mapping[str, Any]], Figure], data: Mapping[str, Any]) -> dict[str, bytes]:
    """A drawing of `data` as {"png": ..., "svg": ...}: the same bytes for the same data and libraries."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = draw(data)
        files = {}
        for kind, unstable in (("png", "Software"), ("svg", "Date")):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=150, metadata={unstable: None})
            files[kind] = buffer.getvalue()
    return files


def canvas(data: Mapping[str, Any], height: float, footer: Sequence[str]) -> Figure:
    """An empty figure, `height` inches high, with its title, what it was run on, and the footer's lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    size = 12 if len(data["title"]) < 85 else 10.5
    figure.text(LEFT, 1 - 0.3 / height, data["title"], fontsize=size, fontweight="bold", va="center")
    subtitle = textwrap.fill(data["subtitle"], LINE)
    figure.text(LEFT, 1 - 0.5 / height, subtitle, color=GREY, va="top", linespacing=1.4)
    figure.text(LEFT, 0.12 / height, "\n".join(wrapped(footer)), color=GREY, fontsize=8, va="bottom", linespacing=1.5)
    return figure


def wrapped(footer: Sequence[str]) -> list[str]:
    """The footer in lines that fit the width."""
    return [part for line in footer for part in textwrap.wrap(line, LINE + 20)]


def spread(count: int, step: float) -> list[float]:
    """Offsets around zero that keep marks of equal height apart: 3 -> -step, 0, step."""
    return [step * (index - (count - 1) / 2) for index in range(count)]
