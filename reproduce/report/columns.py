"""The columns of a table: what stands in each cell, and the footnotes that it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from reproduce.report import times, words
from reproduce.report.cells import Cell, Seconds, last, seconds
from reproduce.report.shelf import Series
from reproduce.report.statistics import summarise
from reproduce.report.table import Table
from reproduce.report.words import NOTHING
from reproduce.specs import PROTOCOL_VERSION


@dataclass
class Footnotes:
    """Footnotes in order of their first mark; the same text shares one."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """`[^3]`, or nothing for an empty text."""
        if text and text not in self.texts:
            self.texts.append(text)
        return f"[^{self.texts.index(text) + 1}]" if text else ""

    def lines(self) -> list[str]:
        return [f"[^{number}]: {text}" for number, text in enumerate(self.texts, start=1)]


Column = tuple[str, Callable[[Cell], str]]


def columns(table: Table, notes: Footnotes) -> list[Column]:
    """The main table's columns from left to right. A smoke test has none of the paper's numbers and no seconds."""
    with_paper = not table.smoke
    found: list[Column] = [
        ("model", lambda cell: cell.row.name + (notes.mark(cell.row.paper.note) if cell.row.paper else "")),
        ("size (paper)", lambda cell: cell.row.paper.size if cell.row.paper else NOTHING),
        ("Eq. 3 params", lambda cell: words.counts([record.params.eq3 for record in cell.finished])),
        ("total params", lambda cell: words.counts([record.params.total for record in cell.finished])),
    ]
    for measure, title in measures(table.experiment):
        found += _measure_columns(table, notes, measure, title, with_paper)
    if with_paper:
        found.append(("s/epoch (paper; another, unnamed machine)", lambda cell: printed_seconds(cell, notes)))
    if table.timed:
        found += _timing_columns(table, notes)
    return found


def measures(experiment: str) -> list[tuple[str, str]]:
    """The measures that the paper prints in this table, and their titles."""
    return [("top1", "top-1"), ("top5", "top-5")] if experiment == "table4" else [("top1", "accuracy")]


def header(table: Table, title: str) -> str:
    """The head of a column of ours: it says the conditions wherever they are not the paper's."""
    if table.smoke:
        return f"{title} on digits ({table.protocol.name}; no measurement)"
    return f"{title} ours" + (f" ({table.conditions})" if table.conditions else "")


def state(cell: Cell) -> str:
    """How far a row is: "finished", "diverged", "failed" or "not run"."""
    if cell.series is None:
        return "not run"
    return "finished" if cell.finished else " and ".join(sorted({one.outcome.status for one in cell.unfinished}))


def ours(table: Table, cell: Cell, measure: str, notes: Footnotes | None = None) -> str:
    """A cell of ours: mean, deviation and number of seeds, or why there is none. Footnotes only where asked for."""
    mark = notes.mark if notes else lambda text: ""
    text = words.measured(last(cell, measure)) if cell.finished else state(cell)
    kinds = Counter(record.outcome.status for record in cell.unfinished if cell.finished)
    stopped = "".join(f"; {count} {kind}" for kind, count in sorted(kinds.items()))
    conditions = "".join(f"; {remark}" for remark in remarks(table, cell))
    return text + stopped + mark(reasons(cell)) + conditions + "".join(map(mark, others(cell)))


def remarks(table: Table, cell: Cell) -> list[str]:
    """What a cell itself must say of its number: an older protocol version, and what the header does not cover."""
    if cell.series is None:
        return []
    found = [] if cell.series.newest else [f"protocol v{cell.series.version}"]
    found += cell.series.way.remarks
    if table.remark is None:
        found.append(words.data_remark(cell.series.sample.data) or "canonical files")
    return found


def reasons(cell: Cell) -> str:
    """Why seeds of this cell have no result."""
    return "; ".join(
        f"seed {one.seed} {one.outcome.status}: {words.one_line(one.outcome.reason) or 'no reason recorded'}"
        for one in cell.unfinished
    )


def others(cell: Cell) -> list[str]:
    """What is recorded of this row but stands in no cell, since cells never mix: old versions and other data."""
    return [f"Recorded as well: {_described(one)}" for one in cell.others]


def our_seconds(table: Table, cell: Cell, notes: Footnotes) -> str:
    """Both averages (R-23) on each machine that timed this row."""
    if not cell.finished:
        return NOTHING
    found = []
    for one in seconds(cell):
        title = words.machine_title(table.shelf.machine(one.machine), one.device)
        where = notes.mark(f"Timed on {title} (machine {one.machine}).")
        found.append(_averages(one) + where)
    if not found:
        shared = any(record.clock.shared_device for record in cell.finished)
        return NOTHING + notes.mark("Not timed: the device was shared." if shared else "Not timed.")
    return "; ".join(found)


def _measure_columns(table: Table, notes: Footnotes, measure: str, title: str, with_paper: bool) -> list[Column]:
    """The paper's value, ours, and the interval of ours. Footnotes on our cells stand at the first measure alone."""
    marks = notes if measure == "top1" else None
    found: list[Column] = [
        (header(table, title), lambda cell: ours(table, cell, measure, marks)),
        (f"95 % interval ({title})", lambda cell: words.interval(last(cell, measure))),
    ]
    if with_paper:
        found.insert(0, (f"{title} (paper)", lambda cell: printed_accuracy(cell, measure, notes)))
    return found


def paper_accuracy(cell: Cell, measure: str) -> str:
    """The paper's number, without its source."""
    row = cell.row.paper
    if row is None:
        return NOTHING
    top1 = measure == "top1"
    return words.printed(row.accuracy if top1 else row.top5, row.accuracy_std if top1 else row.top5_std)


def printed_accuracy(cell: Cell, measure: str, notes: Footnotes) -> str:
    """The paper's number, and whose it is as a footnote."""
    row, text = cell.row.paper, paper_accuracy(cell, measure)
    return text if row is None or text == NOTHING else text + notes.mark(_provenance(row.source, row.origin))


def printed_seconds(cell: Cell, notes: Footnotes) -> str:
    """The paper's seconds per epoch, and whose they are as a footnote."""
    row = cell.row.paper
    if row is None or row.seconds is None:
        return NOTHING
    return words.printed_seconds(row) + notes.mark(_provenance(row.seconds_source, row.seconds_origin))


def _timing_columns(table: Table, notes: Footnotes) -> list[Column]:
    """One column for each place that the stopwatch was used at; then one for seconds that the runs themselves took.

    The two are measured in different ways. The latter stands empty only where there is none of the former.
    """
    titles = times.titles(times.places(table.every, table.shelf), table.shelf)
    found: list[Column] = [
        (f"s/epoch ours ({title}): {times.AVERAGES}", partial(_timed_seconds, table, place, notes))
        for place, title in titles.items()
    ]
    if not found or any(seconds(cell) for cell in table.every):
        where = " (during the runs, on their data)" if found else ""
        found.append(
            (f"s/epoch ours{where}: all epochs / mean of the stages", lambda cell: our_seconds(table, cell, notes))
        )
    return found


def _timed_seconds(table: Table, place: times.Place, notes: Footnotes, cell: Cell) -> str:
    return times.seconds(times.timings(cell, table.shelf).get(place), notes.mark)


def _provenance(source: str, origin: str) -> str:
    """Whose number the paper prints."""
    if source == "own":
        return "Own: measured by the authors of the paper."
    kind = {"cited": "Cited", "correspondence": "By correspondence with"}[source]
    return f"{kind}{' ' if source == 'correspondence' else ': '}{origin or 'not stated'}."


def _averages(one: Seconds) -> str:
    """Both averages; they are one where there is no size learning."""
    text = f"{one.all_epochs.mean:.2f}" + (f" / {one.of_stages.mean:.2f}" if one.size_learning else "")
    return text if one.training.n >= 3 else f"{text} (n = {one.training.n})"


def _described(one: Series) -> str:
    values = [record.metrics.last.top1 for record in one.finished if record.metrics is not None]
    result = words.measured(summarise(values)) if values else "no result"
    version = "" if one.version == PROTOCOL_VERSION else f"protocol v{one.version}, "
    way = "".join(f", {remark}" for remark in one.way.remarks)
    return f"{version}{words.one_line(one.sample.data.title)}{way}: {result}."
