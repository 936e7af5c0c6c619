"""What the report is made of: blocks of plain values, which `html` and `markdown` each write down in their way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Link:
    """`href` is relative to the results folder, or `#id` of a section."""

    text: str
    href: str
    kind: ClassVar[str] = "link"


@dataclass(frozen=True)
class Code:
    """A command, a file or a name of the suite's own."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Strong:
    text: str
    kind: ClassVar[str] = "strong"


@dataclass(frozen=True)
class Badge:
    """A verdict, with how many claims have it, where that is told."""

    text: str
    count: int | None = None
    kind: ClassVar[str] = "badge"


@dataclass(frozen=True)
class Small:
    """What belongs to a number, on a line of its own in small type: the interval, the records."""

    line: Line
    kind: ClassVar[str] = "small"


Inline = str | Link | Code | Strong | Badge | Small
Line = tuple[Inline, ...]


@dataclass(frozen=True)
class Text:
    line: Line
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets:
    items: tuple[Line, ...]
    numbered: bool = False
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Commands:
    """Commands of a shell, one a line."""

    lines: tuple[str, ...]
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class Grid:
    """A table; every row is as long as the headers."""

    headers: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]
    caption: str = ""
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Facts:
    """Terms and what is said of each."""

    pairs: tuple[tuple[str, Line], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Picture:
    """The SVG of this name in the rendered folder."""

    name: str
    about: str
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Imported:
    """A page of the rendered folder that stands here whole, as markdown without its first heading."""

    markdown: str
    kind: ClassVar[str] = "imported"


@dataclass(frozen=True)
class Tile:
    """A number of the first screen."""

    label: str
    value: Line
    about: Line


@dataclass(frozen=True)
class Tiles:
    items: tuple[Tile, ...]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Fold:
    """Blocks under a line that opens them; open in print."""

    title: Line
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Heading:
    text: str
    kind: ClassVar[str] = "heading"


Block = Text | Bullets | Commands | Grid | Facts | Picture | Imported | Tiles | Fold | Heading


@dataclass(frozen=True, kw_only=True)
class Section:
    """`name` is its anchor; `short` stands in the list of contents."""

    name: str
    title: str
    short: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    title: str
    lead: Line
    sections: tuple[Section, ...]


def text(*parts: Inline) -> Text:
    return Text(parts)


def cells(*texts: str) -> tuple[Line, ...]:
    """Plain texts as the cells of a row, or as headers."""
    return tuple((one,) for one in texts)


def marked(said: str) -> Line:
    """Text on one line; what stands between backticks is code."""
    parts = " ".join(said.split()).split("`")
    return tuple(Code(one) if number % 2 else one for number, one in enumerate(parts) if one)


def joined(lines: Iterable[Line], between: str = ", ") -> Line:
    """Lines after one another as one."""
    found: list[Inline] = []
    for one in lines:
        found += [between, *one] if found else one
    return tuple(found)


def grid(headers: Sequence[str], rows: Iterable[Sequence[Line]], caption: str = "") -> Grid:
    return Grid(cells(*headers), tuple(tuple(row) for row in rows), caption)
