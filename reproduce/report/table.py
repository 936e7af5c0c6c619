"""One experiment under one protocol with its rows filled: what markdown, terminal and JSON all show."""

from __future__ import annotations

from dataclasses import dataclass

from reproduce import paper
from reproduce.naming import is_control
from reproduce.report import times, words
from reproduce.report.cells import Cell, cells_of, is_smoke_test, rows_of
from reproduce.report.shelf import Shelf
from reproduce.specs import Protocol
from reproduce.timings import Timing


@dataclass(frozen=True, kw_only=True)
class Table:
    """One experiment under one protocol, its rows filled from the records."""

    experiment: str
    protocol: Protocol
    title: str  # the paper's: "Table 2: CIFAR-10"
    dataset: str
    cells: tuple[Cell, ...]  # the paper's rows in its order
    controls: tuple[Cell, ...]
    smoke: bool  # runs on the bundled digits: no measurement
    remark: str | None  # what all numbers share that is not canonical about their data; None: each cell says it
    shelf: Shelf

    @property
    def every(self) -> tuple[Cell, ...]:
        return self.cells + self.controls

    @property
    def timed(self) -> bool:
        """Whether this protocol may show seconds of ours."""
        return self.protocol.base != "tiny" and not self.smoke

    @property
    def stopwatch(self) -> list[Timing]:
        """The timings that this table shows: of its rows, then the pairs of its claim."""
        if not self.timed:
            return []
        pairs = [pair for pair in self.shelf.pairs if pair.claim == self.experiment]
        return [*times.records(self.every, self.shelf), *pairs]

    @property
    def conditions(self) -> str:
        """What tells our numbers from the paper's setting: protocol and data; empty where nothing does."""
        name = "" if self.protocol.name == "paper" else self.protocol.name
        return "; ".join(part for part in (name, self.remark or "") if part)


def gather(experiment: str, protocol: Protocol, shelf: Shelf) -> Table:
    """Everything that a table of this experiment says, from the records on the shelf."""
    cells = cells_of(rows_of(experiment, protocol, shelf), shelf)
    remarks = {words.data_remark(cell.series.sample.data) for cell in cells if cell.series is not None}
    return Table(
        experiment=experiment,
        protocol=protocol,
        title=paper.tables()[experiment].title,
        dataset=paper.tables()[experiment].dataset,
        cells=tuple(cell for cell in cells if not is_control(cell.row.name)),
        controls=tuple(cell for cell in cells if is_control(cell.row.name)),
        smoke=is_smoke_test(cells),
        remark=next(iter(remarks), "") if len(remarks) < 2 else None,
        shelf=shelf,
    )
