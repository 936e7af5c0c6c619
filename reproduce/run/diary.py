"""What a run says of itself, passed on and kept in its `progress.json` for whoever looks from another process."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from reproduce import traces
from reproduce.run.outcome import StepDone
from reproduce.run.progress import Pace, Reporter
from reproduce.traces import Whereabouts

GAP = 0.5  # seconds between two writes within an epoch
PERIOD = 5.0  # seconds between two writes at most, while the process lives
LOOK = 2.0  # seconds between two looks whether the run was cancelled


class Diary:
    """A `Reporter` that tells another one, and the file. Its methods may be called from a second thread."""

    def __init__(
        self, inner: Reporter, folder: Path, name: str, *, job: str | None = None, where: str | None = None
    ) -> None:
        self.inner, self.folder, self.pace = inner, folder, Pace()
        pid = os.getpid()
        self.at = Whereabouts(name=name, where=where or f"process {pid}", pid=pid, machine=traces.here(), job=job)
        self.stepped = time.monotonic()  # when the last step was finished
        self.written = -math.inf
        self.one_at_a_time = threading.Lock()

    def phase(self, name: str) -> None:
        self.at.phase = name
        self.write()

    def run(self, name: str, work: dict[str, int] | None = None) -> None:
        self.at.work = work or {}
        self.pace = Pace(work=self.at.work)
        self.write()
        self.inner.run(name, work)

    def update(self, at: StepDone) -> None:
        self.beat()
        self.pace.update(at.stage, at.done, at.total)
        measured = {"loss": finite(at.loss), "top1": finite(at.top1), "budget_error": finite(at.budget_error)}
        for name, value in (asdict(at) | measured | {"seconds_left": self.pace.seconds_left()}).items():
            setattr(self.at, name, value)
        if at.step == at.steps or time.monotonic() - self.written >= GAP:
            self.write()
        self.inner.update(at)

    def done(self, name: str, line: str) -> None:
        self.inner.done(name, line)

    def note(self, line: str) -> None:
        self.inner.note(line)

    def warn(self, line: str) -> None:
        """For whoever started the run, and not only for its log."""
        if line not in self.at.warnings:
            self.at.warnings.append(line)
            self.write()

    def beat(self) -> None:
        """A step, or an evaluation, is finished."""
        self.stepped = time.monotonic()

    def idle(self) -> float:
        return time.monotonic() - self.stepped

    def write(self) -> None:
        with self.one_at_a_time:
            self.written = time.monotonic()
            self.at.idle, self.at.when = round(self.idle(), 1), traces.now()
            traces.tell(self.folder, self.at)

    def write_if_old(self) -> None:
        """A sign of life while the run waits."""
        if time.monotonic() - self.written >= PERIOD:
            self.write()


class Ask:
    """Between steps: whether to stop, because the caller says so or because somebody cancelled the run."""

    def __init__(self, stop: Callable[[], bool], diary: Diary) -> None:
        self.stop, self.diary = stop, diary
        self.looked, self.cancelled = time.monotonic(), False

    def __call__(self) -> bool:
        self.diary.beat()
        if not self.cancelled and time.monotonic() - self.looked >= LOOK:
            self.looked = time.monotonic()
            self.cancelled = traces.cancelled(self.diary.folder)
        return self.stop() or self.cancelled


def finite(value: float | None) -> float | None:
    """JSON knows no NaN."""
    return value if value is not None and math.isfinite(value) else None
