"""One attempt at a run in a process of its own: the worker's side of every backend but inline.

Head and worker speak through the files of `reproduce.traces` in the run's resume folder; a worker needs no head.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from reproduce import traces
from reproduce.errors import Interrupted, UserError
from reproduce.phases import listening
from reproduce.records import RunRecord
from reproduce.run import gpus, machine
from reproduce.run.context import Context, Shelf
from reproduce.run.diary import Ask, Diary
from reproduce.run.progress import Progress
from reproduce.run.ranks import ProcessLost
from reproduce.run.recording import failed_record
from reproduce.run.resume import Notes
from reproduce.run.runner import Todo, carry, gpus_for, label_of, recorded, summary
from reproduce.run.stages import reason
from reproduce.run.watchdog import HUNG, watching
from reproduce.stopping import Stop
from reproduce.traces import Stopped

# Exit codes. A record stands there, whatever its outcome; another process of the run was killed; there is none, and
# `stop.json` says why; somebody else is at this run; nothing could be written.
DONE, LOST, STOPPED, BUSY, UNSAID = 0, 1, 3, 4, 5


def entry(
    todo: Todo, context: Context, deadline: float | None = None, job: str | None = None, where: str | None = None
) -> None:
    """What a worker's process calls. It outlives its head and hears of nothing but SIGTERM: save and end.

    deadline: of `time.monotonic()`, which the processes of a machine share.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")  # it all goes to the log
    stop = Stop(deadline=deadline)

    def asked(*_: object) -> None:
        stop.signalled = True

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the head decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with suppress(PermissionError):  # it leads a session already
        os.setsid()
    sys.exit(attempt(todo, context, stop=stop, job=job, where=where))


def attempt(todo: Todo, context: Context, *, stop: Stop, job: str | None = None, where: str | None = None) -> int:
    """Carry a run out, or on, as far as it goes; the exit code.

    context: a head's, `bare()`. job, where: of the queue, and for people.
    """
    name, spec, seed = todo
    folder = context.store.resume_dir(spec, seed)
    try:
        with traces.hold(folder):
            diary = Diary(Progress(file=sys.stdout), folder, label_of(name, seed), job=job, where=where)
            heading = f"--- {traces.now()}, {diary.at.where}"
            with logged(folder / traces.LOG, heading), warned(diary), listening(diary.phase):
                return at_work(todo, context, diary, stop)
    except traces.Busy:
        return BUSY
    except OSError as fault:
        print(f"{label_of(name, seed)}: {fault}", file=sys.stderr)
        return UNSAID


def at_work(todo: Todo, context: Context, diary: Diary, stop: Stop) -> int:
    """The attempt itself, under the lock, its words going to the log."""
    _, spec, seed = todo
    try:
        if traces.cancelled(diary.folder):
            return STOPPED
        if stop():
            raise Interrupted  # before anything is loaded
        # One from elsewhere its head would have found: to look for it is to read all records.
        record = recorded(spec, seed, context) if context.store.path(spec, seed).exists() else None
        if record is None:
            record = with_device(todo, context, diary, stop)
        print(summary(record), flush=True)
    except ProcessLost as lost:  # as if this one had been killed
        print(lost, file=sys.stderr)
        return LOST
    except BaseException as error:
        return left(diary.folder, error, stop)
    failed = record.outcome.status == "failed"
    traces.sweep(diary.folder, keep=(traces.LOG, traces.PROGRESS) if failed or diary.at.warnings else ())
    return DONE


def with_device(todo: Todo, context: Context, diary: Diary, stop: Stop) -> RunRecord:
    """The run on a GPU of its own, if it is to have one, under the eyes of the watchdog."""
    _, spec, seed = todo
    ask = Ask(stop, diary)

    def ask_in_vain() -> bool:
        diary.write_if_old()
        return ask()

    def wait(line: str) -> None:
        diary.phase("waiting for a GPU")
        diary.note(line)

    def hung(why: str) -> None:
        """From the watchdog's thread. What is saved stays: the run goes on from there when it is tried again."""
        try:
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
            record_hung(todo, context, why)
            print(why, file=sys.stderr, flush=True)
        finally:
            os._exit(HUNG)

    with (
        gpus.held(gpus_for(context.device), count=spec.world_size, say=wait, stop=ask_in_vain),
        watching(diary, context.stall_limit, hung),
    ):
        device = machine.choose_device(context.device, spec.precision)
        return carry(spec, seed, replace(context, stop=stop), diary, device=device, shelf=Shelf())


def record_hung(todo: Todo, context: Context, why: str) -> None:
    """Write the record of a run that hangs, from what it noted when it began. The caller has ended it, or is it."""
    _, spec, seed = todo
    began = Notes(context.store.resume_dir(spec, seed) / traces.NOTES).load(started=str)
    if "machine" not in began:
        began["machine"] = context.store.write_machine(machine.description())
    context.store.write(failed_record(spec, seed, began, why))


def left(folder: Path, error: BaseException, stop: Stop) -> int:
    """Note why there is no record. What no user can mend is in the log with its traceback."""
    if isinstance(error, Interrupted):
        if traces.cancelled(folder):
            return STOPPED
        found = Stopped(why="interrupted", out_of_time=stop.out_of_time)
    elif isinstance(error, OSError):
        where = None if error.filename is None else str(error.filename)
        found = Stopped(why="error", line=str(error.strerror or error), errno=error.errno, filename=where)
    elif isinstance(error, UserError):
        found = Stopped(why="error", line=" ".join(str(error).splitlines()))
    else:
        found = Stopped(why="error", line=f"{reason(error)}; `reproduce logs {folder.name}` has more")
    try:
        traces.note_stop(folder, found)
        if not isinstance(error, (Interrupted, UserError)):
            traceback.print_exception(error)
    except OSError:
        return UNSAID
    return STOPPED


@contextmanager
def warned(diary: Diary) -> Iterator[None]:
    """Inside, what is logged as a warning is kept for the head, which says it."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: diary.warn(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("reproduce").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("reproduce").removeHandler(handler)


@contextmanager
def logged(path: Path, heading: str) -> Iterator[None]:
    """Inside, what this process and those that it starts print goes to the end of a file. May raise `OSError`."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        file.write(f"{heading}\n".encode())
        file.flush()
        before = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        for number, (stream, old) in enumerate(zip((sys.stdout, sys.stderr), before, strict=True), start=1):
            with suppress(OSError):  # a full disk: what was said is lost, and nothing else
                stream.flush()
            os.dup2(old, number)
            os.close(old)
