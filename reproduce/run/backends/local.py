"""`--backend local`: each run in a process of its own, forked from a server that has loaded torch and no CUDA."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from reproduce import traces
from reproduce.run import forkserver, gpus, memory
from reproduce.run.attempt import entry
from reproduce.run.backends.base import Worker
from reproduce.run.context import Context
from reproduce.run.runner import Todo, gpus_for
from reproduce.stopping import Stop

LOOK = 5.0  # seconds between two looks at the GPUs' memory, which take a moment
SLACK = 60.0  # seconds that the watchdog has before the head steps in


class Process:
    """A worker of this machine."""

    def __init__(self, todo: Todo, process: BaseProcess) -> None:
        self.todo, self.process = todo, process

    def alive(self) -> bool:
        return self.process.is_alive()

    def exit_code(self) -> int | None:
        return self.process.exitcode

    def end(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.process.pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class Local:
    """Workers of this machine, `context.jobs` at a time."""

    detached = False

    def __init__(self, context: Context, runs: int) -> None:
        self.room = min(context.jobs, runs)
        self.stall: float | None = context.stall_limit + SLACK
        self.there = gpus_for(context.device)
        self.looked = time.monotonic()
        self.device = "cuda" if self.there else "cpu"
        self.deadline = context.stop.deadline if isinstance(context.stop, Stop) else None
        self.context = context.bare(jobs=self.room)
        self.server = forkserver.start()

    def start(self, todos: Sequence[Todo]) -> list[Worker]:
        return [self.one(todo) for todo in todos]

    def one(self, todo: Todo) -> Process:
        # No daemon: a run over several GPUs has processes of its own.
        process = self.server.Process(
            target=entry, args=(todo, self.context, self.deadline), name=todo[0], daemon=False
        )
        process.start()
        return Process(todo, process)

    def claimed(self, folder: Path) -> str | None:
        return traces.holder(folder)

    def fits(self, todo: Todo, working: Sequence[Worker], starting: Sequence[Todo]) -> str | None:
        needed, free = memory.estimate(todo[1], self.device), self.free(working, starting)
        if free is None or needed <= free:
            return None
        what = f"needs about {memory.gib(needed)} of memory and {memory.gib(max(0, free))} are free"
        return f"{what}; waits" if working or starting else f"{what}; goes on alone and may be killed"

    def free(self, working: Sequence[Worker], starting: Sequence[Todo]) -> int | None:
        """Bytes that are free and that no other worker, still growing, is going to take."""
        if self.device == "cuda":
            if time.monotonic() - self.looked >= LOOK:
                self.looked, self.there = time.monotonic(), gpus.usable()
            return memory.free_on_gpus(gpus.free(self.there))
        free = memory.free_on_cpu()
        if free is None:
            return None
        growing = [(worker.todo, worker.process.pid) for worker in working if isinstance(worker, Process)]
        growing += [(todo, None) for todo in starting]
        return free - sum(max(0, memory.estimate(todo[1], "cpu") - memory.own(pid)) for todo, pid in growing)

    def wait(self, working: Sequence[Worker], seconds: float) -> None:
        sentinels = [worker.process.sentinel for worker in working if isinstance(worker, Process)]
        if sentinels:
            multiprocessing.connection.wait(sentinels, seconds)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """The server ends with this process."""
