"""What a run at work leaves beside its resume state: who is at it, how far, what it said, why it stopped. No torch.

Heads, workers, `status`, `cancel` and `logs` speak through these files alone. None is a result: a run goes on without
any of them, and a damaged one counts as missing. Whether somebody is at a run, its lock decides and no time stamp.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from reproduce.errors import UserError
from reproduce.store import place

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock, everything else works
    fcntl = None  # type: ignore[assignment]

LOCK, LOG, NOTES = "lock", "log", "run.json"
PROGRESS, STOP, JOB = "progress.json", "stop.json", "job.json"
TRACES = frozenset({LOCK, LOG, PROGRESS, STOP, JOB})  # no part of what a run goes on from
START = "at its start"  # of a run that has told nothing yet
PATIENCE, RETRY = 2.0, 0.02  # seconds: to look whether somebody holds a lock is to hold it for a moment

M = TypeVar("M", bound=BaseModel)


class Whereabouts(BaseModel):
    """How far a run is, as its worker last said."""

    name: str  # of its row, and the seed
    where: str  # for people: "process 123", "job 12_3"
    pid: int
    machine: str  # `here()` of the worker: only there does its number mean anything
    job: str | None = None
    phase: str = ""
    work: dict[str, int] = {}  # steps of each stage
    stage: str = ""  # sizes, training
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    top1: float | None = None
    budget_error: float | None = None
    seconds_left: float | None = None
    idle: float = 0.0  # seconds since a step was finished
    warnings: list[str] = []  # for people, each once
    when: str = ""  # UTC

    def place(self) -> str:
        """`training, epoch 3, step 17`: the last step that was told."""
        if not self.stage:
            return self.phase or START
        return f"{self.stage}, epoch {self.epoch}, step {self.step}"


class Stopped(BaseModel):
    """Why a run has ended without a record."""

    why: Literal["cancelled", "interrupted", "error"]
    line: str = ""  # for people
    errno: int | None = None  # of an `OSError`, and its file
    filename: str | None = None
    out_of_time: bool = False
    when: str = ""


class Job(BaseModel):
    """The job of a queue that a run was handed to."""

    job: str
    runs: int = 1  # that it holds
    when: str = ""


class Busy(UserError):
    """Another process is at this run."""


def now() -> str:
    """This moment as records write it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def here() -> str:
    """This machine, since its start, and this space of process numbers: says nothing of who or where it is."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


@contextmanager
def hold(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Makes the folder of an unfinished run and holds it for this process. Raises `Busy`, and `OSError`."""
    file = _taken(folder, time.monotonic() + patience)
    try:
        yield
    finally:
        os.close(file)


def _taken(folder: Path, until: float) -> int:
    """The open lock. A folder that was cleared meanwhile is made anew: a lock without a name holds off nobody."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(folder / LOCK)):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(file)
                raise Busy(f"run {folder.name} is under way in another process; wait for it or stop it") from None
            time.sleep(RETRY)
        os.close(file)


def held(folder: Path) -> bool:
    """Whether a process is at this run."""
    if fcntl is None:
        return False
    try:
        file = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def holder(folder: Path) -> str | None:
    """Who is at this run, for people; None if nobody is."""
    if not held(folder):
        return None
    found = whereabouts(folder)
    return "another process" if found is None else found.where


def whereabouts(folder: Path) -> Whereabouts | None:
    return _read(folder / PROGRESS, Whereabouts)


def tell(folder: Path, found: Whereabouts) -> None:
    """Replaced whole, but not waited for until it is on the disk; a full disk costs this file and nothing else."""
    temporary = folder / f"{PROGRESS}.tmp"
    with suppress(OSError):
        temporary.write_text(found.model_dump_json(), encoding="utf-8")
        os.replace(temporary, folder / PROGRESS)


def stopped(folder: Path) -> Stopped | None:
    return _read(folder / STOP, Stopped)


def cancelled(folder: Path) -> bool:
    """Whether somebody cancelled this run, and no command has begun it anew."""
    found = stopped(folder)
    return found is not None and found.why == "cancelled"


def note_stop(folder: Path, found: Stopped) -> None:
    """May raise `OSError`."""
    place(folder / STOP, found.model_copy(update={"when": now()}).model_dump_json().encode())


def job(folder: Path) -> Job | None:
    return _read(folder / JOB, Job)


def note_job(folder: Path, found: Job) -> None:
    """May raise `OSError`."""
    place(folder / JOB, found.model_copy(update={"when": now()}).model_dump_json().encode())


def forget_job(folder: Path) -> None:
    (folder / JOB).unlink(missing_ok=True)


def forget_stop(folder: Path) -> None:
    (folder / STOP).unlink(missing_ok=True)


def begin(folder: Path) -> None:
    """Before a run is handed to a worker: what an earlier one said of it no longer holds. May raise `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (STOP, PROGRESS):
        (folder / name).unlink(missing_ok=True)


def sweep(folder: Path, *, keep: Collection[str] = ()) -> None:
    """Remove the state of a run whose record is written, but for what still has something to say."""
    if not any((folder / name).exists() for name in keep):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (*keep, LOCK):
            with suppress(OSError):
                path.unlink()


def is_over(folder: Path) -> bool:
    """Whether nothing is left to go on from, but the words of a run that has its record."""
    names = {path.name for path in folder.iterdir()}
    return LOG in names and names <= {LOG, LOCK, PROGRESS}


def saved(folder: Path) -> dict[Path, int]:
    """The files of saved state, each with its time: it changes as soon as one step is saved."""
    found = {}
    for path in folder.glob("*"):
        if path.name not in TRACES and path.name != NOTES and path.suffix != ".tmp" and path.is_file():
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
    return found


def last_lines(folder: Path, count: int = 5, most: int = 1 << 16) -> list[str]:
    """The end of the log; empty if there is none."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]


def _read(path: Path, kind: type[M]) -> M | None:
    try:
        if path.stat().st_size > 1 << 20:
            return None
        content: Any = path.read_bytes()
        return kind.model_validate_json(content)
    except (OSError, ValidationError):
        return None
