"""Ends a process whose run hangs: no step finished for too long. Two guards, so that a hang in C code counts too."""

from __future__ import annotations

import faulthandler
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reproduce.naming import clock_time
from reproduce.run.diary import PERIOD, Diary
from reproduce.traces import START, Whereabouts

HUNG = 6  # exit code


@contextmanager
def watching(diary: Diary, limit: float, hung: Callable[[str], object]) -> Iterator[None]:
    """Inside, `hung(reason)` is called from a second thread once no step was finished for `limit` seconds.

    `hung` records the run and ends the process. Should the second thread not come to it, because the first one holds
    the interpreter, the process is ended by `faulthandler` a little later; whoever started it records the run then.
    """
    period = min(PERIOD, limit / 4)  # between two looks, each of which says in `progress.json` that the process lives
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(period):
            faulthandler.dump_traceback_later(limit + 2 * period, exit=True, file=sys.__stderr__ or sys.stderr)
            diary.write()
            if diary.idle() >= limit:
                hung(reason(limit, diary.at))

    diary.beat()
    faulthandler.dump_traceback_later(limit + 2 * period, exit=True, file=sys.__stderr__ or sys.stderr)
    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


def reason(limit: float, at: Whereabouts | None) -> str:
    """`hung: no step finished for 15:00 (training, epoch 3, step 17)`. at: None where the run has told nothing."""
    return f"hung: no step finished for {clock_time(limit)} ({START if at is None else at.place()})"
