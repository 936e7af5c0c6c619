"""One finding of a check with its evidence and mend, and text that fits a terminal. Plain data; no torch, no I/O."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check came to. `text` is its evidence, as computed; `mend` says what to do, where there is something."""

    topic: str
    state: str  # of the checklist: pass, fail, person; of the doctor: ok, note, broken
    text: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def clean(value: object) -> str:
    """Free text of a record on one line, without what steers a terminal."""
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def labelled(label: str, text: str, *, indent: int = 15) -> list[str]:
    """`label         text`, wrapped to 80 columns with the text in its own column."""
    head = f"{label:<{indent - 2}}  "
    return textwrap.wrap(
        clean(text) or "-", WIDTH, initial_indent=head, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def page(findings: Iterable[Finding], titles: dict[str, str]) -> list[str]:
    """A block for each topic. `titles`: what a state is called, in the order of the count at the end."""
    every = list(findings)
    width = 2 + max(map(len, titles.values()))
    lines: list[str] = []
    for topic, some in groupby(every, key=lambda one: one.topic):
        lines += ["", topic] if lines else [topic]
        for one in some:
            told = _narrow(titles[one.state], one.text, width)
            told += _narrow("", f"mend: {one.mend}", width) if one.mend else []
            lines += [f"  {line}" for line in told]
    counts = (f"{sum(one.state == state for one in every)} {title}" for state, title in titles.items())
    return [*lines, "", ", ".join(counts)]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, the first to the left and the others to the right; cut to 80 letters."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip()[:WIDTH])
    return lines


def _narrow(label: str, text: str, width: int) -> list[str]:
    head = f"{label:<{width}}"
    return textwrap.wrap(
        clean(text), WIDTH - 2, initial_indent=head, subsequent_indent=" " * width, break_on_hyphens=False
    )
