"""Figure 2 as a picture: learned sizes by layer above, the kernels to the same scale below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from reproduce import paper
from reproduce.report import words
from reproduce.report.canvas import BLUE, FAINT, GREY, LEFT, ORANGE, WIDTH, canvas, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 5.7  # inches
LARGEST = 7  # the largest kernel size
TAP = 0.88 / LARGEST  # width of a weight, where a layer has width 1


def draw(data: Mapping[str, Any]) -> Figure:
    """The whole figure."""
    statements = () if data["smoke_test"] else paper.tables()["figure2"].statements
    figure = canvas(data, HEIGHT, [f"The paper's text: {' '.join(statements)}"] if statements else [])
    layers = len(data["layers"])
    wide = 1 - LEFT - 0.02
    unit = wide * WIDTH / layers  # inches of a layer: as wide as high, so a weight is a square
    top = figure.add_axes((LEFT, 2.55 / HEIGHT, wide, 2.0 / HEIGHT))
    below = figure.add_axes((LEFT, (1.75 - 2.1 * unit) / HEIGHT, wide, 2.1 * unit / HEIGHT))
    size_bars(top, data["runs"])
    top.set_title(f"Sizes ({size_key(data['runs'])})")
    top.set_xlabel("learned layer, in forward order; dashed: the channels double")
    for edge in _stage_edges(data["layers"]):
        top.axvline(edge, color=GREY, lw=0.8, ls=(0, (3, 3)))
    _kernels(below, data)
    return figure


def size_bars(axes: Axes, runs: Sequence[Mapping[str, Any]], scale: float = 1.0) -> None:
    """Bars: the first seed's sizes; rings: the other seeds'. `scale` is of letters and rings."""
    first, *others = runs
    places = range(1, len(first["sizes"]) + 1)
    axes.bar(places, first["sizes"], width=0.88, color=BLUE)
    for place, size in zip(places, first["sizes"], strict=True):
        axes.text(
            place, 0.25, str(size), ha="center", va="bottom", color="white", fontsize=9 * scale, fontweight="bold"
        )
    for shift, run in zip(spread(len(others), 0.26), others, strict=True):
        beside = [place + shift for place in places]
        axes.plot(beside, run["sizes"], "o", ms=5 * scale, mfc="white", mec=ORANGE, mew=1.4 * scale)
    axes.set(xlim=(0.5, len(places) + 0.5), ylim=(0, LARGEST + 0.4), yticks=range(1, LARGEST + 1, 2), xticks=places)
    axes.set_ylabel("kernel size")
    axes.tick_params(axis="x", length=0)


def size_key(runs: Sequence[Mapping[str, Any]]) -> str:
    """What bars and rings are."""
    first, *others = [run["seed"] for run in runs]
    return f"bars: seed {first}" + (f"; rings: {words.seed_list(others)}" if others else "")


def _stage_edges(layers: Sequence[str]) -> list[float]:
    """Where the first part of the layers' names (`layer1`) changes."""
    stages = [name.split(".")[0] for name in layers]
    return [place + 0.5 for place, (one, next_one) in enumerate(pairwise(stages), start=1) if one != next_one]


def _kernels(axes: Axes, data: Mapping[str, Any]) -> None:
    """Two rows at the scale of the layers above; a pale frame is the largest size."""
    axes.axis("off")
    axes.autoscale(False)
    axes.set(xlim=(0.5, len(data["layers"]) + 0.5), ylim=(0, 2.1))
    if not data["kernels"]:
        axes.text(0.5, 1, "The records of this row hold no kernels.", color=GREY)
        return
    title = f"Weights of seed {data['kernels_of_seed']}, each layer to its own maximum. "
    axes.set_title(title + "Above: first output, first input (red +, blue -). Below: mean |w| of each tap")
    for place, one in enumerate(data["kernels"], start=1):
        _kernel(axes, place, 1.6, one["kernel"], "RdBu_r", signed=True)
        _kernel(axes, place, 0.5, one["mean_abs"], "Blues", signed=False)


def _kernel(
    axes: Axes, place: float, middle: float, taps: Sequence[Sequence[float]], colours: str, *, signed: bool
) -> None:
    """One kernel, centred at (place, middle)."""
    from matplotlib.patches import Rectangle

    frame = LARGEST * TAP
    axes.add_patch(Rectangle((place - frame / 2, middle - frame / 2), frame, frame, fc="none", ec=FAINT, lw=0.7))
    most = max(abs(value) for line in taps for value in line) or 1.0
    half = len(taps) * TAP / 2
    extent = (place - half, place + half, middle - half, middle + half)
    lowest = -most if signed else 0.0
    axes.imshow(taps, cmap=colours, vmin=lowest, vmax=most, extent=extent, interpolation="none", aspect="auto")
