"""Which GPUs this process may use, and one held through a file lock: commands on one machine share them fairly.

Nothing here imports torch or touches CUDA: a worker takes its GPU first, and then alone sees it.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reproduce.errors import Interrupted, UserError

try:
    import fcntl
except ImportError:  # not a POSIX system: GPUs are not held
    fcntl = None  # type: ignore[assignment]

VISIBLE = "CUDA_VISIBLE_DEVICES"
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")
PAUSE = 1.0  # seconds between two looks for a free GPU
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU: as CUDA_VISIBLE_DEVICES names it, by its UUID where that is known, and by its index."""

    name: str
    index: str = ""
    free: int | None = None  # bytes
    total: int | None = None

    @property
    def key(self) -> str:
        """For the name of a file."""
        return re.sub(r"[^\w.-]", "_", self.name)


def usable(environment: Mapping[str, str] | None = None) -> list[Gpu]:
    """The GPUs of this machine, less those that CUDA_VISIBLE_DEVICES hides."""
    return visible(installed(), (os.environ if environment is None else environment).get(VISIBLE))


def installed() -> list[Gpu]:
    """By nvidia-smi; by the driver's files where that is missing; none where there is no driver."""
    if shutil.which(QUERY[0]) is not None:
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(QUERY, check=True, capture_output=True, text=True, timeout=20)
            return parse(done.stdout)
    indices = (re.fullmatch(r"nvidia(\d+)", path.name) for path in sorted(Path("/dev").glob("nvidia*")))
    return [Gpu(name=found[1], index=found[1]) for found in indices if found is not None]


def parse(text: str) -> list[Gpu]:
    """`0, GPU-2c6e..., 143771, 143771`, a line each, in MiB; what is `[N/A]` stays unknown."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[0].isdecimal():
            free, total = (int(part) * MIB if part.isdecimal() else None for part in parts[2:])
            found.append(Gpu(name=parts[1] or parts[0], index=parts[0], free=free, total=total))
    return found


def visible(gpus: Sequence[Gpu], names: str | None) -> list[Gpu]:
    """names: CUDA_VISIBLE_DEVICES, of indices, UUIDs or their beginnings; like CUDA, it ends at the first bad one.

    A part of a GPU (`MIG-...`) is in no list and taken as it is named.
    """
    if names is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for name in (part.strip() for part in names.split(",")):
        hit = [gpu for gpu in gpus if name and (gpu.index == name or gpu.name.startswith(name))]
        if name.startswith("MIG-"):
            hit = [Gpu(name=name)]
        if len(hit) != 1:
            break
        chosen += hit
    return chosen


def folder() -> Path:
    """Of the locks: one for each user on each machine."""
    try:
        user = str(os.getuid())
    except AttributeError:
        user = getpass.getuser()
    return Path(tempfile.gettempdir(), f"reproduce-effconv-{user}")


def free(gpus: Sequence[Gpu], place: Path | None = None) -> list[Gpu]:
    """Those that no run holds."""
    found = []
    for gpu in gpus:
        file = _take(gpu, place or folder())
        if file is not None:
            os.close(file)
            found.append(gpu)
    return found


@contextmanager
def held(
    gpus: Sequence[Gpu],
    *,
    count: int = 1,
    say: Callable[[str], object],
    stop: Callable[[], bool],
    place: Path | None = None,
    pause: float = PAUSE,
) -> Iterator[list[Gpu]]:
    """Inside, `count` of these GPUs are this process's own, and the only ones that CUDA sees; none of none.

    Waits, and says so once, while all are taken. Raises `Interrupted` when `stop()` is true before, `UserError` where
    there are too few.
    """
    if not gpus or fcntl is None:
        yield list(gpus[:count])
        return
    if len(gpus) < count:
        raise UserError(f"the run takes {count} GPUs and this machine has {len(gpus)} that it may use; take fewer")
    before = os.environ.get(VISIBLE)
    with ExitStack() as stack:
        mine = _wait(gpus, count, stack, say, stop, place or folder(), pause)
        os.environ[VISIBLE] = ",".join(gpu.name for gpu in mine)
        try:
            yield mine
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def _wait(
    gpus: Sequence[Gpu],
    count: int,
    stack: ExitStack,
    say: Callable[[str], object],
    stop: Callable[[], bool],
    place: Path,
    pause: float,
) -> list[Gpu]:
    """All or none at a time, so that two runs that need several never wait for each other."""
    told = False
    while True:
        taken = [(gpu, file) for gpu in gpus if (file := _take(gpu, place)) is not None]
        for _, file in taken[count:] if len(taken) >= count else taken:
            os.close(file)
        if len(taken) >= count:
            for _, file in taken[:count]:
                stack.callback(os.close, file)
            return [gpu for gpu, _ in taken[:count]]
        if stop():
            raise Interrupted
        if not told:
            say("waits for a GPU: other runs hold all" if count == 1 else f"waits for {count} free GPUs")
            told = True
        time.sleep(pause)


def _take(gpu: Gpu, place: Path) -> int | None:
    """The open lock, or None if another process holds it."""
    if fcntl is None:
        return None
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(place / f"gpu-{gpu.key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
