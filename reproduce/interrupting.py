"""How a command that computes is stopped: by a signal or by its time budget, with everything saved. No torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reproduce import naming
from reproduce.errors import Interrupted, UserError
from reproduce.stopping import Stop, margin


@contextmanager
def stop_on_signals(budget: float | None = None) -> Iterator[Stop]:
    """Inside, the first SIGINT or SIGTERM only makes `stop()` true, which the runs ask; a second one ends at once.

    So does the end of the time budget, in seconds from now. An `Interrupted` that leaves the block says what it was.
    """
    stop = Stop(budget=budget)
    before: dict[int, Any] = {}

    def ask(number: int, _frame: object) -> None:
        stop.signalled = True
        os.write(2, b"stopping at the next step; once more to stop at once\n")  # print may be what it interrupts
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[int(number)] = signal.signal(number, ask) or signal.SIG_DFL
    try:
        yield stop
    except Interrupted as stopped:
        raise _why(stop, stopped) from stopped
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)


def _why(stop: Stop, stopped: Interrupted) -> Exception:
    if stop.signalled or stop.budget is None:
        return stopped
    span, kept = naming.span(stop.budget), naming.span(round(margin(stop.budget)))
    if stopped.idle:
        return UserError(
            f"a time budget of {span} ends before one step is done ({kept} of it are kept for saving and rendering); "
            "nothing was finished, give more"
        )
    return Interrupted(f"time budget of {span} used up; the same command goes on from here")
