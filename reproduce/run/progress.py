"""How runs go on, on stderr: a live line for each run on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from reproduce.naming import clock_time
from reproduce.run.outcome import StepDone, Watcher

PLAIN_GAP = 5.0  # seconds between plain lines of a run at the ends of epochs
HEARTBEAT = 60.0  # and within an epoch
STAGES = ("sizes", "training")  # in this order


class Reporter(Watcher, Protocol):
    """What runs say about themselves, the stages of each among it."""

    def run(self, name: str, work: dict[str, int] | None = None) -> None: ...

    def done(self, name: str, line: str) -> None: ...

    def note(self, line: str) -> None: ...


class Display(Reporter, Protocol):
    """A `Reporter` of several runs at once."""

    def update(self, at: StepDone, *, run: str | None = None) -> None: ...


class Silent:
    """A `Reporter` that tells nobody."""

    def run(self, name: str, work: dict[str, int] | None = None) -> None:
        pass

    def update(self, at: StepDone, *, run: str | None = None) -> None:
        pass

    def done(self, name: str, line: str) -> None:
        pass

    def note(self, line: str) -> None:
        pass


@dataclass(kw_only=True)
class Pace:
    """Where one run is, and how fast it goes. `work`: steps of each stage, so that the time left spans both."""

    work: dict[str, int] = field(default_factory=dict)
    stage: str = ""
    began: float = 0.0
    first: int = 0  # steps of the stage that were done when this began: by an earlier, interrupted run
    done: int = 0
    total: int = 0

    def update(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.stage, self.began, self.first = stage, time.monotonic(), done
        self.done, self.total = done, total

    def seconds_left(self) -> float | None:
        """None until there is a pace. Steps of the stages to come are taken to be as long as these."""
        if self.done <= self.first:
            return None
        later = STAGES[STAGES.index(self.stage) + 1 :] if self.stage in STAGES else ()
        steps = self.total - self.done + sum(self.work.get(stage, 0) for stage in later)
        return steps * (time.monotonic() - self.began) / (self.done - self.first)


class Progress:
    """Tells a person how each run goes on. Nothing goes to stdout."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.console = Console(file=file or sys.stderr, highlight=False)
        self.live: Live | None = None
        self.lines: dict[str, str] = {}  # of the runs under way
        self.paces: dict[str, Pace] = {}
        self.printed: dict[str, float] = {}
        self.current = ""

    def table(self, title: str) -> None:
        """A heading over the runs that follow."""
        self.note(title)

    def run(self, name: str, work: dict[str, int] | None = None) -> None:
        """A run begins or goes on; `work`: the steps of each of its stages. Updates without a name are of this one."""
        self.current = name
        self.paces[name] = Pace(work=work or {})
        self.printed.setdefault(name, time.monotonic())

    def update(self, at: StepDone, *, run: str | None = None) -> None:
        name = self.current if run is None else run
        pace = self.paces.setdefault(name, Pace())
        pace.update(at.stage, at.done, at.total)
        measures = [f"loss {at.loss:.3f}"]
        measures += [] if at.top1 is None else [f"top-1 {at.top1:.2f}"]
        measures += [] if at.budget_error is None else [f"budget {100 * at.budget_error:+.1f}%"]
        where = f"{at.stage} {at.epoch}/{at.epochs} {100 * at.step // at.steps:3d}%"
        line = one_line(name, where, "  ".join(measures), pace.seconds_left())
        self.show(name, line, epoch_ends=at.step == at.steps, last=at.epoch == at.epochs)

    def show(self, name: str, line: str, *, epoch_ends: bool, last: bool) -> None:
        if self.console.is_terminal:
            self.lines[name] = line
            self.refresh()
            return
        silent = time.monotonic() - self.printed.get(name, 0.0)
        if (epoch_ends and (last or silent >= PLAIN_GAP)) or silent >= HEARTBEAT:
            self.note(line)
            self.printed[name] = time.monotonic()

    def done(self, name: str, line: str) -> None:
        """A run has ended: its line goes, and what came out stays."""
        self.lines.pop(name, None)
        self.paces.pop(name, None)
        self.refresh()
        self.note(f"{name}: {line}")

    def note(self, line: str) -> None:
        """A line that stays."""
        self.console.print(Text(line), soft_wrap=True)

    def refresh(self) -> None:
        if not self.console.is_terminal:
            return
        if self.live is None:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        self.live.update(Text("\n".join(self.lines.values()), no_wrap=True, overflow="ellipsis"))

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


def one_line(name: str, where: str, measures: str, seconds: float | None) -> str:
    """At most 79 columns: a long name is cut."""
    rest = f"  {where}  {measures}" + ("" if seconds is None else f"  {clock_time(seconds)} left")
    return name[: max(8, 79 - len(rest))] + rest


class Remote:
    """A `Reporter` in another process: sends everything on, but updates within an epoch only now and then."""

    GAP = 0.5  # seconds

    def __init__(self, send: Callable[..., Any]) -> None:
        self.send, self.name, self.sent = send, "", 0.0

    def run(self, name: str, work: dict[str, int] | None = None) -> None:
        self.name = name
        self.send("run", name, work)

    def update(self, at: StepDone) -> None:
        if at.step == at.steps or time.monotonic() - self.sent >= self.GAP:
            self.sent = time.monotonic()
            self.send("update", at, run=self.name)

    def done(self, name: str, line: str) -> None:
        self.send("done", name, line)

    def note(self, line: str) -> None:
        self.send("note", line)
