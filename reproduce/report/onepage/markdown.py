"""The report as markdown: the same blocks as in HTML, each on its own lines. Text of records stays on one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reproduce.report.onepage.parts import (
    Badge,
    Block,
    Bullets,
    Code,
    Commands,
    Facts,
    Fold,
    Grid,
    Heading,
    Imported,
    Inline,
    Line,
    Link,
    Picture,
    Report,
    Small,
    Strong,
    Text,
    Tiles,
)
from reproduce.report.sections import grid
from reproduce.report.words import one_line


def markdown(report: Report, folder: Path, base: str) -> str:
    """The whole file; `base` leads from the file to the results. The pictures in `folder` are linked."""
    parts = [f"# {report.title}", line(report.lead, base)]
    for section in report.sections:
        parts += [f'<a id="{section.name}"></a>', f"## {section.title}"]
        parts += [part for block in section.blocks for part in _block(block, base)]
    return "\n\n".join(part for part in parts if part) + "\n"


def line(parts: Line, base: str) -> str:
    return "".join(_inline(part, base) for part in parts)


def _inline(part: Inline, base: str) -> str:
    match part:
        case str():
            return plain(part)
        case Link():
            href = part.href if part.href.startswith("#") else f"{base}/{part.href}"
            return f"[{plain(part.text)}]({href})"
        case Code():
            return _code(part.text)
        case Strong():
            return f"**{plain(part.text.strip())}**" + " " * part.text.endswith(" ")
        case Badge():
            return f"**{'' if part.count is None else f'{part.count} '}{plain(part.text)}** "
        case Small():
            return f" ({line(part.line, base)})"


def plain(text: str) -> str:
    """On one line, with nothing in it that markdown or HTML would take for markup."""
    kept = " " * (text[:1] == " "), one_line(text), " " * (text[-1:] == " " and bool(text.strip()))
    return re.sub(r"([\\`*_\[\]]|<(?=[A-Za-z/!?]))", _escaped, "".join(kept))


def _escaped(match: re.Match[str]) -> str:
    return "&lt;" if match[1] == "<" else f"\\{match[1]}"


def _code(text: str) -> str:
    return f"`{one_line(text).replace('`', chr(39))}`"


def _block(block: Block, base: str) -> Iterator[str]:
    match block:
        case Text():
            yield line(block.line, base)
        case Heading():
            yield f"### {plain(block.text)}"
        case Bullets():
            marks = (f"{number}." if block.numbered else "-" for number in range(1, len(block.items) + 1))
            yield "\n".join(f"{mark} {line(item, base)}" for mark, item in zip(marks, block.items, strict=True))
        case Commands():
            yield "\n".join(f"    {one_line(one)}" for one in block.lines)
        case Grid():
            yield from _grid(block, base)
        case Facts():
            yield "\n".join(f"- {plain(term)}: {line(what, base)}" for term, what in block.pairs)
        case Picture():
            yield f"![{plain(block.about)}]({base}/rendered/{block.name})"
        case Imported():
            yield _imported(block.markdown)
        case Tiles():
            yield "\n".join(
                f"- {plain(tile.label)}: {line(tile.value, base)} ({line(tile.about, base)})" for tile in block.items
            )
        case Fold():
            yield f"- {line(block.title, base)}"
            yield from (_indented(part) for inner in block.blocks for part in _block(inner, base))


def _grid(block: Grid, base: str) -> Iterator[str]:
    if block.caption:
        yield f"**{plain(block.caption)}**"
    headers = [line(header, base) for header in block.headers]
    yield grid(headers, [[line(cell, base) for cell in row] for row in block.rows])


def _indented(text: str) -> str:
    """As a part of the list's item above it."""
    return "\n".join(f"  {one}" if one else "" for one in text.split("\n"))


def _imported(text: str) -> str:
    """Without its first heading; the others stand two levels lower."""
    _, _, rest = text.partition("\n") if text.startswith("# ") else ("", "", text)
    return re.sub(r"^(#{2,4}) ", r"##\1 ", rest.strip(), flags=re.MULTILINE)
