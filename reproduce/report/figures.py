"""The data behind Figures 2 and 3 as plain values; `drawing2` and `drawing3` turn exactly these into pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from reproduce import experiments, paper
from reproduce.paper import PaperRow
from reproduce.records import RunRecord
from reproduce.report import words
from reproduce.report.cells import Cell, cells_of, is_smoke_test, last, layer_sizes, rows_of
from reproduce.report.curves import Clock, clock_of
from reproduce.report.shelf import Shelf
from reproduce.specs import PROTOCOL_VERSION, Protocol

# Raised when pictures look different for the same data, so that they are drawn again.
DRAWING = 2
FIGURE3C_BUDGETS = (100_000, 200_000)


def figure_data(experiment: str, protocol: Protocol, shelf: Shelf) -> dict[str, Any] | None:
    """Everything that the picture shows, or None if no finished run belongs in it, or a single point of Figure 3.

    All points are of one source: digits never stand beside images of the data set, nor canonical files beside others.
    """
    cells = cells_of(rows_of(experiment, protocol, shelf), shelf, one_source=True)
    filled = [cell for cell in cells if cell.finished]
    if len(filled) < (2 if experiment == "figure3" else 1):
        return None
    smoke = is_smoke_test(cells)
    content = _figure2(filled[0]) if experiment == "figure2" else _figure3(cells, shelf, smoke)
    return {**_about(experiment, protocol, filled, smoke), **content}


def as_text(data: dict[str, Any]) -> str:
    """The JSON beside a picture: sorted and stable, so that it can be compared."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _about(experiment: str, protocol: Protocol, filled: Sequence[Cell], smoke: bool) -> dict[str, Any]:
    """What every figure says of itself: protocol, data and seeds."""
    origin = filled[0].finished[0].data
    seeds = sorted({record.seed for cell in filled for record in cell.finished})
    schedule = words.schedule(experiments.dataset_of(experiment), protocol)
    old = sorted({cell.series.version for cell in filled if cell.series is not None} - {PROTOCOL_VERSION})
    parts = [f"Protocol {protocol.name}: {schedule}", origin.title, words.seed_list(seeds)]
    parts += [f"protocol v{version}" for version in old]
    return {
        "drawing": DRAWING,
        "experiment": experiment,
        "protocol": protocol.name,
        "smoke_test": smoke,
        "title": words.heading(paper.tables()[experiment].title, smoke),
        "subtitle": "; ".join(parts),
        "data": origin.model_dump(mode="json", exclude={"files"}),
        "seeds": seeds,
    }


def _figure2(cell: Cell) -> dict[str, Any]:
    """Sizes of every seed, and the kernels of the first one."""
    first = cell.finished[0]
    return {
        "row": cell.row.name,
        "layers": list(layer_sizes(first)),
        "runs": [_sizes(record) for record in cell.finished],
        "kernels_of_seed": first.seed,
        "kernels": [
            {
                "layer": one.layer,
                "size": one.size,
                "kernel": [[_short(value) for value in line] for line in one.kernel],
                "mean_abs": [[_short(value) for value in line] for line in one.mean_abs],
            }
            for one in first.kernels
        ],
    }


def _figure3(cells: Sequence[Cell], shelf: Shelf, smoke: bool) -> dict[str, Any]:
    """Panels (a) and (b) as points, (c) as sizes by layer."""
    clock = Clock() if smoke else clock_of(cells, shelf)
    panels: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    for cell in cells:
        depth, budget = _place(cell)
        point = _point(cell, clock, smoke)
        if budget == experiments.FIGURE3A_BUDGET:
            panels["a"].append({"depth": depth, **point})
        elif depth == experiments.FIGURE3B_DEPTH:
            panels["b"].append({"budget": budget, **point})
    return {
        **panels,
        "c": [
            {"row": cell.row.name, "budget": budget, "runs": [_sizes(record) for record in cell.finished]}
            for cell, (depth, budget) in ((cell, _place(cell)) for cell in cells)
            if depth == experiments.FIGURE3B_DEPTH and budget in FIGURE3C_BUDGETS
        ],
        "machine": clock.machine,
    }


def _place(cell: Cell) -> tuple[int, int]:
    """(depth, budget) of a row of Figure 3; each of them has learned sizes."""
    spec = cell.row.spec
    if spec.size_learning is None:
        raise ValueError(f"{cell.row.name} has no place in Figure 3: its sizes are not learned")
    return int(str(spec.model.args["depth"])), spec.size_learning.budget


def _point(cell: Cell, clock: Clock, smoke: bool) -> dict[str, Any]:
    accuracy = last(cell, "top1")
    timings = clock.timings.get(cell.row.name)
    return {
        "row": cell.row.name,
        "seeds": [record.seed for record in cell.finished],
        "protocol_version": None if cell.series is None else cell.series.version,
        "unfinished": [f"seed {record.seed} {record.outcome.status}" for record in cell.unfinished],
        "accuracy": None if accuracy is None else accuracy.as_json(),
        "seconds": clock.seconds.get(cell.row.name),
        **({} if timings is None else {"timings": timings}),
        "paper": None if smoke or cell.row.paper is None else _printed(cell.row.paper),
    }


def _printed(row: PaperRow) -> dict[str, Any] | None:
    """The paper's point, where it prints one."""
    if row.accuracy is None and row.seconds is None:
        return None
    numbers = {"accuracy": row.accuracy, "accuracy_std": row.accuracy_std, "seconds": row.seconds}
    return {
        **{name: None if value is None else float(value) for name, value in numbers.items()},
        "seconds_approximate": row.seconds_approximate,
    }


def _sizes(record: RunRecord) -> dict[str, Any]:
    return {"seed": record.seed, "run_id": record.run_id, "sizes": list(layer_sizes(record).values())}


def _short(value: float) -> float:
    """A weight to 5 significant digits: more is not seen."""
    return float(f"{value:.5g}")


def pictures(data: dict[str, Any]) -> dict[str, bytes]:
    """{"png": ..., "svg": ...} of exactly this data."""
    from reproduce.report import canvas, drawing2, drawing3

    return canvas.rendered(drawing2.draw if data["experiment"] == "figure2" else drawing3.draw, data)
