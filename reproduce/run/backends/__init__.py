"""Where runs are carried out: in this process, in local ones, or as jobs of a SLURM cluster. One head for the last two.

A head and its workers speak through files alone (`reproduce.traces`), so either may be killed at any moment.
"""

from __future__ import annotations

from reproduce.records import RunRecord
from reproduce.run.backends.base import Backend, Worker
from reproduce.run.backends.heads import oversee
from reproduce.run.backends.inline import run_inline
from reproduce.run.context import Context
from reproduce.run.runner import Todo

__all__ = ["Backend", "Worker", "make", "run_with"]


def run_with(todo: list[Todo], context: Context) -> dict[str, RunRecord]:
    """The record of each run id, by `context.backend`; see `runner.run_all`."""
    if context.backend == "inline":
        return run_inline(todo, context)
    backend = make(context, len(todo))
    try:
        done = oversee(todo, context, backend)
    finally:
        backend.close()
    found = {spec.run_id(seed): context.store.find(spec, seed) for _, spec, seed in done}
    return {run_id: record for run_id, record in found.items() if record is not None}


def make(context: Context, runs: int) -> Backend:
    """The backend for so many runs. Raises `UserError` where it lacks something."""
    if context.backend == "local":
        from reproduce.run.backends.local import Local

        return Local(context, runs)
    from reproduce.run.backends import slurm

    return slurm.make(context)
