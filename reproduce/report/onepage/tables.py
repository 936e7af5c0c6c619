"""Tables 1-4 beside the paper's: one table each, its columns the paper's number and ours under each protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reproduce import paper
from reproduce.report import columns, times, words
from reproduce.report.cells import Cell, last, seconds
from reproduce.report.onepage import commands
from reproduce.report.onepage.overview import TABLES
from reproduce.report.onepage.parts import (
    Block,
    Bullets,
    Code,
    Commands,
    Grid,
    Heading,
    Inline,
    Line,
    Section,
    Small,
    joined,
    text,
)
from reproduce.report.onepage.sources import Sources, rendered
from reproduce.report.table import Table, gather
from reproduce.report.words import NOTHING
from reproduce.specs import Protocol

LEAD = (
    "Accuracy: test accuracy in % after the last epoch, mean ± sample standard deviation (n seeds) with the 95 % "
    "Student-t interval of the mean; each seed leads to its record. The paper's numbers are its own, cited or told by "
    "others, as the notes say. Only the column of the paper's protocol is to be set beside the paper's; all others are "
    "shorter runs. Seconds: of an epoch, on random images of the data set's shape, ~ where extrapolated; of both "
    "stages weighted by epochs / their mean (R-23)."
)
Column = tuple[Line, list[Line]]  # a header, and what stands in each row


@dataclass
class Notes(columns.Footnotes):
    """Notes below one table, in order of their first mark; the mark itself stands nowhere in the text."""

    called: list[int] = field(default_factory=list)  # since `taken`

    def mark(self, text: str) -> str:
        if text:
            self.texts += [] if text in self.texts else [text]
            self.called.append(self.texts.index(text) + 1)
        return ""

    def taken(self) -> Line:
        """`note 1, 3`: the marks since the last time."""
        numbers, self.called = sorted(set(self.called)), []
        title = "note " if len(numbers) == 1 else "notes "
        return (Small((title + ", ".join(map(str, numbers)),)),) if numbers else ()


def section(sources: Sources) -> Section:
    blocks = [block for name in TABLES for block in _experiment(name, sources)]
    return Section(name="tables", title="Tables 1-4 beside the paper's", short="Tables", blocks=(text(LEAD), *blocks))


def _experiment(name: str, sources: Sources) -> Iterator[Block]:
    """One table of the paper with all protocols of ours, then how its numbers are made."""
    every = [table for table in sources.tables if table.experiment == name]
    shown = sorted((one for one in every if not one.smoke), key=lambda one: (not _is_full(one), one.protocol.name))
    if not any(one.protocol.name == "paper" for one in shown):
        shown.insert(0, gather(name, Protocol(base="paper"), sources.shelf))
    notes = Notes()
    yield Heading(paper.tables()[name].title)
    yield _grid([(one, one.cells) for one in shown], notes, sources)
    controls = [(one, one.controls) for one in shown]
    if any(cell.series or times.timings(cell, sources.shelf) for _, cells in controls for cell in cells):
        yield _grid(controls, notes, sources, "Controls, which the paper lacks")
    if notes.texts:
        yield Bullets(tuple((note,) for note in notes.texts), numbered=True)
    yield from _made_by(name, shown, every, sources)


def _is_full(table: Table) -> bool:
    return table.protocol.base == "paper"


def _grid(shown: Sequence[tuple[Table, Sequence[Cell]]], notes: Notes, sources: Sources, caption: str = "") -> Grid:
    """The same rows under each protocol, as one table."""
    table, cells = shown[0]
    with_paper = any(cell.row.paper for cell in cells)
    found: list[Column] = [(("model",), [_name(cell, notes) for cell in cells])]
    for measure, title in columns.measures(table.experiment):
        if with_paper:
            found.append(((f"{title} (paper)",), [_printed(cell, measure, notes) for cell in cells]))
        found += [_ours(one, several, measure, title, notes, sources) for one, several in shown if _shows(one, several)]
    if with_paper:
        found.append((("s/epoch (paper; another, unnamed machine)",), [_printed_seconds(one, notes) for one in cells]))
    found += _timed(cells, notes, sources)
    found += [_during(one, several, notes) for one, several in shown if any(map(seconds, several))]
    found += _sizes([several for _, several in shown], with_paper)
    rows = zip(*(column for _, column in found), strict=True)
    return Grid(tuple(header for header, _ in found), tuple(rows), caption)


def _shows(table: Table, cells: Sequence[Cell]) -> bool:
    """The paper's protocol always has its column, however empty; others where they have runs."""
    return table.protocol.name == "paper" or any(cell.series for cell in cells)


def _name(cell: Cell, notes: Notes) -> Line:
    notes.mark(cell.row.paper.note if cell.row.paper else "")
    return (cell.row.name, *notes.taken())


def _sizes(shown: Sequence[Sequence[Cell]], with_paper: bool) -> list[Column]:
    """The paper's size, and ours where any row has a result."""
    found: list[Column] = []
    if with_paper:
        found.append((("size (paper)",), [(cell.row.paper.size if cell.row.paper else NOTHING,) for cell in shown[0]]))
    if any(cell.finished for cells in shown for cell in cells):
        header: Line = ("size (ours): Eq. 3", Small(("in total",)))
        found.append((header, [_size(several) for several in zip(*shown, strict=True)]))
    return found


def _size(several: Sequence[Cell]) -> Line:
    """Weights as Eq. 3 counts them and in total, of the first protocol that has results."""
    params = [record.params for record in next((cell.finished for cell in several if cell.finished), ())]
    eq3, total = words.counts([one.eq3 for one in params]), words.counts([one.total for one in params])
    return (eq3,) if total == NOTHING else (eq3, Small((total,)))


def _printed(cell: Cell, measure: str, notes: Notes) -> Line:
    return (together(columns.printed_accuracy(cell, measure, notes)), *notes.taken())


def together(text: str) -> str:
    """Keeps a number and its deviation on one line."""
    return text.replace(" ± ", "\u00a0±\u00a0")


def _printed_seconds(cell: Cell, notes: Notes) -> Line:
    return (columns.printed_seconds(cell, notes), *notes.taken())


def _ours(table: Table, cells: Sequence[Cell], measure: str, title: str, notes: Notes, sources: Sources) -> Column:
    """Our column of one protocol: its header says the schedule and the data."""
    schedule = words.schedule(table.dataset, table.protocol)
    about = "; ".join(part for part in (schedule, table.remark or "") if part)
    header: Line = (f"{title} (ours) ", Code(table.protocol.name), Small((about,)))
    return header, [_our_cell(table, cell, measure, notes, sources) for cell in cells]


def _our_cell(table: Table, cell: Cell, measure: str, notes: Notes, sources: Sources) -> Line:
    """The number, its interval, its records, and the notes on runs without a result and on other records."""
    shown: list[Inline] = [together(columns.ours(table, cell, measure, notes))]
    interval = words.interval(last(cell, measure))
    shown += [Small((interval,))] if interval != NOTHING else []
    records = sources.runs((*cell.finished, *cell.unfinished))
    shown += [Small(records)] if records else []
    return (*shown, *notes.taken())


def _timed(cells: Sequence[Cell], notes: Notes, sources: Sources) -> list[Column]:
    """One column for each place at which the stopwatch was used; each number is a link to its record."""
    titles = times.titles(times.places(cells, sources.shelf), sources.shelf)
    found: list[Column] = []
    for place, title in titles.items():
        column: list[Line] = []
        for cell in cells:
            record = times.timings(cell, sources.shelf).get(place)
            shown = times.seconds(record, notes.mark)
            column.append((shown if record is None else sources.timing(record, shown), *notes.taken()))
        found.append((("s/epoch (ours)", Small((title,))), column))
    return found


def _during(table: Table, cells: Sequence[Cell], notes: Notes) -> Column:
    """Seconds that the runs themselves took, where they had their device to themselves; their records stand left."""
    header: Line = ("s/epoch (ours), during the runs ", Code(table.protocol.name))
    return header, [(columns.our_seconds(table, cell, notes), *notes.taken()) for cell in cells]


def _made_by(name: str, shown: Sequence[Table], every: Sequence[Table], sources: Sources) -> Iterator[Block]:
    """The commands behind the columns, and the pages that say more."""
    lines = [line for one in shown for line in commands.of_cells(name, one.protocol, one.every)]
    lines += [commands.of_place(name, place) for place in times.places(shown[0].every, sources.shelf)]
    if lines:
        yield text("Made by (DIR: the folder of the images that the column names):")
        yield Commands(tuple(lines))
    links = [(rendered(f"{name}.{one.protocol.name}.md"),) for one in every]
    if links:
        yield text("Learned sizes, other measures, settings and readings of each: ", *joined(links), ".")
