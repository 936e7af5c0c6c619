"""The head of runs that others carry out: starts workers, shows how far they are, and takes stock when one has ended.

It knows of a run what the run's files say. It may be killed at any moment: the workers go on, and the same command
waits for those that are still at work and takes up what is left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from reproduce import traces
from reproduce.errors import Interrupted, UserError
from reproduce.records import RunRecord
from reproduce.run import attempt
from reproduce.run.backends.base import Backend, Worker
from reproduce.run.backends.seen import Seen
from reproduce.run.context import Context
from reproduce.run.progress import Display
from reproduce.run.runner import Todo, summary
from reproduce.run.watchdog import reason
from reproduce.specs import RunSpec
from reproduce.store import Store
from reproduce.traces import Stopped

POLL = 0.2  # seconds, at most, between two looks at the workers
KILLED = "was killed, perhaps for want of memory; the same command goes on with it from its last saved state"
AGAIN = "the same command watches them again, `reproduce cancel` ends them"
DETACHED = f"stopped watching; the jobs go on, {AGAIN}"


def oversee(todo: Sequence[Todo], context: Context, backend: Backend) -> list[Todo]:
    """The runs that have their record now. One that was killed or cancelled is not among them, which is said.

    When `context.stop()` is true, or a run meets what a user has to mend, the workers save their state before this
    raises `Interrupted`, `UserError` or `OSError`. Jobs of a queue are not stopped: this raises at once, they go on.
    """
    head = Head(todo, context, backend)
    try:
        while head.pending or head.working or head.foreign:
            head.turn()
    finally:
        head.end_all()
    if head.problem is not None:
        raise head.problem
    return head.done


class Head:
    """One call of `oversee`."""

    def __init__(self, todo: Sequence[Todo], context: Context, backend: Backend) -> None:
        self.context, self.backend = context, backend
        self.display = cast(Display, context.progress)
        self.pending = deque(todo)
        self.working: list[Seen] = []
        self.foreign: list[Seen] = []  # at work elsewhere: started by another head
        self.done: list[Todo] = []
        self.problem: BaseException | None = None
        self.told: set[str] = set()  # lines that were said
        self.before = {run[1].run_id(run[2]): self.stamp(run[1], run[2]) for run in todo}

    def turn(self) -> None:
        """Start what can be started, wait a little, and see what has come of those at work."""
        if self.problem is None and self.context.stop():
            self.stop_for(Interrupted())
        self.fill()
        workers = [seen.worker for seen in self.working if seen.worker is not None]
        self.backend.wait(workers, POLL)
        for seen in list(self.working):
            if seen in self.working:  # jobs of a queue are let go as soon as one meets an error
                seen.look(self.display)
                self.check(seen)
        for seen in list(self.foreign):
            if seen.due():
                seen.look(self.display)
                if self.backend.claimed(seen.folder) is None:
                    self.foreign.remove(seen)
                    self.settle(seen, None)

    def stop_for(self, problem: BaseException) -> None:
        """Nothing new is begun; those at work are asked to end, the others are left to themselves."""
        if self.problem is None:
            self.problem = problem
        self.pending.clear()
        if self.backend.detached:
            self.let_go()
        self.foreign.clear()
        self.ask_all()

    def let_go(self) -> None:
        """Jobs of a queue need no head: no problem of one run is a reason to end or to watch the others."""
        if isinstance(self.problem, Interrupted):
            self.problem = Interrupted(DETACHED)
        else:
            others = [seen for seen in self.working if seen.worker is not None and seen.worker.alive()] + self.foreign
            if others:
                self.say(f"other runs in their jobs: {len(others)}; they go on, {AGAIN}")
        self.working.clear()

    def ask_all(self) -> None:
        for seen in self.working:
            if seen.worker is not None:
                seen.worker.end()

    def end_all(self) -> None:
        """When the loop is left by an exception of the head itself."""
        if not self.backend.detached:
            self.ask_all()

    def fill(self) -> None:
        """Start as many of the pending runs as there is room for; one that somebody is at is waited for."""
        begin: list[Todo] = []
        while self.pending and self.problem is None and len(self.working) + len(begin) < self.backend.room:
            todo = self.pending.popleft()
            seen = Seen(todo, self.folder(todo), None)
            busy = self.backend.claimed(seen.folder)
            if busy is not None:
                seen.again = traces.cancelled(seen.folder)
                self.say(f"{seen.label}: under way in {busy}; waits for it")
                self.foreign.append(seen)
            elif (found := self.answer(todo)) is not None:  # after the look at the lock: its holder may have ended
                self.take(seen, found)
            elif (fault := self.context.store.blocked(todo[1], todo[2])) is not None:
                self.stop_for(UserError(fault))
            elif self.has_room(todo, seen.label, begin):
                traces.begin(seen.folder)
                begin.append(todo)
            else:
                self.pending.appendleft(todo)
                break
        if begin and self.problem is None:
            for worker in self.backend.start(begin):
                self.working.append(Seen(worker.todo, self.folder(worker.todo), worker))

    def has_room(self, todo: Todo, label: str, begin: Sequence[Todo]) -> bool:
        """Whether memory allows for one more; the first one is started in any case."""
        workers = [seen.worker for seen in self.working if seen.worker is not None]
        line = self.backend.fits(todo, workers, begin)
        if line is not None:
            self.say(f"{label}: {line}")
        return line is None or not (workers or begin)

    def check(self, seen: Seen) -> None:
        """Whether a worker of this head's has ended, or says nothing any more."""
        worker = seen.worker
        assert worker is not None
        if worker.alive():
            if self.backend.stall is not None and seen.silent() > self.backend.stall:
                worker.kill()
            return
        self.working.remove(seen)
        self.settle(seen, worker)

    def settle(self, seen: Seen, worker: Worker | None) -> None:
        """What has become of a run that nobody is at any more. worker: None if it was another head's."""
        found = self.answer(seen.todo)
        stop = traces.stopped(seen.folder)
        code = None if worker is None else worker.exit_code()
        if found is not None:
            self.take(seen, found)
        elif worker is not None and self.backend.claimed(seen.folder) is not None:
            self.foreign.append(seen)  # another head's worker was faster
        elif stop is not None and stop.why == "cancelled" and not seen.again:
            self.display.done(seen.label, "cancelled; the same command goes on with it")
        elif worker is None or code == attempt.BUSY:
            if self.problem is None:
                self.pending.append(seen.todo)
        elif code == attempt.UNSAID:
            self.stop_for(unsaid(seen.folder))
        elif stop is not None:
            self.stopped(seen, stop)
        elif self.problem is None:  # else it may have been asked to end before it could hear of it
            self.lost(seen)

    def stopped(self, seen: Seen, stop: Stopped) -> None:
        if stop.why == "error":
            if self.backend.detached:
                self.display.done(seen.label, stop.line)  # which of them it was: the others go on
            self.stop_for(fault_of(stop))
        elif stop.out_of_time:
            self.stop_for(Interrupted())
        elif self.problem is None:
            self.display.done(seen.label, "was stopped; the same command goes on with it")

    def lost(self, seen: Seen) -> None:
        """A worker that left no word: it was killed, by this head if it hung."""
        if self.backend.stall is not None and seen.silent() > self.context.stall_limit:
            why = reason(self.context.stall_limit, seen.at)
            with traces.hold(seen.folder):
                attempt.record_hung(seen.todo, self.context, why)
            found = self.answer(seen.todo)
            if found is not None:
                self.take(seen, found)
                return
        self.display.done(seen.label, KILLED)

    def take(self, seen: Seen, record: RunRecord) -> None:
        self.done.append(seen.todo)
        seen.looked = -math.inf
        seen.look(self.display)  # what it said at last
        if record.outcome.status != "failed" and seen.folder.is_dir():
            with suppress(traces.Busy, OSError), traces.hold(seen.folder, patience=0.0):
                traces.sweep(seen.folder)
        self.display.done(seen.label, summary(record))

    def say(self, line: str) -> None:
        """Once."""
        if line not in self.told:
            self.told.add(line)
            self.display.note(line)

    def answer(self, todo: Todo) -> RunRecord | None:
        """A record that answers a run: a failed one that is to be tried again only if it came after this head began.

        Whoever planned the runs has looked everywhere; what has come since stands in its place.
        """
        _, spec, seed = todo
        store = Store(self.context.store.results)  # of its own: one that lasts would keep all records in memory
        found = store.find(spec, seed) if self.stamp(spec, seed) is not None else None
        if found is None or not self.context.retry or found.outcome.status == "finished":
            return found
        return found if self.stamp(spec, seed) != self.before[spec.run_id(seed)] else None

    def stamp(self, spec: RunSpec, seed: int) -> tuple[int, int] | None:
        """Which file stands where the record goes: another one after each write."""
        try:
            status = self.context.store.path(spec, seed).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def folder(self, todo: Todo) -> Path:
        return self.context.store.resume_dir(todo[1], todo[2])


def fault_of(stop: Stopped) -> BaseException:
    """The error that a worker met, for this process to end with."""
    if stop.errno is not None:
        return OSError(stop.errno, stop.line, stop.filename)
    return UserError(stop.line)


def unsaid(folder: Path) -> BaseException:
    """Why a worker could not even write that: found by trying the same here."""
    try:
        with traces.hold(folder):
            traces.note_stop(folder, Stopped(why="interrupted"))
    except OSError as fault:
        return fault
    return UserError(f"the worker of {folder.name} could not write into its folder; give the same command again")
