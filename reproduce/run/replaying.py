"""A recorded run once more, in a folder of its own: the same spec and seed, resumable, and never taken for a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from reproduce.errors import Interrupted
from reproduce.records import RunRecord
from reproduce.run.context import Context
from reproduce.run.progress import Progress
from reproduce.run.runner import run
from reproduce.store import Store
from reproduce.traces import saved

DEFAULT_ROOT = Path("data")  # where images are looked for unless told otherwise


def replay(
    record: RunRecord,
    name: str,
    scratch: Path,
    *,
    data_root: Path | None,
    cache: Path | None,
    device: str,
    stop: Callable[[], bool],
) -> tuple[RunRecord, Path]:
    """The record of a new run of `record`'s spec and seed, and where it stands below `scratch`.

    A finished replay that stands there is done again; an interrupted one goes on. Raises what `runner.run` raises.
    """
    store = Store(scratch)
    path, folder = store.path(record.spec, record.seed), store.resume_dir(record.spec, record.seed)
    path.unlink(missing_ok=True)
    before, progress = saved(folder), Progress()
    context = Context(
        store=store,
        data_root=data_root or DEFAULT_ROOT,
        cache=cache,
        download=False,
        device=device,
        keep_weights=False,
        progress=progress,
        stop=stop,
        retry=True,
    )
    try:
        found = run(record.spec, record.seed, context, name=name)
    except Interrupted:
        raise Interrupted(idle=saved(folder) == before) from None
    finally:
        progress.close()
    return found, path


def device_of(record: RunRecord, asked: str) -> str:
    """`auto` is the kind of device that the run was recorded on, if it is here."""
    if asked != "auto":
        return asked
    recorded = record.clock.device
    if recorded == "cuda" and not torch.cuda.is_available():
        return "cpu"
    return recorded or "auto"
