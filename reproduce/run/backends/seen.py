"""What a head sees of one run: its progress file, shown as it changes."""

from __future__ import annotations

import math
import time
from pathlib import Path

from reproduce import traces
from reproduce.run.backends.base import Worker
from reproduce.run.outcome import StepDone
from reproduce.run.progress import Display
from reproduce.run.runner import Todo, label_of
from reproduce.traces import Whereabouts

LOOK = 0.5  # seconds between two looks at the files of one run


class Seen:
    """What the head last read of a run's progress, and when it last changed by the head's own clock."""

    def __init__(self, run: Todo, folder: Path, worker: Worker | None) -> None:
        self.todo, self.folder, self.worker = run, folder, worker
        self.label = label_of(run[0], run[2])
        self.again = False  # it was cancelled before this command came: to be taken up once it has ended
        self.at: Whereabouts | None = None
        self.looked, self.changed = -math.inf, time.monotonic()

    def look(self, display: Display) -> None:
        """Read the file if it is time, and show what is new."""
        if not self.due():
            return
        self.looked = time.monotonic()
        at, before = traces.whereabouts(self.folder), self.at
        if at is None or at == before:
            return
        self.at, self.changed = at, time.monotonic()
        for line in at.warnings[len(before.warnings) if before is not None else 0 :]:
            display.note(f"{self.label}: {line}")
        if at.work and (before is None or before.work != at.work or before.pid != at.pid):
            display.run(self.label, at.work)
        if at.phase.startswith("waiting") and (before is None or before.phase != at.phase):
            display.note(f"{self.label}: {at.phase}")
        if at.stage and (before is None or _steps(before) != _steps(at)):
            display.update(_last_step(at), run=self.label)

    def due(self) -> bool:
        """Whether it is time for another look at the files."""
        return time.monotonic() - self.looked >= LOOK

    def silent(self) -> float:
        """Seconds since the worker last said anything; it does so every few seconds."""
        return time.monotonic() - self.changed


def _last_step(at: Whereabouts) -> StepDone:
    return StepDone(
        stage=at.stage,
        epoch=at.epoch,
        epochs=at.epochs,
        step=at.step,
        steps=at.steps,
        loss=math.nan if at.loss is None else at.loss,
        top1=at.top1,
        budget_error=at.budget_error,
    )


def _steps(at: Whereabouts) -> tuple[str, int, int]:
    return at.stage, at.epoch, at.step
