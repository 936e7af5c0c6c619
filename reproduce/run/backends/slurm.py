"""Runs as jobs of SLURM: arrays, several short runs in a job. The claim is the job's id; the queue says if it lives."""

from __future__ import annotations

import fcntl
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import traces
from reproduce.errors import UserError
from reproduce.run.backends.base import Worker
from reproduce.run.backends.slurm_job import note_cancelled
from reproduce.run.backends.slurm_queue import Queue, Queued
from reproduce.run.backends.slurm_submit import MOST, check, library, packed, submit, tidy
from reproduce.run.context import Context

if TYPE_CHECKING:
    from reproduce.run.runner import Todo

POLL = 1.0  # seconds between two looks at the files
PATIENCE = 20.0  # seconds, at the end, for jobs that are about to leave the queue
GONE_FOR = 10.0  # seconds that a job must have been gone: a shared folder shows its last files late


@dataclass(kw_only=True)
class JobWorker:
    """A run in a job, as its head sees it. It goes on without the head."""

    todo: Todo
    folder: Path
    job: str
    where: str  # for people
    name: str  # what job.json said before the id was known
    backend: Slurm

    def alive(self) -> bool:
        """Whether the job holds the run: it says so in the run's folder, and it is in the queue."""
        return self.holds() and not self.backend.gone(self.folder, self.job)

    def holds(self) -> bool:
        claim = traces.job(self.folder)
        return claim is not None and claim.job in (self.job, self.name)

    def exit_code(self) -> int | None:
        return None

    def end(self) -> None:
        """Nothing: jobs outlive their head. `reproduce cancel` ends them."""

    kill = end


class Slurm:
    """The backend of `--backend slurm`; see `reproduce.run.backends` for what each part is."""

    room = sys.maxsize
    stall: float | None = None  # a job may wait in the queue for days
    detached = True

    def __init__(self, context: Context, queue: Queue | None = None) -> None:
        self.context, self.queue = context, queue or Queue()
        self.queue.jobs()  # fails now if there is no SLURM
        self.home = (context.store.results / ".slurm").absolute()
        self.missing: dict[str, float] = {}  # job: since when
        self.seen: set[str] = set()  # jobs of an earlier head
        self.told: set[tuple[str, str]] = set()
        self.workers: list[JobWorker] = []

    def start(self, todos: Sequence[Todo]) -> list[Worker]:
        """Submit these runs as one array; a run that another head submitted meanwhile is watched instead."""
        with self.alone():
            claims = {folder: traces.job(folder) for folder in map(self.folder, todos)}
            found = {folder: self.queue.find(claim.job) for folder, claim in claims.items() if claim is not None}
            jobs = {folder: (entry.job, "") for folder, entry in found.items() if entry is not None}
            free = [todo for todo in todos if self.folder(todo) not in jobs]
            jobs |= self.submit(free) if free else {}
        begun = [self.worker(todo, *jobs[self.folder(todo)]) for todo in todos]
        self.workers += begun
        return [*begun]

    def submit(self, todos: Sequence[Todo]) -> dict[Path, tuple[str, str]]:
        """By run folder, the id and the name of its job."""
        packs = packed(todos, self.context)
        jobs: dict[Path, tuple[str, str]] = {}
        for first in range(0, len(packs), MOST):
            jobs |= self.submit_array(packs[first : first + MOST])
        return jobs

    def submit_array(self, packs: Sequence[Sequence[Todo]]) -> dict[Path, tuple[str, str]]:
        """The job's name is noted first: the head may be killed before it knows the id."""
        name = f"reproduce-{secrets.token_hex(4)}"
        names = [name] if len(packs) == 1 else [f"{name}_{index}" for index in range(len(packs))]
        folders = [[self.folder(todo) for todo in pack] for pack in packs]
        note(folders, names)
        try:
            jobs = submit(packs, names, self.context, self.home)
        except UserError:  # after anything else the jobs may be there
            for folder in chain.from_iterable(folders):
                traces.forget_job(folder)
            raise
        note(folders, jobs)
        self.queue.add(Queued(job=job, state="PENDING", name=name, reason="None") for job in jobs)
        self.context.progress.note(said(jobs, sum(map(len, packs)), self.context.cluster.max_jobs))
        return {
            folder: (job, known)
            for several, job, known in zip(folders, jobs, names, strict=True)
            for folder in several
        }

    def worker(self, todo: Todo, job: str, name: str) -> JobWorker:
        folder = self.folder(todo)
        return JobWorker(todo=todo, folder=folder, job=job, where=f"job {job}", name=name, backend=self)

    def claimed(self, folder: Path) -> str | None:
        """The job of an earlier head that holds the run, or whatever else does."""
        claim = traces.job(folder)
        if claim is None:
            return traces.holder(folder)
        entry = self.queue.find(claim.job)
        if entry is not None:
            self.seen.add(claim.job)
            self.missing.pop(claim.job, None)
            return f"job {entry.job}"
        if claim.job in self.seen and not self.gone(folder, claim.job):
            return f"job {claim.job}"
        return traces.holder(folder)

    def gone(self, folder: Path, job: str) -> bool:
        """Whether the job has left the queue for good; if scancel ended it, the run's folder then says so."""
        if self.queue.find(job) is not None:
            self.missing.pop(job, None)
            return False
        since = self.missing.setdefault(job, time.monotonic())
        if time.monotonic() - since < GONE_FOR:
            return False
        claim = traces.job(folder)
        if claim is not None and claim.job == job and self.queue.state(job) == "CANCELLED":
            note_cancelled(folder)
        return True

    def wait(self, working: Sequence[Worker], seconds: float) -> None:
        """Say what keeps a job from starting, then sleep: nothing wakes a head when a job ends."""
        jobs = {worker.job for worker in working if isinstance(worker, JobWorker)}
        for entry in self.queue.jobs().values():
            if entry.job in jobs and entry.stuck and (entry.job, entry.reason) not in self.told:
                self.told.add((entry.job, entry.reason))
                self.context.progress.note(f"job {entry.job} waits, SLURM says why: {entry.reason}")
        time.sleep(max(seconds, POLL))

    def fits(self, todo: Todo, working: Sequence[Worker], starting: Sequence[Todo]) -> str | None:
        return None

    def close(self) -> None:
        """Remove what submitit left of jobs that are over; a job takes a moment to end after its last run."""
        over = {one.job for one in self.workers} - {one.job for one in self.workers if one.holds()}
        until, self.queue.every = time.monotonic() + PATIENCE, POLL
        while over & self.queue.jobs().keys() and time.monotonic() < until:
            time.sleep(POLL)
        tidy(self.home, {job.split("_")[0] for job in self.queue.jobs()})

    def folder(self, todo: Todo) -> Path:
        return self.context.store.resume_dir(todo[1], todo[2])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One head submits at a time, so that no run is in two jobs."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def make(context: Context) -> Slurm:
    """Raises `UsageError` for options that no job can have, and `UserError` where there is no submitit or no SLURM."""
    check(context.cluster)
    library()
    return Slurm(context)


def note(folders: Sequence[Sequence[Path]], jobs: Sequence[str]) -> None:
    """Which job holds the runs of each group."""
    for several, job in zip(folders, jobs, strict=True):
        for folder in several:
            traces.note_job(folder, traces.Job(job=job, runs=len(several)))


def said(jobs: Sequence[str], runs: int, at_once: int | None) -> str:
    """`submitted job 12, 1 run` or `submitted jobs 12_0 to 12_5, 17 runs, at most 4 jobs at once`."""
    which = f"job {jobs[0]}" if len(jobs) == 1 else f"jobs {jobs[0]} to {jobs[-1]}"
    limit = "" if at_once is None or len(jobs) <= at_once else f", at most {at_once} jobs at once"
    return f"submitted {which}, {runs} run{'s' if runs > 1 else ''}{limit}"
