"""Whose seconds Figure 3 shows: one machine's, and taken in one way, by the stopwatch or during the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from reproduce.report import times, words
from reproduce.report.cells import Cell, Seconds, seconds
from reproduce.report.shelf import Shelf

Where = TypeVar("Where", times.Place, tuple[str, str])


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What was timed, by row. Empty where nothing was."""

    machine: dict[str, Any] | None = None
    seconds: dict[str, dict[str, Any]] = field(default_factory=dict)
    timings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # all that the stopwatch found


def clock_of(cells: Sequence[Cell], shelf: Shelf) -> Clock:
    """The stopwatch at the place where it timed most points; if it timed none, the runs on one machine likewise."""
    found = [(cell.row.name, *one) for cell in cells for one in times.timings(cell, shelf).items()]
    timed = [(name, place, record) for name, place, record in found if times.is_whole(record)]
    chosen = _commonest([place for _, place, _ in timed])
    timings = {cell.row.name: times.plain(cell, shelf) for cell in cells} if found else {}
    if chosen is None:
        return replace(_of_runs(cells, shelf), timings=timings)
    about = {"id": chosen.machine, "title": times.titles([chosen], shelf)[chosen], "by": "stopwatch"}
    return Clock(
        machine=about | {key: value for key, value in asdict(chosen).items() if key != "machine"},
        seconds={name: times.averages(record) for name, place, record in timed if place == chosen},
        timings=timings,
    )


def _of_runs(cells: Sequence[Cell], shelf: Shelf) -> Clock:
    timed = [(cell.row.name, (one.machine, one.device), one) for cell in cells for one in seconds(cell)]
    chosen = _commonest([where for _, where, _ in timed])
    if chosen is None:
        return Clock()
    machine, device = chosen
    title = words.machine_title(shelf.machine(machine), device)
    return Clock(
        machine={"id": machine, "device": device, "title": title, "by": "runs"},
        seconds={name: _averages(one) for name, where, one in timed if where == chosen},
    )


def _commonest(found: Sequence[Where]) -> Where | None:
    """The place of most points; of equals the first in order."""
    counted = Counter(found)
    return max(sorted(counted), key=lambda one: counted[one], default=None)


def _averages(timing: Seconds) -> dict[str, Any]:
    """Both averages of R-23; the picture shows the first."""
    return {"all_epochs": timing.all_epochs.as_json(), "mean_of_stages": timing.of_stages.as_json()}
