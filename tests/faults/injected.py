"""Brings faults about inside a worker: at a phase of its run, so many steps later, or so many seconds later.

FAULTS_AT holds a JSON object, seed -> "action@place"; each fault comes once. An action is a function of `ACTIONS`, a
place a phase ("claim"), "claim+3" (after the third optimiser step from then on), "claim~0.5" (0.5 s later), or
"renamed" (the record has its name, nothing else is done). FAULTS_FOLDER takes a journal: which run was in which phase.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACE = re.compile(r"([a-z]+)(?:\+(\d+)|~([\d.]+))?")


def held_run() -> str:
    """The id of the run whose lock this process holds."""
    links = (os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return next(Path(link).parent.name for link in links if link.endswith("/lock"))


def heard(phase: str) -> None:
    """The listener: notes the phase, and does what is planned there."""
    run, folder = held_run(), Path(os.environ["FAULTS_FOLDER"])
    with (folder / "journal").open("a", encoding="utf-8") as journal:
        journal.write(f"{run} {phase} {os.getpid()}\n")
    seed = run.rpartition("-s")[2]
    action, _, place = json.loads(os.environ["FAULTS_AT"]).get(seed, "").partition("@")
    at = PLACE.fullmatch("rename" if place == "renamed" else place)
    if at is None or at[1] != phase or (folder / f"done-{seed}").exists():
        return

    def act(*found: Any) -> None:
        (folder / f"done-{seed}").touch()
        ACTIONS[action](*found)

    if place == "renamed":
        after_rename(act)
    elif at[2]:
        after_steps(int(at[2]), act)
    elif at[3]:
        threading.Timer(float(at[3]), act).start()
    else:
        act()


def after_rename(act: Callable[[], None]) -> None:
    rename = os.replace

    def replace(source: Any, target: Any) -> None:
        rename(source, target)
        if "runs" in Path(target).parts:
            act()

    os.replace = replace  # type: ignore[assignment]


def after_steps(count: int, act: Callable[[Any], None]) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen = []

    def hook(optimizer: Any, *_: Any) -> None:
        seen.append(1)
        if len(seen) == count:
            act(optimizer)

    register_optimizer_step_post_hook(hook)


def pause(*_: Any) -> None:
    """Until the test makes the file `go`."""
    while not Path(os.environ["FAULTS_FOLDER"], "go").exists():
        time.sleep(0.02)


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def diverge(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))


def lack_memory(*_: Any) -> None:
    import torch

    torch.empty(1 << 50)


def hang(*_: Any) -> None:
    time.sleep(3600)


def hang_with_gil(*_: Any) -> None:
    """No other thread of Python gets a turn."""
    ctypes.PyDLL(None).sleep(3600)


def fill_disk(*_: Any) -> None:
    """Leaves no byte on the file system of the results."""
    with Path(os.environ["FAULTS_DISK"], "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(1 << 16))
        except OSError:
            pass


ACTIONS: dict[str, Callable[..., None]] = {
    "pause": pause,
    "kill": kill,
    "diverge": diverge,
    "lack_memory": lack_memory,
    "hang": hang,
    "hang_with_gil": hang_with_gil,
    "fill_disk": fill_disk,
}
