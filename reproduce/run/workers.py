"""When a process of a pool, which serves its parent, is to stop."""

from __future__ import annotations

import os

from reproduce.stopping import Stop

POLL = 0.2  # seconds


class Asked(Stop):
    """Whether this worker is to stop: SIGTERM, the deadline, or the end of its parent."""

    def __init__(self, deadline: float | None = None) -> None:
        super().__init__(deadline=deadline)
        self.parent = os.getppid()

    def note(self, *_: object) -> None:
        self.signalled = True

    def orphaned(self) -> bool:
        return os.getppid() != self.parent

    def __call__(self) -> bool:
        return super().__call__() or self.orphaned()
