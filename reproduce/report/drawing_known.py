"""The figure of the known answers: effective size against minimal size for each method, by where it started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reproduce.report.canvas import BLUE, FAINT, GREY, LEFT, ORANGE, WIDTH, canvas, spread
from reproduce.report.statistics import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = Mapping[str, Any]

COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GREY)  # Okabe and Ito's
MARKS = "osD^vPX"
PANEL, HIGH, ACROSS, DOWN = 2.1, 2.0, 2.68, 2.85  # inches: a panel, and from one to the next
TOP, BOTTOM = 1.45, 1.5  # inches above and below the panels
STARTS = ("below", "at", "above")
WIDEST = 9  # the largest answer
ASIDE = 0.16  # between the marks of two methods


def draw(data: Mapping[str, Any]) -> Figure:
    """A row of panels for each number of layers, with and without a budget; lags by start, then textures."""
    rows = sorted({(point["layers"], point["budget"] or 0) for point in data["points"]})
    height = TOP + DOWN * len(rows) - (DOWN - HIGH) + BOTTOM
    figure = canvas(data, height, _footer(data))
    styles = {
        method: (COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)])
        for index, method in enumerate(data["methods"])
    }
    _key(figure, styles, height)
    for index, (layers, budget) in enumerate(rows):
        here = [one for one in data["points"] if (one["layers"], one["budget"] or 0) == (layers, budget)]
        low = (height - TOP - HIGH - index * DOWN) / height
        for column, kind in enumerate((*STARTS, "texture")):
            place = (LEFT + column * ACROSS / WIDTH, low, PANEL / WIDTH, HIGH / height)
            axes = figure.add_axes(place)
            _panel(axes, here, kind, styles)
            if column == 0:
                axes.set_title(_row_title(layers, budget), pad=20, fontweight="bold")
                axes.set_ylabel("effective " + ("size" if layers == 1 else "receptive field"))
    return figure


def _row_title(layers: int, budget: int) -> str:
    words = "One layer" if layers == 1 else "Two layers"
    return f"{words}, {f'a budget of {budget:,} weights' if budget else 'no budget'}"


def _footer(data: Mapping[str, Any]) -> list[str]:
    return [
        "Full marks: the smallest centred square that holds 95 % of the squared weights (of two layers s1 + s2 - 1), "
        "mean over seeds and starts; bars: least and greatest. Open marks: the method's nominal size. Crossed out: no "
        f"case of the mark reaches (sees enough, and is within {data['margin']:g} points of the oracle).",
        "Dashed: exactly the answer. Grey: out of reach for size learners. Lags have a proven minimal size; of "
        "textures the oracle's best size is the smallest within that margin of the best, the mean over seeds.",
    ]


def _key(figure: Figure, styles: Mapping[str, tuple[str, str]], height: float) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colour, marker=mark, ms=5, lw=1.4, label=method)
        for method, (colour, mark) in styles.items()
    ]
    place = (LEFT - 0.01, 1 - 0.68 / height)
    figure.legend(handles=lines, loc="upper left", bbox_to_anchor=place, ncols=len(lines), frameon=False)


def _panel(axes: Axes, points: Sequence[Point], kind: str, styles: Mapping[str, tuple[str, str]]) -> None:
    """One start of the lags, or all textures; `x` is the answer."""
    texture = kind == "texture"
    chosen = [one for one in points if (one["task"] == "texture" if texture else one["begins"] == kind)]
    title = "textures, all starts" if texture else f"lags, start {kind} the answer"
    axes.text(0, 1.03, title, transform=axes.transAxes)
    axes.set_xlabel("oracle's best size" if texture else "minimal size")
    lags = [one for one in points if one["task"] == "lag"]
    most = WIDEST + 0.6
    highest = max([most, *(max(one[what]["values"]) + 0.6 for one in points for what in ("effective", "nominal"))])
    axes.set(xlim=(0.4, most), xticks=range(1, WIDEST + 1, 2))
    axes.set(ylim=(0.4, highest), yticks=range(1, int(highest) + 1, 2))
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.axline((1, 1), slope=1, color=GREY, lw=0.9, ls=(0, (4, 3)))
    if lags and not texture:
        axes.axvspan(min(one["reachable"] for one in lags) + 0.5, most, color=FAINT, alpha=0.55, lw=0)
    if not chosen:
        axes.text(0.5, 0.5, "no case", color=GREY, ha="center", transform=axes.transAxes)
    for shift, (method, style) in zip(spread(len(styles), ASIDE), styles.items(), strict=True):
        _curve(axes, [one for one in chosen if one["method"] == method], shift, *style)


def _curve(axes: Axes, points: Sequence[Point], shift: float, colour: str, mark: str) -> None:
    """A method's marks; starts of one answer (and, of textures, one scale) together."""
    together: dict[tuple[int, float], list[Point]] = defaultdict(list)
    for one in points:
        answer = one["minimal"] if one["minimal"] is not None else one["oracle_size"]["mean"]
        together[one["scale"], answer].append(one)
    drawn = [(answer + shift, together[scale, answer]) for answer, scale in sorted((b, a) for a, b in together)]
    if not drawn:
        return
    places = [place for place, _ in drawn]
    effective = [[value for one in several for value in one["effective"]["values"]] for _, several in drawn]
    means = [mean(values) for values in effective]
    ends = [[centre - min(values), max(values) - centre] for centre, values in zip(means, effective, strict=True)]
    nominal = [mean([value for one in several for value in one["nominal"]["values"]]) for _, several in drawn]
    axes.plot(places, nominal, mark, ms=6.5, mfc="none", mec=colour, mew=0.8, alpha=0.6, clip_on=False)
    bars = list(zip(*ends, strict=True))
    axes.errorbar(places, means, yerr=bars, fmt=mark, ls="-", color=colour, ms=4, lw=1.2, elinewidth=0.8, capsize=1.5)
    failed = [(place, centre) for (place, several), centre in zip(drawn, means, strict=True)
              if not any(one["reached"] for one in several)]  # fmt: skip
    if failed:
        axes.plot(*zip(*failed, strict=True), "x", color="black", ms=6, mew=1.0, zorder=4)
