"""Spec and seed -> record: found in the store, or carried out, resumable at any moment, and written there."""

from __future__ import annotations

from dataclasses import replace

import torch

from reproduce import traces
from reproduce.errors import UserError
from reproduce.phases import listening, phase
from reproduce.records import RunRecord
from reproduce.run import gpus, machine
from reproduce.run.batches import steps_per_epoch
from reproduce.run.context import Context, Run, Shelf
from reproduce.run.diary import Ask, Diary
from reproduce.run.gpus import Gpu
from reproduce.run.recording import beginning, record_of, save_weights
from reproduce.run.resume import Notes
from reproduce.run.stages import carry_out
from reproduce.specs import RunSpec

__all__ = ["Context", "run", "run_all"]

Todo = tuple[str, RunSpec, int]  # the row's name, what to run, the seed


def run(
    spec: RunSpec, seed: int, context: Context, *, name: str | None = None, shelf: Shelf | None = None
) -> RunRecord:
    """The record of this spec and seed, from this process.

    One that is there is returned at once, one that failed or diverged too, unless `context.retry`. Raises `Interrupted`
    when `context.stop()` is true, with all state saved, and `UserError` for what a user can mend.
    """
    store, label = context.store, label_of(name or spec.model.family, seed)
    found = recorded(spec, seed, context)
    if found is not None:
        context.progress.note(f"{label}: {found.outcome.status} earlier, nothing to do")
        return found
    problem = store.blocked(spec, seed)
    if problem is not None:
        raise UserError(problem)  # now, not when the record is to be written
    device, folder = machine.choose_device(context.device, spec.precision), store.resume_dir(spec, seed)
    with traces.hold(folder):
        traces.begin(folder)
        diary = Diary(context.progress, folder, label)
        with listening(diary.phase):
            record = carry(spec, seed, context, diary, device=device, shelf=shelf or Shelf())
        traces.sweep(folder)
    context.progress.done(label, summary(record))
    return record


def carry(spec: RunSpec, seed: int, context: Context, diary: Diary, *, device: torch.device, shelf: Shelf) -> RunRecord:
    """Carry a run out, or on, and write its record; the caller holds its lock. Raises as `run` does."""
    phase("claim")
    with machine.settings(spec.threads, spec.precision):
        phase("data")
        dataset = shelf.get(spec.data, device, context)
        within = replace(context, progress=diary, stop=Ask(context.stop, diary))
        this = Run(
            name=diary.at.name,
            spec=spec,
            seed=seed,
            context=within,
            device=device,
            folder=diary.folder,
            dataset=dataset,
        )
        diary.run(this.name, work(this))
        return carry_out_and_record(this)


def run_all(todo: list[Todo], context: Context) -> list[RunRecord]:
    """The records of all these runs, in their order, by `context.backend`; a run that occurs twice is done once.

    A run that is missing from them was killed or cancelled, which was said. Raises what `run` raises, once every run
    under way has saved its state.
    """
    from reproduce.run import backends

    once = list({spec.run_id(seed): (name, spec, seed) for name, spec, seed in todo}.values())
    records = backends.run_with(once, context)
    wanted = [spec.run_id(seed) for _, spec, seed in todo]
    return [records[run_id] for run_id in wanted if run_id in records]


def label_of(name: str, seed: int) -> str:
    """A run's name for people."""
    return f"{name} seed {seed}"


def gpus_for(device: str) -> list[Gpu]:
    """Those of which a run may take one, the emptiest first.

    None once CUDA is in use in this process: it is settled then what it sees.
    """
    if device == "cpu" or torch.version.cuda is None or torch.cuda.is_initialized():
        return []
    return sorted(gpus.usable(), key=lambda gpu: -(gpu.free or 0))


def recorded(spec: RunSpec, seed: int, context: Context) -> RunRecord | None:
    """A record that makes the run unnecessary."""
    found = context.store.find(spec, seed)
    return None if found is not None and context.retry and found.outcome.status != "finished" else found


def carry_out_and_record(this: Run) -> RunRecord:
    """Both stages, then the weights if they are to be kept; the record is written last."""
    notes, context = Notes(this.folder / traces.NOTES), this.context
    before = notes.load(started=str, resumed=int)
    this.began = beginning(this, before, shared=shares(this) or others_at_work(this.spec))
    notes.save(this.began)
    result = carry_out(this)
    this.began["shared"] = this.began["shared"] or others_at_work(this.spec)
    phase("write")
    record = record_of(this, result)
    if context.keep_weights and result.network is not None:
        save_weights(context.store.weights_path(this.spec, this.seed), result.network)
    context.store.write(record)
    return record


def others_at_work(spec: RunSpec) -> bool:
    """Whether what else runs here takes its share of the seconds; the run's own processes are no others."""
    return machine.others_at_work(spec.threads * spec.world_size)


def shares(this: Run) -> bool:
    """Whether other runs of the command take the device's time; a GPU is held by one at a time."""
    return this.context.jobs > 1 and this.device.type == "cpu"


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
