"""Inside a SLURM job: its runs one after the other, each in a process of its own; saved and requeued in time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import traces
from reproduce.run.backends import slurm_queue
from reproduce.run.backends.local import SLACK
from reproduce.run.forkserver import PRELOAD
from reproduce.run.watchdog import reason
from reproduce.stopping import Stop

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from submitit.helpers import DelayedSubmission

    from reproduce.run.context import Context
    from reproduce.run.runner import Todo

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)  # time is nearly up or another job comes first; the job is being ended
POLL = 1.0  # seconds
BUSY_POLL = 5.0  # seconds, while another process is at the run
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")  # states of a job that is in the queue again


@dataclass
class Pack:
    """The runs of one job. submitit pickles it, calls it in the job, and asks it for a checkpoint if time runs out."""

    todos: list[Todo]
    context: Context  # bare
    claim: str  # what job.json says until the head has written the job's id: its name

    def checkpoint(self) -> DelayedSubmission:
        """For a signal that comes before `__call__`: nothing was begun, so the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> None:
        job, stop = job_id(), Stop()

        def note(_number: int, _frame: object) -> None:
            stop.signalled = True

        for number in SIGNALS:
            signal.signal(number, note)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # SLURM sends it before SIGTERM
        for todo in self.todos:
            if not stop.signalled:
                self.carry(todo, job, stop)
        if stop.signalled:
            self.leave(job)

    def carry(self, todo: Todo, job: str, stop: Stop) -> None:
        """One run, until it is over or the job is to end. A run whose claim is gone is over, or another's."""
        from reproduce.run import attempt

        folder, limit = self.folder(todo), self.context.stall_limit
        code: int | None = attempt.BUSY
        while code == attempt.BUSY and not stop.signalled and self.holds(folder, job):
            traces.forget_stop(folder)  # the job was interrupted before
            code, silent = watch(start(todo, self.context, job), folder, stop, limit)
            if silent > limit and self.holds(folder, job):
                with traces.hold(folder):
                    attempt.record_hung(todo, self.context, reason(limit, traces.whereabouts(folder)))
                    traces.sweep(folder, keep=(traces.LOG,))
            elif code == attempt.BUSY:
                time.sleep(BUSY_POLL)
        if not stop.signalled:
            print(f"{todo[0]} seed {todo[2]}: exit code {code}", flush=True)
            traces.forget_job(folder)  # it has a record, or the head finds out from the rest why not

    def leave(self, job: str) -> None:
        """The job was told to end. One that a person cancelled stays so; any other goes back into the queue."""
        folders = [self.folder(todo) for todo in self.todos]
        unfinished = [folder for folder in folders if self.holds(folder, job)]
        for folder in folders:
            if self.claims(folder, job) and folder not in unfinished:
                traces.forget_job(folder)  # `reproduce cancel` ended the run: its head need not wait for the queue
        if not unfinished:
            return
        state = slurm_queue.state_of(slurm_queue.command, job)
        print(f"job {job} is to end, SLURM calls it {state or 'gone'}", flush=True)
        for folder in unfinished:
            if state == "CANCELLED":
                note_cancelled(folder)
            else:
                traces.forget_stop(folder)  # it goes on by itself
        if state != "CANCELLED" and state not in WAITING:
            slurm_queue.requeue(job)
        sys.exit(1)

    def folder(self, todo: Todo) -> Path:
        return self.context.store.resume_dir(todo[1], todo[2])

    def holds(self, folder: Path, job: str) -> bool:
        """Whether this job is still the one that is to do the run in this folder, and nobody cancelled it."""
        return self.claims(folder, job) and not traces.cancelled(folder)

    def claims(self, folder: Path, job: str) -> bool:
        claim = traces.job(folder)
        return claim is not None and claim.job in (job, self.claim)


def note_cancelled(folder: Path) -> None:
    """The run's job was ended by scancel."""
    traces.note_stop(folder, traces.Stopped(why="cancelled", line="its job was ended by scancel"))
    traces.forget_job(folder)


def start(todo: Todo, context: Context, job: str) -> BaseProcess:
    """Forked from this process, which has torch by now, has never used it, and touches no GPU: a second import would
    cost more than a small run."""
    import_module(PRELOAD)
    process = multiprocessing.get_context("fork").Process(target=work, args=(todo, context, job), name=todo[0])
    process.start()
    return process


def watch(process: BaseProcess, folder: Path, stop: Stop, limit: float) -> tuple[int | None, float]:
    """Wait for the end of the process, and ask it to save and end when the job is to.

    Returns its exit code, and for how many seconds it had said nothing: one that is silent for longer than `limit`,
    and has not ended itself for that, is killed.
    """
    said, changed = traces.whereabouts(folder), time.monotonic()
    silent = 0.0
    while process.is_alive():
        process.join(POLL)
        if stop.signalled and process.is_alive():
            process.terminate()
        now = traces.whereabouts(folder)
        if now != said:
            said, changed = now, time.monotonic()
        silent = time.monotonic() - changed
        if silent > limit + SLACK:
            process.kill()
    return process.exitcode, silent


def work(todo: Todo, context: Context, job: str) -> None:
    """In the run's process: SIGTERM saves and ends."""
    from reproduce.run.attempt import entry

    for number in SIGNALS:  # SLURM sends both to all of a job; a SIGTERM before `entry` listens comes again
        signal.signal(number, signal.SIG_IGN)
    entry(todo, context, job=job, where=f"job {job} on {socket.gethostname()}")


def job_id() -> str:
    """Of the job that this process belongs to: `12`, or `12_3` in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
