"""The report as one HTML file that needs nothing else: style and pictures stand in it, scripts there are none.

Whatever comes from a record is escaped. The file's own policy forbids to load anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from reproduce.report.onepage.parts import Report

HERE = Path(__file__).parent
PICTURES = 2_000_000  # bytes of all pictures together; more are linked
# `base` is the way from the report to the results folder.


@dataclass
class Pictures:
    """The SVGs of one folder as data of the page, as long as there is room. An image cannot run scripts."""

    folder: Path
    room: int = field(default=PICTURES)

    def __call__(self, name: str) -> str:
        """`data:image/svg+xml;base64,...`; empty where the picture is missing or there is no room for it."""
        path = self.folder / name
        if not path.is_file():
            return ""
        content = base64.b64encode(path.read_bytes()).decode()
        if len(content) > self.room:
            return ""
        self.room -= len(content)
        return f"data:image/svg+xml;base64,{content}"


def html(report: Report, folder: Path, base: str) -> str:
    """The whole file. `folder` holds the pictures, `base` leads from the file to the results."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((HERE / "report.css").read_text(encoding="utf-8"))  # ours: nothing of a record is in it
    return environment.get_template("report.html").render(
        report=report, style=style, base=base, embedded=Pictures(folder), from_markdown=from_markdown
    )


def from_markdown(text: str) -> Markup:
    """A rendered page's markdown as HTML. It may hold text of records: HTML, links and images in it stay text.

    Its first heading is left out, the others stand two levels lower, each table in a box that scrolls.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink"])
    tokens = list(_lowered(parser.parse(text)))
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _lowered(tokens: Sequence[Token]) -> Iterator[Token]:
    title = [number for number, token in enumerate(tokens) if token.tag == "h1"][:2]  # its opening and its end
    for number, token in enumerate(tokens):
        if title and title[0] <= number <= title[-1]:
            continue
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if token.type == "table_open":
            yield _raw('<div class="scroll" tabindex="0">')
        yield token
        if token.type == "table_close":
            yield _raw("</div>\n")


def _raw(content: str) -> Token:
    return Token("html_block", "", 0, content=content)
