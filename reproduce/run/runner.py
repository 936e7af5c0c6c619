"""Spec and seed -> record: found in the store, or carried out, resumable at any moment, and written there."""

from __future__ import annotations

import torch

from reproduce.errors import Interrupted, UserError
from reproduce.records import RunRecord
from reproduce.run import machine
from reproduce.run.batches import steps_per_epoch
from reproduce.run.context import Context, Run, Shelf
from reproduce.run.recording import now, record_of, save_weights
from reproduce.run.resume import Notes, clear
from reproduce.run.stages import carry_out
from reproduce.run.workers import run_side_by_side
from reproduce.specs import RunSpec
from reproduce.store import locked

__all__ = ["Context", "run", "run_all"]

Todo = tuple[str, RunSpec, int]  # the row's name, what to run, the seed


def run(
    spec: RunSpec, seed: int, context: Context, *, name: str | None = None, shelf: Shelf | None = None
) -> RunRecord:
    """The record of this spec and seed.

    One that is there is returned at once, one that failed or diverged too, unless `context.retry`. Raises `Interrupted`
    when `context.stop()` is true, with all state saved, and `UserError` for what a user can mend.
    """
    store, label = context.store, f"{name or spec.model.family} seed {seed}"
    found = recorded(spec, seed, context)
    if found is not None:
        context.progress.note(f"{label}: {found.outcome.status} earlier, nothing to do")
        return found
    problem = store.blocked(spec, seed)
    if problem is not None:
        raise UserError(problem)  # now, not when the record is to be written
    device, folder = device_for(spec, context.device), store.resume_dir(spec, seed)
    with machine.settings(spec.threads, spec.precision), locked(folder):
        dataset = (shelf or Shelf()).get(spec.data, device, context)
        this = Run(
            name=label, spec=spec, seed=seed, context=context, device=device, folder=folder, dataset=dataset
        )
        context.progress.run(label, work(this))
        record = carry_out_and_record(this)
        clear(folder)
    context.progress.done(label, summary(record))
    return record


def run_all(todo: list[Todo], context: Context) -> list[RunRecord]:
    """The records of all these runs, in their order; a run that occurs twice is done once.

    With `context.jobs` above one they go side by side, one process each. Raises what `run` raises, once every run under
    way has saved its state.
    """
    once = list({spec.run_id(seed): (name, spec, seed) for name, spec, seed in todo}.values())
    if context.jobs > 1 and len(once) > 1:
        records = run_side_by_side(once, context)
    else:
        shelf, records = Shelf(), {}
        for name, spec, seed in once:
            if context.stop():
                raise Interrupted  # before anything is loaded
            records[spec.run_id(seed)] = run(spec, seed, context, name=name, shelf=shelf)
    return [records[spec.run_id(seed)] for _, spec, seed in todo]


def device_for(spec: RunSpec, name: str) -> torch.device:
    """Raises `UserError` for a device that is not there or that has no such precision."""
    device = machine.choose_device(name)
    if device.type == "cpu" and spec.precision != "float32":
        raise UserError(f"--precision {spec.precision} needs a CUDA device; on the CPU there is float32 alone")
    return device


def recorded(spec: RunSpec, seed: int, context: Context) -> RunRecord | None:
    """A record that makes the run unnecessary."""
    found = context.store.find(spec, seed)
    return None if found is not None and context.retry and found.outcome.status != "finished" else found


def carry_out_and_record(this: Run) -> RunRecord:
    """Both stages, then the weights if they are to be kept; the record is written last."""
    notes, context = Notes(this.folder / "run.json"), this.context
    before = notes.load()
    shared = context.jobs > 1 or machine.others_at_work(this.spec.threads)
    this.began = {
        "started": before.get("started", now()),
        "resumed": before["resumed"] + 1 if before else 0,
        "shared": bool(before.get("shared")) or shared,
    }
    notes.save(this.began)
    result = carry_out(this)
    this.began["shared"] = this.began["shared"] or machine.others_at_work(this.spec.threads)
    record = record_of(this, result)
    if context.keep_weights and result.network is not None:
        save_weights(context.store.weights_path(this.spec, this.seed), result.network)
    context.store.write(record)
    return record


def work(this: Run) -> dict[str, int]:
    """Steps of each stage, for the time left."""
    images, recipe, learning = len(this.dataset.train), this.spec.training, this.spec.size_learning
    planned = {"training": recipe.epochs * steps_per_epoch(images, recipe.batch_size, drop_last=recipe.drop_last)}
    if learning is not None:
        planned["sizes"] = learning.epochs * steps_per_epoch(images, learning.batch_size)
    return planned


def summary(record: RunRecord) -> str:
    if record.metrics is None:
        return f"{record.outcome.status}: {record.outcome.reason}"
    return f"top-1 {record.metrics.last.top1:.2f} % after {record.metrics.last.epoch} epochs"
