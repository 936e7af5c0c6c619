"""When a command is to stop: after a signal, or when its time budget, less a margin for saving, has run."""

from __future__ import annotations

import time
from collections import deque

LEAST_MARGIN, MARGIN = 5.0, 0.03  # seconds, and a fraction of the budget
REMEMBERED = 4  # times between two looks


def margin(budget: float) -> float:
    """Seconds of a time budget that are kept for saving and rendering."""
    return max(LEAST_MARGIN, MARGIN * budget)


class Stop:
    """Asked between steps whether to stop; once true, it stays true.

    With a budget or a deadline it looks ahead: at the pace of the last steps, one that would end too late is not begun.
    """

    def __init__(self, *, budget: float | None = None, deadline: float | None = None) -> None:
        """budget: seconds from now. deadline: of `time.monotonic()`, which all processes of a machine share."""
        self.budget, self.signalled, self.out_of_time = budget, False, False
        self._asked = time.monotonic()
        self.deadline = deadline if budget is None else self._asked + budget - margin(budget)
        self._gaps: deque[float] = deque(maxlen=REMEMBERED)

    def __call__(self) -> bool:
        if self.deadline is not None and not self.out_of_time:
            now = time.monotonic()
            self._gaps.append(now - self._asked)
            self._asked = now
            self.out_of_time = now + self._step() > self.deadline
        return self.signalled or self.out_of_time

    def _step(self) -> float:
        """Seconds that a step takes: the longest gap but one, since the longest may hold loading or an evaluation."""
        return sorted(self._gaps)[-2] if len(self._gaps) > 1 else 0.0
