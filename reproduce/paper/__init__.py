"""What the paper prints and where this reproduction departs from it, read from the two TOML files beside this one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent


class Printed(float):
    """A number that remembers how the paper prints it: `str()` of 92.30 is "92.30", not "92.3"."""

    text: str

    def __new__(cls, text: str) -> Self:
        value = super().__new__(cls, text)
        value.text = text
        return value

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One row of a table, or one point of a figure, with the source of its numbers.

    Accuracies in percent, seconds per training epoch. None where the paper prints nothing. `source` is of the
    accuracies and `seconds_source` of the time: "own" (the authors ran it), "cited" or "correspondence" (the authors
    of the cited work told them); `origin` and `seconds_origin` say from whom, as far as it is known.
    """

    name: str
    size: str  # as printed: "0.66M", "N/A"
    accuracy: Printed | None = None  # top-1
    accuracy_std: Printed | None = None
    top5: Printed | None = None
    top5_std: Printed | None = None
    seconds: Printed | None = None
    seconds_approximate: bool = False  # printed with a "~"
    source: str = "own"
    origin: str = ""
    seconds_source: str = ""  # empty: the paper prints no time
    seconds_origin: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table or figure of the paper: its rows in the paper's order, and what its text says of it in our words."""

    name: str  # "table2", "figure3"
    title: str
    dataset: str
    rows: tuple[PaperRow, ...]
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One reading, completion or departure of ours. Its `id` stands as a tag where the code does it."""

    id: str
    title: str
    where: str  # in the paper
    paper: str  # what the paper says or prints, in our words
    chosen: str
    why: str
    alternatives: tuple[str, ...]  # selectable by name unless the text says otherwise
    code: str  # the file that carries the tag


@cache
def tables() -> Mapping[str, PaperTable]:
    """Tables 1-4 and Figures 2-3 by name."""
    return {name: _table(name, part) for name, part in _toml("paper.toml")["experiments"].items()}


def rows(experiment: str) -> tuple[PaperRow, ...]:
    """The paper's rows of one table or figure, in its order."""
    return tables()[experiment].rows


def row(experiment: str, name: str) -> PaperRow | None:
    """One row by name, or None if the paper has none of that name there."""
    return next((found for found in rows(experiment) if found.name == name), None)


@cache
def settings() -> Mapping[str, Any]:
    """The settings that the paper states, as plain values."""
    found: dict[str, Any] = _toml("paper.toml")["settings"]
    return found


@cache
def deviations() -> tuple[Deviation, ...]:
    """All readings of ours, in order of their tags."""
    entries = _toml("deviations.toml")["deviation"]
    return tuple(Deviation(**{**entry, "alternatives": tuple(entry["alternatives"])}) for entry in entries)


def deviation(tag: str) -> Deviation:
    """The reading with this tag ("R-07"). Raises `KeyError`."""
    found = {entry.id: entry for entry in deviations()}
    return found[tag]


def _table(name: str, part: dict[str, Any]) -> PaperTable:
    return PaperTable(
        name=name,
        title=part["title"],
        dataset=part["dataset"],
        rows=tuple(_row(entry) for entry in part.get("rows", [])),
        statements=tuple(part.get("statements", [])),
    )


def _row(entry: dict[str, Any]) -> PaperRow:
    # Whole numbers come as int ("22"); type(), because a flag is an int as well.
    values: dict[str, Any] = {key: Printed(str(v)) if type(v) is int else v for key, v in entry.items()}
    return PaperRow(**values)


def _toml(name: str) -> dict[str, Any]:
    with (HERE / name).open("rb") as file:
        return tomllib.load(file, parse_float=Printed)
