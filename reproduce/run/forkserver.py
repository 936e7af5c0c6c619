"""The server from which `--backend local` forks its workers; no torch here, so that it can be started first of all."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import reproduce

PRELOAD = "reproduce.run.preloaded"
MAIN = "reproduce.cli"  # is imported by what a worker takes for its main module


def start() -> ForkServerContext:
    """Start the server, or find it started. It loads torch for some seconds meanwhile; it ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([MAIN, PRELOAD])
    with importable():
        forkserver.ensure_running()
    return context


@contextmanager
def importable() -> Iterator[None]:
    """Inside, a process that starts finds this package, also where it is not installed."""
    before, root = os.environ.get("PYTHONPATH"), Path(reproduce.__file__).parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), before)))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before
