"""What SLURM says about this user's jobs: squeue, for all in one call; scontrol; sacct where there is accounting."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reproduce.errors import UserError

EVERY = 5.0  # seconds between two calls of squeue, whatever asks
TIMEOUT = 60.0  # seconds for one command of SLURM
ANSWER = "%i|%T|%j|%r"  # id, state, name, reason
USUAL = frozenset({"None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Dependency", "Cleaning"})

Run = Callable[[list[str]], str]


class NoAnswer(Exception):
    """A command of SLURM failed; the message is the first line that it printed."""


@dataclass(frozen=True)
class Queued:
    """A job that is in the queue, a single one (`12`) or one of an array (`12_3`)."""

    job: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    name: str
    reason: str

    @property
    def stuck(self) -> bool:
        """Whether it waits for more than its turn: held, or asking for what the partition does not give."""
        return self.state == "PENDING" and self.reason not in USUAL


class Queue:
    """The queue as of a few seconds ago. When squeue does not answer, the last answer stands: no job counts as gone."""

    def __init__(self, run: Run | None = None, every: float = EVERY) -> None:
        self.run, self.every = run or command, every
        self.found: dict[str, Queued] = {}
        self.asked = -float("inf")
        self.answered = False

    def jobs(self) -> dict[str, Queued]:
        """By id. Raises `UserError` if there has been no answer at all."""
        if time.monotonic() - self.asked >= self.every:
            try:
                self.found = parse(self.run(["squeue", "--me", "--array", "--noheader", f"--format={ANSWER}"]))
                self.answered = True
            except NoAnswer as why:
                if not self.answered:
                    raise UserError(f"SLURM does not answer: {why}; is this a node of the cluster?") from why
            self.asked = time.monotonic()
        return self.found

    def find(self, claim: str) -> Queued | None:
        """The job with this id, or with this name (`NAME_3` in an array) if its id was not noted; None if gone."""
        jobs = self.jobs()
        return jobs.get(claim) or next((one for one in jobs.values() if claim == named(one)), None)

    def add(self, entries: Iterable[Queued]) -> None:
        """Jobs that were submitted after the last answer."""
        self.found = {**self.found, **{entry.job: entry for entry in entries}}

    def state(self, job: str) -> str:
        """What became of a job, or empty: the controller forgets it after minutes, and not all keep accounts."""
        return state_of(self.run, job)


def named(entry: Queued) -> str:
    _, mark, index = entry.job.partition("_")
    return f"{entry.name}{mark}{index}"


def parse(text: str) -> dict[str, Queued]:
    """The lines of squeue in the format `ANSWER`; a line of another kind is passed over."""
    rows = [line.strip().split("|", 3) for line in text.splitlines()]
    return {row[0]: Queued(*row) for row in rows if len(row) == 4}


def state_of(run: Run, job: str) -> str:
    """`CANCELLED`, `COMPLETED`, `TIMEOUT`, `RUNNING`, ...: what scontrol or sacct says; empty if neither knows."""
    try:
        found = shown(run(["scontrol", "--oneliner", "show", "job", job]))
        if found:
            return found
    except NoAnswer:
        pass
    try:
        words = run(["sacct", "--noheader", "--allocations", "--parsable2", "--jobs", job, "--format=State"]).split()
    except NoAnswer:
        return ""
    return words[0] if words else ""


def shown(text: str) -> str:
    """The state in scontrol's line about a job. As long as the job's processes end, it is hidden behind COMPLETING.

    Then a job that was requeued has no end, one that met its limit or was preempted says so, and one that says nothing
    was cancelled.
    """
    fields = dict(re.findall(r"\b(JobState|Reason|EndTime|PreemptTime)=(\S+)", text))
    if fields.get("JobState") != "COMPLETING":
        return str(fields.get("JobState", ""))
    if fields.get("EndTime") == "Unknown":
        return "REQUEUED"
    if fields.get("PreemptTime", "None") != "None":
        return "PREEMPTED"
    return "CANCELLED" if fields.get("Reason") == "None" else "TIMEOUT"


def requeue(job: str) -> None:
    """Put the job that calls this back into the queue; SLURM then ends it. Raises `NoAnswer`."""
    command(["scontrol", "requeue", job])


def command(words: list[str]) -> str:
    """What a command of SLURM prints. Raises `NoAnswer`, and `UserError` where there is no such command."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError as error:
        raise UserError(f"--backend slurm needs SLURM's {words[0]} in PATH; load its module, or go without") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"{words[0]}: {error}") from error
    if done.returncode != 0:
        raise NoAnswer((done.stderr or done.stdout or f"{words[0]} failed").strip().splitlines()[0])
    return done.stdout
