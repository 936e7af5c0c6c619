"""Runs side by side: one process each. Nothing is shared between them but files, so killing one harms no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from reproduce.errors import Interrupted, UserError
from reproduce.records import RunRecord
from reproduce.run.context import Context
from reproduce.run.progress import Remote
from reproduce.specs import RunSpec
from reproduce.stopping import Stop

POLL = 0.2  # seconds
Todo = tuple[str, RunSpec, int]


@dataclass(kw_only=True)
class Worker:
    """A process at one run, as its parent sees it."""

    todo: Todo
    process: BaseProcess
    messages: Connection
    answer: RunRecord | BaseException | None = None

    def listen(self, context: Context) -> None:
        """Pass on what the worker says; keep its answer."""
        try:
            while self.messages.poll():
                kind, content = self.messages.recv()
                if kind == "answer":
                    self.answer = RunRecord.model_validate_json(content) if isinstance(content, str) else content
                else:
                    getattr(context.progress, kind)(*content[0], **content[1])
        except (EOFError, OSError):  # it has ended
            pass


def run_side_by_side(todo: list[Todo], context: Context) -> dict[str, RunRecord]:
    """The record of each run id, from at most `context.jobs` processes at a time.

    When `context.stop()` is true or a run cannot go on, the others save their state before this raises.
    """
    pending = deque(todo)
    running: list[Worker] = []
    ended: list[Worker] = []
    problem: BaseException | None = None
    try:
        while pending or running:
            if problem is None and context.stop():
                problem = Interrupted()
            if problem is not None:
                pending.clear()
                terminate(running)
            while pending and len(running) < context.jobs:
                running.append(start(pending.popleft(), context))
            wait([worker.process.sentinel for worker in running] + [worker.messages for worker in running], POLL)
            for worker in list(running):
                worker.listen(context)
                if not worker.process.is_alive():
                    worker.listen(context)
                    running.remove(worker)
                    ended.append(worker)
                    problem = problem or problem_of(worker)
    finally:
        terminate(running)
        for worker in running:
            worker.process.join()
    if problem is not None:
        raise problem
    answers = {worker.todo[1].run_id(worker.todo[2]): worker.answer for worker in ended}
    return {run_id: answer for run_id, answer in answers.items() if isinstance(answer, RunRecord)}


def start(todo: Todo, context: Context) -> Worker:
    """A fresh process at this run; `spawn`, since torch's threads do not survive a fork."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    bare = replace(context, progress=None, stop=None)  # type: ignore[arg-type]
    deadline = context.stop.deadline if isinstance(context.stop, Stop) else None
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=(todo, bare, sender, deadline), name=todo[0]
    )
    process.start()
    sender.close()  # so that the end of the process ends the pipe
    return Worker(todo=todo, process=process, messages=receiver)


def terminate(workers: list[Worker]) -> None:
    """Ask them to save and end. One that is still starting just ends: its state is on the disk."""
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()


def problem_of(worker: Worker) -> BaseException | None:
    if isinstance(worker.answer, BaseException):
        return worker.answer
    if worker.answer is None:
        return UserError(
            f"{worker.todo[0]} seed {worker.todo[2]}: its process was killed, perhaps for want of memory; run the "
            "command again, which goes on from its last saved state, with fewer --jobs"
        )
    return None


def work(todo: Todo, context: Context, sender: Connection, deadline: float | None = None) -> None:
    """In the worker: one run. SIGTERM, the deadline, or the end of the parent stops it at the next step."""
    from reproduce.run import runner

    asked = Asked(deadline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, asked.note)
    remote = Remote(lambda kind, *args, **kwargs: sender.send((kind, (args, kwargs))))
    name, spec, seed = todo
    answer: Any
    try:
        if asked():
            raise Interrupted  # before anything is loaded
        record = runner.run(spec, seed, replace(context, progress=remote, stop=asked), name=name)
        answer = record.model_dump_json()
    except (Interrupted, UserError, OSError) as error:
        answer = error
    if not asked.orphaned():
        sender.send(("answer", answer))
    sender.close()


class Asked(Stop):
    """Whether this worker is to stop."""

    def __init__(self, deadline: float | None = None) -> None:
        super().__init__(deadline=deadline)
        self.parent = os.getppid()

    def note(self, *_: object) -> None:
        self.signalled = True

    def orphaned(self) -> bool:
        return os.getppid() != self.parent

    def __call__(self) -> bool:
        return super().__call__() or self.orphaned()
