"""The course of one run, or of the seeds of one cell: soft sizes and budget, losses and accuracy, against the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from reproduce.records import RunRecord
from reproduce.report import words
from reproduce.report.canvas import BLUE, FAINT, GREY, LEFT, ORANGE, WIDTH, canvas
from reproduce.store import slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGH, GAP, TOP, BOTTOM = 2.3, 0.95, 1.25, 1.25  # inches: a row of panels, between two, above and below all
PANEL = 4.55  # inches wide
Run = Mapping[str, Any]


def curves(records: Sequence[RunRecord], title: str) -> dict[str, Any]:
    """What the picture shows, of runs of one spec. Raises `ValueError` if none of them has a course."""
    runs = [_run(record) for record in records if record.history.get("training")]
    if not runs:
        raise ValueError("no course is recorded")
    first = records[0]
    subtitle = [f"{slug(first.spec)}, protocol {first.spec.protocol}", words.one_line(first.data.title)]
    subtitle += [f"{first.data.train_images:,} training images", words.seed_list([record.seed for record in records])]
    return {"title": title, "subtitle": "; ".join(subtitle), "runs": runs}


def _run(record: RunRecord) -> dict[str, Any]:
    learning = record.spec.size_learning
    steps = ceil(record.data.train_images / learning.batch_size) if learning is not None else 1
    return {
        "seed": record.seed,
        "steps": steps,
        "size_learning": record.history.get("size_learning", []),
        "training": record.history["training"],
    }


def draw(data: Mapping[str, Any]) -> Figure:
    """Two rows of two panels; the upper one, of size learning, only where there was any."""
    learned = any(run["size_learning"] for run in data["runs"])
    rows = 2 if learned else 1
    height = TOP + rows * HIGH + (rows - 1) * GAP + BOTTOM
    figure = canvas(data, height, _footer(learned, len(data["runs"])))
    panels = [
        figure.add_axes(
            (
                LEFT + column * (PANEL + 0.8) / WIDTH,
                (height - TOP - HIGH - row * (HIGH + GAP)) / height,
                PANEL / WIDTH,
                HIGH / height,
            )
        )
        for row in range(rows)
        for column in (0, 1)
    ]
    if learned:
        _soft_sizes(panels[0], data["runs"][0])
        _budget(panels[1], data["runs"])
    _pair(panels[-2], data["runs"], "training", ("train_loss", "test_loss"), "loss")
    _pair(panels[-1], data["runs"], "training", ("train_top1", "top1"), "top-1 (%)")
    return figure


def _footer(learned: bool, runs: int) -> list[str]:
    lines = ["Training set: mean over the epoch's augmented batches; test set: after the epoch, where evaluated."]
    lines += ["Soft sizes of the first seed, a line for each layer, darker towards the output."] if learned else []
    return lines + (["One line for each seed."] if runs > 1 else [])


def _places(run: Run) -> list[float]:
    """Epochs of size learning, with the share of the one under way."""
    return [point["epoch"] - 1 + point["step"] / run["steps"] for point in run["size_learning"]]


def _soft_sizes(axes: Axes, run: Run) -> None:
    courses = list(zip(*(point["v"] for point in run["size_learning"]), strict=True))
    for index, values in enumerate(courses):
        shade = 0.25 + 0.75 * index / max(1, len(courses) - 1)
        axes.plot(_places(run), values, color=BLUE, alpha=shade, lw=1.1)
    _dress(axes, f"Soft sizes v by layer, seed {run['seed']}", "epoch of size learning")


def _budget(axes: Axes, runs: Sequence[Run]) -> None:
    for run in runs:
        axes.plot(_places(run), [100 * point["budget_error"] for point in run["size_learning"]], color=ORANGE, lw=1.1)
    axes.axhline(0, color=GREY, lw=0.8, ls=(0, (4, 3)))
    _dress(axes, "Eq. 3 of the rounded sizes against the budget (%)", "epoch of size learning")


def _pair(axes: Axes, runs: Sequence[Run], stage: str, fields: tuple[str, str], title: str) -> None:
    """A field of the training set as a line, and that of the test set as marks on a line."""
    for run in runs:
        for field, colour, mark in ((fields[0], BLUE, ""), (fields[1], ORANGE, "o")):
            points = [(one["epoch"], one[field]) for one in run[stage] if one.get(field) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker=mark, ms=4, lw=1.3)
    _dress(axes, title, "epoch of training")
    axes.text(0.74, 1.04, "— training", color=BLUE, transform=axes.transAxes)
    axes.text(0.9, 1.04, "● test", color=ORANGE, transform=axes.transAxes)


def _dress(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(below)
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
