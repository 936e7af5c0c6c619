"""What the lines of the checklist are computed from, and how one is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reproduce.experiments import EXPERIMENTS
from reproduce.findings import Finding
from reproduce.records import RunRecord
from reproduce.report.cells import Cell, cells_of, rows_of
from reproduce.report.shelf import Shelf
from reproduce.specs import Protocol
from reproduce.store import Store

NAMED = 3  # examples in a line

Lines = Iterator[Finding]


@dataclass(frozen=True)
class Evidence:
    """The records of one folder, and the repository around the code."""

    results: Path
    root: Path

    @cached_property
    def store(self) -> Store:
        return Store(self.results)

    @cached_property
    def shelf(self) -> Shelf:
        return Shelf.of(self.store)

    @property
    def records(self) -> tuple[RunRecord, ...]:
        return self.shelf.records

    @property
    def finished(self) -> list[RunRecord]:
        return [record for record in self.records if record.outcome.status == "finished"]

    def cells(self, protocol: Protocol) -> list[Cell]:
        """The paper's rows of all tables and figures under one protocol."""
        found = [cells_of(rows_of(experiment, protocol, self.shelf), self.shelf) for experiment in EXPERIMENTS]
        return [cell for cells in found for cell in cells if cell.row.paper is not None]


def line(topic: str, good: bool, text: str, mend: str, names: Sequence[str] = ()) -> Finding:
    """Passes or fails; a failed one has its mend. names: examples of what is wrong; the first few are shown."""
    told = f"{text}: {some(names)}" if names else text
    return Finding(topic=topic, state="pass" if good else "fail", text=told, mend="" if good else mend)


def person(topic: str, text: str, mend: str) -> Finding:
    """What no program can tell."""
    return Finding(topic=topic, state="person", text=text, mend=mend)


def some(names: Sequence[str]) -> str:
    """The first few of several names."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
