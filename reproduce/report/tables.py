"""The paper's tables with our cells beside the paper's, as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reproduce.report import notes, plain, sections, terminal, words
from reproduce.report.cells import Cell
from reproduce.report.columns import Column, Footnotes, columns
from reproduce.report.shelf import Shelf
from reproduce.report.table import Table, gather
from reproduce.specs import Protocol
from reproduce.store import Store


def render_table(experiment: str, protocol: Protocol, store: Store) -> str:
    """One table as a markdown document: the paper's rows in its order, filled from the newest complete records."""
    return markdown(gather(experiment, protocol, Shelf.of(store)))


def terminal_table(experiment: str, protocol: Protocol, store: Store) -> str:
    """The same in short, for stdout: model, Eq. 3, ours, the paper's; no line is wider than 80 columns."""
    return terminal.text(gather(experiment, protocol, Shelf.of(store)))


def table_json(experiment: str, protocol: Protocol, store: Store) -> dict[str, Any]:
    """Everything that the table says and what it rests on, as plain values."""
    return plain.table(gather(experiment, protocol, Shelf.of(store)))


def markdown(table: Table) -> str:
    """A gathered table as a markdown document."""
    footnotes = Footnotes()
    shown = columns(table, footnotes)
    title = words.title(table.title, table.dataset, table.protocol, table.smoke)
    parts = [f"# {title}", *_lead(table), _block(table.cells, shown)]
    below = (
        ("Controls", _block(table.controls, shown)),
        ("Other measures", sections.other_measures(table)),
        ("Learned sizes", sections.learned_sizes(table)),
        ("Kernel sizes of the baselines", sections.own_kernel_sizes(table)),
        ("Seconds per epoch, by stage", sections.seconds_by_stage(table)),
        ("Seconds per epoch on random images, by stage", sections.timed_stages(table)),
        ("Time ratios", sections.time_ratios(table)),
        ("Notes", "\n".join(notes.notes(table))),
        ("Readings and departures", "\n".join(notes.deviations(table))),
    )
    parts += [f"## {head}\n\n{text}" for head, text in below if text]
    parts += ["\n".join(footnotes.lines())] if footnotes.texts else []
    return "\n\n".join(parts) + "\n"


def _lead(table: Table) -> list[str]:
    """What a reader must know before the numbers: that they are none, or that the data are not canonical."""
    if table.smoke:
        return [f"**{words.SMOKE_TEST}**"]
    return [f"**Data: {table.remark}.**"] if table.remark else []


def _block(cells: Sequence[Cell], shown: Sequence[Column]) -> str:
    if not cells:
        return ""
    return sections.grid([title for title, _ in shown], [[content(cell) for _, content in shown] for cell in cells])
