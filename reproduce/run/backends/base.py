"""What the head needs of a backend, and of whoever is at one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from reproduce.run.runner import Todo


class Worker(Protocol):
    """Whoever is at one run, as the head that started it sees it."""

    todo: Todo

    def alive(self) -> bool: ...

    def exit_code(self) -> int | None:
        """Of a worker that has ended, where it is known."""

    def end(self) -> None:
        """Ask it to save and end; may be called again."""

    def kill(self) -> None: ...


class Backend(Protocol):
    """Where workers come from."""

    room: int  # workers at a time
    stall: float | None  # seconds without a word after which a worker is killed; None: never
    detached: bool  # workers go on when their head is asked to stop

    def start(self, todos: Sequence[Todo]) -> list[Worker]:
        """A worker for each, in this order."""

    def claimed(self, folder: Path) -> str | None:
        """Who else is at this run, for people; None if nobody is."""

    def fits(self, todo: Todo, working: Sequence[Worker], starting: Sequence[Todo]) -> str | None:
        """Why this run has to wait for those others, or a warning if there are none; None if it can begin."""

    def wait(self, working: Sequence[Worker], seconds: float) -> None:
        """Until one may have ended, at most so long."""

    def close(self) -> None: ...
