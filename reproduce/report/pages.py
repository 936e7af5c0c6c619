"""What stands in results/rendered: a text file, and the pictures beside it that are drawn from the data in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproduce.report.judged import Judgement
    from reproduce.report.table import Table

PICTURES = ("png", "svg")
# What no page of ours holds: an HTML tag, and a link or picture of another place.
TAG, ELSEWHERE = re.compile(r"<(?=[A-Za-z/!?])"), re.compile(r"\]\((?=\s*[A-Za-z][\w+.-]*:)")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One text file of the folder, and the data of the pictures that belong beside it, if it has any."""

    name: str
    text: str = ""
    about: tuple[str, ...] = ()  # its line in the index; empty: it stands beside one that has a line
    figure: dict[str, Any] | None = None
    draw: Callable[[dict[str, Any]], dict[str, bytes]] | None = None  # {"png": ..., "svg": ...} of the figure's data
    table: Table | None = None  # what a table's page shows
    judgements: tuple[Judgement, ...] = ()  # what the page of the claims shows
    whole: Callable[[Path], str] | None = None  # the text, of what stands in the folder already; in place of `text`

    def content(self, folder: Path) -> bytes:
        """The file's bytes. A record's free text may hold anything; in markdown it stays text."""
        if self.whole is not None:
            return self.whole(folder).encode()
        harmless = self.name.endswith(".md")
        return (ELSEWHERE.sub("] (", TAG.sub("&lt;", self.text)) if harmless else self.text).encode()

    @property
    def pictures(self) -> tuple[str, ...]:
        return tuple(Path(self.name).with_suffix(f".{kind}").name for kind in PICTURES) if self.figure else ()
