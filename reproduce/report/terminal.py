"""A table in short for stdout: no line is wider than 80 columns."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from itertools import groupby

from reproduce.experiments import Row
from reproduce.report import ratios, times, words
from reproduce.report.cells import Cell, last
from reproduce.report.columns import others, paper_accuracy, reasons, remarks, state
from reproduce.report.table import Table
from reproduce.report.words import NOTHING
from reproduce.timings import PairTiming, RowTiming

WIDTH = 80


@dataclass
class Marks:
    """Notes below the table, numbered as they come."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        if text and text not in self.texts:
            self.texts.append(text)
        return f" [{self.texts.index(text) + 1}]" if text else ""


def text(table: Table) -> str:
    """Title, rows and legend."""
    marks = Marks()
    rows = [_row(table, cell, marks) for cell in table.every]
    head = _wrapped(f"{words.title(table.title, table.dataset, table.protocol, table.smoke)}")
    body = [*_fitted(_headers(table), rows), *(_times(table, marks) + _ratios(table, marks) if table.timed else [])]
    return "\n".join([*head, "", *body, "", *_legend(table, marks)])


def _headers(table: Table) -> list[list[str]]:
    """The head, and below it, line by line, what tells our numbers from the paper's setting."""
    printed = [] if table.smoke else ["paper"]
    first = ["model", "Eq. 3", "ours", *printed]
    if table.experiment == "table4":
        first = ["model", "Eq. 3", "top-1 ours", *printed, "top-5 ours", *printed]
    name = "" if table.protocol.name == "paper" else table.protocol.name
    conditions = [name, "digits" if table.smoke else "other data" if table.remark else ""]
    more = [["", "", text, *[""] * (len(first) - 3)] for text in conditions if text]
    return [first, *more]


def _row(table: Table, cell: Cell, marks: Marks) -> list[str]:
    row = [cell.row.name, words.millions([record.params.eq3 for record in cell.finished])]
    if table.experiment != "table4":
        return [*row, _ours(table, cell, marks), *([] if table.smoke else [paper_accuracy(cell, "top1")])]
    top5 = words.measured(last(cell, "top5"), count=False)
    if table.smoke:
        return [*row, _ours(table, cell, marks), top5]
    printed = cell.row.paper  # without deviations, for want of room
    return [
        *row,
        _ours(table, cell, marks),
        words.printed(printed.accuracy if printed else None),
        top5,
        words.printed(printed.top5 if printed else None),
    ]


def _ours(table: Table, cell: Cell, marks: Marks) -> str:
    text = words.measured(last(cell, "top1")) if cell.finished else state(cell)
    told = [*([reasons(cell)] if cell.unfinished else []), *remarks(table, cell), *others(cell)]
    return text + marks.mark(f"{cell.row.name}: {'; '.join(told)}" if told else "")


def _times(table: Table, marks: Marks) -> list[str]:
    """Seconds per epoch by the stopwatch: a block for each place, with the rows that were timed there."""
    lines: list[str] = []
    for place, title in times.titles(times.places(table.every, table.shelf), table.shelf).items():
        timed = [(cell.row, times.timings(cell, table.shelf).get(place)) for cell in table.every]
        rows = [_time(row, record, marks) for row, record in timed if record is not None]
        lines += ["", *_wrapped(f"Seconds per epoch: {title}"), *_fitted([["model", times.AVERAGES, "paper"]], rows)]
    return lines


def _time(row: Row, record: RowTiming, marks: Marks) -> list[str]:
    printed = NOTHING if row.paper is None else words.printed_seconds(row.paper)
    return [row.name, times.seconds(record, marks.mark, short=True), printed]


def _ratios(table: Table, marks: Marks) -> list[str]:
    """The headlines of the table's claim: a block for each machine and pair of networks."""
    lines: list[str] = []
    for bench, pairs in ratios.by_bench(table.experiment, table.shelf).items():
        for title, same in groupby(ratios.headlines(pairs), key=lambda one: one.title):
            claims = list(same)
            where = f"{bench.title(table.shelf)}; the paper's numbers, another machine: {claims[0].printed}"
            lines += ["", *_wrapped(f"Times as long, {title}: {where}")]
            head = ["kernel size", "headline", "level", "level i", "level i, full grid"]
            lines += _fitted([head], [_claim(one, marks) for one in claims])
    return lines


def _claim(one: ratios.Headline, marks: Marks) -> list[str]:
    size = NOTHING if one.kernel_size is None else str(one.kernel_size)
    level = NOTHING if one.chosen is None else ratios.level_of(one.chosen)
    flags = "".join(map(marks.mark, one.flags))
    return [size, ratios.ratio(one.chosen), level + flags, ratios.ratio(one.plain), ratios.ratio(one.plain_full)]


def _fitted(headers: list[list[str]], rows: list[list[str]]) -> list[str]:
    """Head and rows in columns; names lose their ends if that is what 80 columns take."""
    widths = [max(map(len, column)) for column in zip(*headers, *rows, strict=True)]
    widths[0] -= max(0, sum(widths) + 2 * (len(widths) - 1) - WIDTH)
    rule = ["-" * width for width in widths]
    lines = []
    for name, *rest in [*headers, rule, *rows]:
        name = name if len(name) <= widths[0] else name[: widths[0] - 3] + "..."
        lines.append("  ".join(f"{text:<{width}}" for text, width in zip([name, *rest], widths, strict=True)).rstrip())
    return lines


def _legend(table: Table, marks: Marks) -> list[str]:
    what = "accuracy in % after the last epoch, mean ± sample standard deviation (n seeds)"
    lines = [words.SMOKE_TEST] if table.smoke else [f"Data: {table.remark}."] if table.remark else []
    lines.append(f"ours: {what}.")
    if any(isinstance(one, PairTiming) for one in table.stopwatch):
        lines.append("headline: the lower of levels ii and iii (`--json` has every pair).")
    lines += [f"[{number}] {told}" for number, told in enumerate(marks.texts, start=1)]
    return [part for line in lines for part in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, break_long_words=True, break_on_hyphens=False)
