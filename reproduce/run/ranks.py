"""The further processes of a run on several GPUs: started, watched and ended by the one that holds the run."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from reproduce.errors import Interrupted, UserError
from reproduce.run import machine
from reproduce.run.context import Context, Run, Shelf
from reproduce.run.distributed import Group, OutOfStep, abort, check_parts, joined
from reproduce.specs import RunSpec

POLL = 0.2  # seconds
GRACE = 30.0  # seconds that the first process has to notice by itself that another one is gone
MEETING = "meeting-"  # then random letters: a folder in that of the resume state, where the processes find each other
Work = Callable[[Run, Group | None], object]


class ProcessLost(UserError):
    """Another process of the run was killed. The state is saved, so the run can go on."""


class ProcessFailed(RuntimeError):
    """Another process of the run raised what a user cannot mend."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a further process is to do: the same `work` as the first, as process `rank` of the spec's."""

    spec: RunSpec
    seed: int
    rank: int
    context: Context
    device: str  # cpu or cuda
    folder: Path
    meeting: Path
    work: Work


@contextmanager
def beside(run: Run, work: Work) -> Iterator[Group | None]:
    """Inside, further processes do `work` as well, as many as the spec asks for; None for a run in one process.

    An exception inside ends them. Should one of them end before its time, this raises why within `GRACE` seconds:
    `ProcessLost`, or what a user can mend, or `ProcessFailed`. Raises `UserError` for what cannot be shared.
    """
    if run.spec.world_size == 1:
        yield None
        return
    check(run)
    for stale in run.folder.glob(f"{MEETING}*"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=MEETING, dir=run.folder))
    others = Others(spec=run.spec)
    try:
        others.start(run, folder / "store", work)
        others.wait_for_all(run.context.stop)
        others.watch(run.device)
        with joined(0, run.spec.world_size, folder / "store", device=run.device, sync_bn=run.spec.sync_bn) as group:
            yield group
        others.end(GRACE)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError | OutOfStep | ProcessFailed) or not others.known.wait(GRACE / 3):
            raise
        assert others.problem is not None
        raise others.problem from error
    finally:
        others.end(0.0)
        shutil.rmtree(folder, ignore_errors=True)


def check(run: Run) -> None:
    """Raises `UserError` for too few GPUs or images, and for an engine or batch norm that cannot be shared."""
    spec, recipe, images = run.spec, run.spec.training, len(run.dataset.train)
    if spec.engine != "plain":
        raise UserError("several processes share the steps of --engine plain alone; drop --engine")
    if run.device.type == "cuda" and torch.cuda.device_count() < spec.world_size:
        raise UserError(
            f"a run on {spec.world_size} GPUs needs as many; {torch.cuda.device_count()} can be seen here: lower "
            "--gpus-per-run"
        )
    if run.device.type != "cuda" and spec.sync_bn:
        raise UserError("--sync-bn needs CUDA devices; on the CPU batch norm counts by process")
    check_parts(images, recipe.batch_size, spec.world_size, drop_last=recipe.drop_last)
    if spec.size_learning is not None:
        check_parts(images, spec.size_learning.batch_size, spec.world_size)


@dataclass(kw_only=True)
class Others:
    """The further processes, as the first one sees them. What the first of them to fail says is the problem."""

    spec: RunSpec
    processes: list[BaseProcess] = field(default_factory=list)
    messages: list[Connection] = field(default_factory=list)  # of those that may still say something
    problem: Exception | None = None
    known: threading.Event = field(default_factory=threading.Event)  # that there is a problem
    over: threading.Event = field(default_factory=threading.Event)  # nothing is to be watched any more

    def start(self, run: Run, meeting: Path, work: Work) -> None:
        """Fresh processes: CUDA and torch's threads do not survive a fork."""
        spawn = multiprocessing.get_context("spawn")
        for rank in range(1, self.spec.world_size):
            receiver, sender = spawn.Pipe(duplex=False)
            order = Order(
                spec=run.spec,
                seed=run.seed,
                rank=rank,
                context=replace(run.context.bare(jobs=1), download=False),
                device=run.device.type,
                folder=run.folder.absolute(),
                meeting=meeting.absolute(),
                work=work,
            )
            process = spawn.Process(target=follow, args=(order, sender), daemon=True)
            process.start()
            sender.close()  # so that the end of the process ends the pipe
            self.processes.append(process)
            self.messages.append(receiver)

    def wait_for_all(self, stop: Callable[[], bool]) -> None:
        """Until each has its images: only then do they wait for each other."""
        ready: set[Connection] = set()
        while len(ready) < len(self.processes):
            if stop():
                raise Interrupted
            for one in wait([one for one in self.messages if one not in ready], POLL):
                if self.hear(one):  # type: ignore[arg-type]
                    ready.add(one)  # type: ignore[arg-type]
            if self.problem is not None:
                raise self.problem

    def hear(self, one: Connection) -> bool:
        """One message, or the end. Whether all is well, as far as this one says."""
        place = self.messages.index(one)
        who = f"process {place + 2} of {self.spec.world_size}"
        try:
            kind, line = one.recv()
        except (EOFError, OSError):
            self.processes[place].join(GRACE)
            code = self.processes[place].exitcode or 0
            kind, line = ("lost", f"signal {-code}") if code < 0 else ("failed", "it ended before its time")
        killed = f"{who} of this run was killed ({line}), perhaps for want of memory; the same command goes on"
        kinds = {"lost": ProcessLost(killed), "user": UserError(line), "failed": ProcessFailed(f"{who}: {line}")}
        if kind in kinds and self.problem is None:
            self.problem = kinds[kind]
            self.known.set()
        return kind not in kinds

    def watch(self, device: torch.device) -> None:
        threading.Thread(target=self._watch, args=(device,), daemon=True).start()

    def _watch(self, device: torch.device) -> None:
        """Until all is over or one has failed. Then whoever waits for that one is woken up, or ended."""
        silent = set()
        while not (self.over.is_set() or self.known.is_set()):
            for one in wait([one for one in self.messages if one not in silent], POLL):
                if self.hear(one):  # type: ignore[arg-type]
                    silent.add(one)  # it is done
            if len(silent) == len(self.messages):
                return
        if self.over.is_set():
            return
        if device.type == "cuda":
            abort()  # gloo has noticed
        if not self.over.wait(GRACE):
            print(f"error: {self.problem}", file=sys.stderr, flush=True)
            os._exit(1)

    def end(self, patience: float) -> None:
        """Wait so long for their end, in seconds, and then kill them: they hold nothing that would be lost."""
        self.over.set()
        until = time.monotonic() + patience
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join()


def follow(order: Order, messages: Connection) -> None:
    """In a further process: the same work, heard of by nobody, until it is done or the first process has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the first process decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec, device = order.spec, torch.device(order.device)
    try:
        if device.type == "cuda":
            device = torch.device("cuda", order.rank)
            torch.cuda.set_device(device)
        with machine.settings(spec.threads, spec.precision):
            run = Run(
                name="",
                spec=spec,
                seed=order.seed,
                context=order.context,
                device=device,
                folder=order.folder,
                dataset=Shelf().get(spec.data, device, order.context),
            )
            messages.send(("ready", ""))
            with joined(order.rank, spec.world_size, order.meeting, device=device, sync_bn=spec.sync_bn) as group:
                order.work(run, group)
        messages.send(("done", ""))
    except Interrupted:  # agreed on with the first process, which says so itself
        messages.send(("done", ""))
    except (UserError, OSError) as error:
        messages.send(("user", str(error)))
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        messages.send(("failed", f"{type(error).__name__}: {first}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
