"""Spec and seed -> record: the stages in order, resumable at any moment, and everything that a record says about a run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import effconv
from reproduce.errors import Interrupted, UserError
from reproduce.records import Clock, DataOrigin, KernelPicture, Outcome, Params, RunRecord, StageClock
from reproduce.run import machine, models
from reproduce.run.batches import steps_per_epoch
from reproduce.run.datasets import Dataset, Split, load
from reproduce.run.progress import Progress
from reproduce.run.resume import Notes, Slot, clear, locked, write_synced
from reproduce.run.size_learning import Learned, learn, resized
from reproduce.run.streams import stream_seed
from reproduce.run.training import TrainingResult, train
from reproduce.specs import PROTOCOL_VERSION, DataSpec, RunSpec
from reproduce.store import Store


FOLDERS = re.compile(r"(?<![\w.])(?:/[\w.+~-]+)+/")  # the folders of an absolute path


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a run finds and leaves things, and who may stop it."""

    store: Store
    data_root: Path | None
    cache: Path | None
    download: bool
    device: str
    keep_weights: bool
    jobs: int = 1
    save_every: float = 120.0  # seconds between saves of the resume state, which each epoch's end saves too
    progress: Progress
    stop: Callable[[], bool]
    retry: bool = False  # run again what failed or diverged


@dataclass
class Shelf:
    """The data set that was loaded last, on its device: runs that follow each other often share it."""

    key: tuple[DataSpec, torch.device] | None = None
    dataset: Dataset | None = None

    def get(self, spec: DataSpec, device: torch.device, context: Context) -> Dataset:
        if self.dataset is None or self.key != (spec, device):
            self.dataset = None  # let the old one go first
            found = load(spec, data_root=context.data_root, cache=context.cache, download=context.download)
            train, test = on(found.train, device), on(found.test, device)
            self.dataset = Dataset(name=found.name, train=train, test=test, origin=found.origin)
            self.key = (spec, device)
        return self.dataset


def on(split: Split, device: torch.device) -> Split:
    return Split(images=split.images.to(device), labels=split.labels.to(device))


@dataclass(kw_only=True)
class Result:
    """What the stages gave, as far as they came."""

    outcome: Outcome
    params: Params
    learned: Learned | None = None
    trained: TrainingResult | None = None
    network: nn.Module | None = None


@dataclass(kw_only=True)
class Run:
    """One run under way: what both stages and the record need to know."""

    spec: RunSpec
    seed: int
    context: Context
    device: torch.device
    folder: Path
    dataset: Dataset
    began: dict[str, Any] = field(default_factory=dict)


def run(
    spec: RunSpec, seed: int, context: Context, *, name: str | None = None, shelf: Shelf | None = None
) -> RunRecord:
    """The record of this spec and seed: found, or computed and written.

    A record that is there is returned at once; one that failed or diverged too, unless `context.retry`. Raises
    `Interrupted` when `context.stop()` is true, with all state saved, and `UserError` for what a user can mend.
    """
    store = context.store
    found = finished(spec, seed, context)
    if found is not None:
        return found
    problem = store.blocked(spec, seed)
    if problem is not None:
        raise UserError(problem)  # now, not when the record is to be written
    device = machine.choose_device(context.device)
    folder = store.resume_dir(spec, seed)
    label = name or f"{spec.model.family} seed {seed}"
    with machine.settings(spec.threads), locked(folder):
        dataset = (shelf or Shelf()).get(spec.data, device, context)
        this = Run(spec=spec, seed=seed, context=context, device=device, folder=folder, dataset=dataset)
        context.progress.run(label, work(this))
        record = carry_out(this)
        clear(folder)
    context.progress.done(label, summary(record))
    return record


def finished(spec: RunSpec, seed: int, context: Context) -> RunRecord | None:
    """A record that makes the run unnecessary."""
    found = context.store.find(spec, seed)
    return None if found is not None and context.retry and found.outcome.status != "finished" else found


def work(this: Run) -> dict[str, int]:
    """Steps of each stage, for the time left."""
    images, spec = len(this.dataset.train), this.spec
    steps = steps_per_epoch(images, spec.training.batch_size, drop_last=spec.training.drop_last)
    planned = {"training": spec.training.epochs * steps}
    if spec.size_learning is not None:
        planned["sizes"] = spec.size_learning.epochs * steps_per_epoch(images, spec.size_learning.batch_size)
    return planned


def summary(record: RunRecord) -> str:
    if record.metrics is None:
        return f"{record.outcome.status}: {record.outcome.reason}"
    return f"top-1 {record.metrics.last.top1:.2f} % in {len(record.clock.training.epoch_seconds)} epochs"


def carry_out(this: Run) -> RunRecord:
    """Both stages, the record and, if asked for, the weights. The record is written last."""
    notes = Notes(this.folder / "run.json")
    before = notes.load()
    busy = this.context.jobs > 1 or machine.others_at_work(this.spec.threads)
    this.began = {
        "started": before.get("started", now()),
        "resumed": before["resumed"] + 1 if before else 0,
        "shared": bool(before.get("shared")) or busy,
    }
    notes.save(this.began)
    result = guarded(this)
    this.began["shared"] = this.began["shared"] or machine.others_at_work(this.spec.threads)
    record = record_of(this, result)
    if this.context.keep_weights and result.network is not None:
        save_weights(this.context.store.weights_path(this.spec, this.seed), result.network)
    this.context.store.write(record)
    return record


def guarded(this: Run) -> Result:
    """The stages; what goes wrong inside them becomes an outcome, what a user can mend stays an error."""
    untrained = models.build(this.spec.model, this.spec.data.name, 0)
    params = params_of(untrained, this.spec, learned=this.spec.size_learning is None)
    try:
        return stages(this)
    except (Interrupted, UserError, OSError):
        raise
    except effconv.DivergedError as error:
        return Result(outcome=Outcome(status="diverged", reason=f"size learning: {one_reason(error)}"), params=params)
    except Exception as error:
        return Result(outcome=Outcome(status="failed", reason=one_reason(error)), params=params)


def stages(this: Run) -> Result:
    """Size learning, if the spec has it, and training."""
    spec, seed, context = this.spec, this.seed, this.context
    learned = None
    if spec.size_learning is not None:
        learned = learn(
            spec,
            seed,
            this.dataset,
            device=this.device,
            folder=this.folder,
            every=context.save_every,
            progress=context.progress,
            stop=context.stop,
        )
        network = resized(spec, seed, learned.sizes)
    else:
        network = models.build(spec.model, spec.data.name, stream_seed(seed, "initialisation"))
    trained = train(
        network,
        this.dataset,
        spec.training,
        seed=seed,
        device=this.device,
        resume=Slot(this.folder / "training.pt", every=context.save_every),
        progress=context.progress,
        stop=context.stop,
    )
    outcome = Outcome(status="diverged" if trained.diverged else "finished", reason=trained.diverged)
    params = params_of(network, spec)
    return Result(outcome=outcome, params=params, learned=learned, trained=trained, network=network)


def params_of(network: nn.Module, spec: RunSpec, *, learned: bool = True) -> Params:
    """Eq. 3 is open as long as the sizes are not learned."""
    return Params(eq3=models.eq3_count(network, spec.model) if learned else None, total=models.total_count(network))


def record_of(this: Run, result: Result) -> RunRecord:
    spec, seed, learned, trained = this.spec, this.seed, result.learned, result.trained
    history = {"training": trained.history} if trained else {}
    if learned:
        history["size_learning"] = learned.history
    bare = RunRecord(
        protocol_version=PROTOCOL_VERSION,
        spec_id=spec.spec_id,
        run_id=spec.run_id(seed),
        spec=spec,
        seed=seed,
        outcome=result.outcome,
        metrics=trained.metrics if trained else None,
        correct_bits=trained.correct_bits if trained else None,
        sizes=learned.sizes if learned else None,
        snapped=learned.snapped if learned else None,
        params=result.params,
        history=history,
        kernels=kernel_pictures(this, result),
        clock=clock_of(this, result),
        machine=this.context.store.write_machine(machine.description()),
        data=DataOrigin(**this.dataset.origin.model_dump()),
        code=code(),
    )
    return bare.model_copy(update={"digest": bare.computed_digest()})


def clock_of(this: Run, result: Result) -> Clock:
    return Clock(
        started=this.began["started"],
        finished=now(),
        size_learning=result.learned.clock if result.learned else None,
        training=result.trained.clock if result.trained else StageClock(epoch_seconds=[]),
        shared_device=this.began["shared"],
        resumed=this.began["resumed"],
    )


def kernel_pictures(this: Run, result: Result) -> list[KernelPicture]:
    """Figure 2: of each learned layer, one kernel and the mean absolute weight of each tap, after training."""
    if result.network is None or result.learned is None or result.outcome.status != "finished":
        return []
    return [
        KernelPicture(
            layer=layer,
            size=conv.kernel_size[0],
            kernel=conv.weight[0, 0].tolist(),
            mean_abs=conv.weight.abs().mean(dim=(0, 1)).tolist(),
        )
        for layer, conv in models.residual_convs(result.network, this.spec.model).items()
    ]


def one_reason(error: Exception) -> str:
    """The error's kind and first line, without the folders of any path in it."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {FOLDERS.sub('', first)}"


def code() -> dict[str, Any]:
    """Which commit this is, and whether files were changed since; "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = git("rev-parse", "HEAD", cwd=here)
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no", cwd=here))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": None}


def git(*arguments: str, cwd: Path) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def save_weights(path: Path, network: nn.Module) -> None:
    """The state dict, on the CPU and contiguous, beside the record. May raise `OSError`."""
    import io
    import os

    buffer = io.BytesIO()
    torch.save({key: value.cpu().contiguous() for key, value in network.state_dict().items()}, buffer)
    temporary = path.with_name(path.name + ".tmp")
    write_synced(temporary, buffer.getvalue())
    os.replace(temporary, path)
