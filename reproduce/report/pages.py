"""What stands in results/rendered: a text file, and the pictures beside it that are drawn from the data in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICTURES = ("png", "svg")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One text file of the folder, and the data of the pictures that belong beside it, if it has any."""

    name: str
    text: str
    about: tuple[str, ...] = ()  # its line in the index; empty: it stands beside one that has a line
    figure: dict[str, Any] | None = None
    draw: Callable[[dict[str, Any]], dict[str, bytes]] | None = None  # {"png": ..., "svg": ...} of the figure's data

    @property
    def pictures(self) -> tuple[str, ...]:
        return tuple(Path(self.name).with_suffix(f".{kind}").name for kind in PICTURES) if self.figure else ()
