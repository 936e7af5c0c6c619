"""Figure 3 as a picture: (a) depth at a fixed budget, (b) budget at a fixed depth, (c) sizes by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reproduce.report.canvas import BLUE, FAINT, GREY, LEFT, ORANGE, WIDTH, canvas, wrapped
from reproduce.report.drawing2 import size_bars, size_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 5.1  # inches
BOTTOM, HIGH, PANEL = 1.3, 2.35, 2.35  # inches: below the panels, their height, the width of (a) and (b)
ROOM, LINE_HEIGHT = 4, 0.17  # lines of the footer that fit below the panels; inches that each further one takes
Point = Mapping[str, Any]


def draw(data: Mapping[str, Any]) -> Figure:
    """The whole figure."""
    footer = _footer(data)
    extra = LINE_HEIGHT * max(0, len(wrapped(footer)) - ROOM)
    height, bottom = HEIGHT + extra, BOTTOM + extra
    figure = canvas(data, height, footer)
    for start, key, axis, scale, label, title in (
        (0.0, "a", "depth", 1, "depth (layers)", "(a) 0.66M weights, by depth"),
        (3.8, "b", "budget", 1e6, "budget (million weights)", "(b) ResNet-20, by budget"),
    ):
        axes = figure.add_axes((LEFT + start / WIDTH, bottom / height, PANEL / WIDTH, HIGH / height))
        axes.set_title(title, pad=22)
        axes.set_xlabel(label)
        _curve(axes, data[key], [point[axis] / scale for point in data[key]])
    _sizes(figure, data["c"], 7.4, bottom, height)
    return figure


def _footer(data: Mapping[str, Any]) -> list[str]:
    lines = ["Full marks: ours, mean and sample standard deviation over the seeds (none at one seed)."]
    if not data["smoke_test"]:
        lines[0] += " Open marks: the paper, where it prints a number; its seconds are of another, unnamed machine."
    lines += _whose_seconds(data)
    depths = ", ".join(str(point["depth"]) for point in data["a"] if point["accuracy"] is None)
    budgets = ", ".join(f"{point['budget'] / 1e6:g}M" for point in data["b"] if point["accuracy"] is None)
    missing = [f"depth {depths} in (a)"] * bool(depths) + [f"budget {budgets} in (b)"] * bool(budgets)
    return [*lines, f"Without a result of ours: {', '.join(missing)}."] if missing else lines


def _whose_seconds(data: Mapping[str, Any]) -> list[str]:
    """Machine and way of our seconds; those of the runs and those of the stopwatch never stand in one figure."""
    machine = data["machine"]
    if machine is None:
        return []
    if machine["by"] == "runs":
        return [f"Our seconds per epoch, during the runs, over the epochs of both stages: {machine['title']}."]
    timed = [point for point in data["a"] + data["b"] if point["seconds"]]
    names = list(dict.fromkeys(point["row"] for point in timed if point["seconds"]["how"] == "steps"))
    which = "all" if len(names) == len({point["row"] for point in timed}) else ", ".join(names)
    what = "by the stopwatch, both stages weighted by their epochs"
    lines = [f"Our seconds per epoch, {what}: {machine['title']}."]
    return [*lines, f"Extrapolated from timed steps: {which}."] if names else lines


def _curve(axes: Axes, points: Sequence[Point], places: Sequence[float]) -> None:
    """Accuracy on the left axis; seconds per epoch, if there are any, below it on the right axis."""
    accuracy = _marks(axes, places, points, "accuracy", BLUE, "o")
    margin = 0.05 * (max(places) - min(places)) or 1.0
    axes.set(xticks=places, xlim=(min(places) - margin, max(places) + margin))
    if not accuracy:
        axes.set_yticks([])
    if all(point["accuracy"] is None for point in points):
        axes.text(0.5, 0.5, "ours: not run", color=GREY, ha="center", transform=axes.transAxes)
    axes.set_ylabel("accuracy (%)", color=BLUE)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.text(0, 1.04, "● accuracy", color=BLUE, transform=axes.transAxes)
    if any(point["paper"] for point in points):
        axes.text(0.72, 1.04, "○ □ paper", color=GREY, transform=axes.transAxes)
    right = axes.twinx()
    times = _marks(right, places, points, "seconds", ORANGE, "s")
    right.set_visible(bool(times))
    if not times:
        return
    right.spines["right"].set_visible(True)
    right.set_ylabel("seconds per epoch", color=ORANGE)
    right.set_ylim(0, 2.5 * max(times))  # the curves keep apart: times below, accuracies above
    axes.text(0.37, 1.04, "■ s/epoch", color=ORANGE, transform=axes.transAxes)
    if accuracy:
        low, high = min(accuracy), max(accuracy)
        room = (high - low) or 1.0
        axes.set_ylim(max(0.0, low - room), min(100.0, high + 0.12 * room))


def _marks(
    axes: Axes, places: Sequence[float], points: Sequence[Point], what: str, colour: str, mark: str
) -> list[float]:  # fmt: skip
    """Ours as full marks joined by a line, the paper's as open ones a little to the right. Returns all ends of bars."""
    aside = 0.02 * (max(places) - min(places))
    ends = []
    for value, shift, line, inside in ((_ours, 0.0, "-", colour), (_papers, aside, "none", "white")):
        known = [(place + shift, *found) for place, point in zip(places, points, strict=True)
                 if (found := value(point, what)) is not None]  # fmt: skip
        if known:
            x, y, bars = zip(*known, strict=True)
            axes.errorbar(
                x, y, yerr=bars, fmt=mark, ls=line, color=colour, ms=5, lw=1.4, capsize=2.5, mfc=inside, mew=1.3
            )
            ends += [middle + side * bar for _, middle, bar in known for side in (-1, 1)]
    return ends


def _ours(point: Point, what: str) -> tuple[float, float] | None:
    """(mean, deviation) of ours; the deviation of one seed is drawn as none."""
    found = point[what]
    if found is not None and what == "seconds":
        if "weighted" in found:  # by the stopwatch: one number
            return found["weighted"], 0.0
        found = found["all_epochs"]
    return None if found is None else (found["mean"], found["std"] or 0.0)


def _papers(point: Point, what: str) -> tuple[float, float] | None:
    printed = point["paper"]
    if printed is None or printed[what] is None:
        return None
    return printed[what], (printed["accuracy_std"] or 0.0) if what == "accuracy" else 0.0


def _sizes(figure: Figure, rows: Sequence[Mapping[str, Any]], start: float, bottom: float, height: float) -> None:
    """Bars and rings as in Figure 2, one budget above the other."""
    high = 0.9  # inches
    for index, row in enumerate(rows):
        low = bottom + HIGH - high - index * (HIGH - high)
        axes = figure.add_axes((LEFT + start / WIDTH, low / height, 2.8 / WIDTH, high / height))
        name = f"{row['budget'] / 1e6:g}M"
        if row["runs"]:
            size_bars(axes, row["runs"], scale=0.62)
            axes.set_xticks([1, 5, 10, 15])
        else:
            axes.set(xticks=[], yticks=[])
        axes.text(0, 1.08, f"{name} ({size_key(row['runs']) if row['runs'] else 'not run'})", transform=axes.transAxes)
        if index == 0:
            axes.set_title("(c) ResNet-20, sizes by layer", pad=22)
    axes.set_xlabel("learned layer, in forward order")
