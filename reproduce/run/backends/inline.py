"""`--backend inline`: one run after the other in this process, which a debugger can follow."""

from __future__ import annotations

import time
from collections import deque

from reproduce import traces
from reproduce.errors import Interrupted
from reproduce.records import RunRecord
from reproduce.run import gpus, runner
from reproduce.run.context import Context, Shelf
from reproduce.run.runner import Todo

POLL = 0.5  # seconds


def run_inline(todo: list[Todo], context: Context) -> dict[str, RunRecord]:
    """The record of each run id. Raises as `runner.run` does. A run that another process is at comes last.

    There is no watchdog: it would end the caller's process.
    """
    there, count = runner.gpus_for(context.device), max((spec.world_size for _, spec, _ in todo), default=1)
    with gpus.held(there, count=count, say=context.progress.note, stop=context.stop):
        shelf, records, pending = Shelf(), {}, deque(todo)
        told: set[str] = set()
        while pending:
            if context.stop():
                raise Interrupted  # before anything is loaded
            name, spec, seed = pending.popleft()
            folder, run_id = context.store.resume_dir(spec, seed), spec.run_id(seed)
            busy = traces.holder(folder)
            if busy is not None:
                if run_id not in told:
                    context.progress.note(f"{runner.label_of(name, seed)}: under way in {busy}; waits for it")
                    told.add(run_id)
                pending.append((name, spec, seed))
                time.sleep(POLL if len(told) >= len(pending) else 0.0)
                continue
            try:
                records[run_id] = runner.run(spec, seed, context, name=name, shelf=shelf)
            except Interrupted:
                if context.stop() or not traces.cancelled(folder):
                    raise
                context.progress.note(f"{runner.label_of(name, seed)}: cancelled; the same command goes on with it")
    return records
