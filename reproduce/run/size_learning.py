"""Stage 1 of a run: what a spec says about size learning, as one resumable call of `effconv`; and the network that it gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effconv
from reproduce.errors import Interrupted, UserError
from reproduce.records import Snapped, StageClock
from reproduce.run.batches import Batches, steps_per_epoch
from reproduce.run.datasets import Dataset, Split
from reproduce.run.models import build, family, residual_convs, seeded
from reproduce.run.resume import Notes
from reproduce.run.streams import generator, stream_seed
from reproduce.run.training import Watcher, thinned
from reproduce.specs import RunSpec, SizeLearning

HISTORY_POINTS = 50  # each holds four numbers a layer
DIGITS = 5  # significant, in the history


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What stage 1 gave."""

    sizes: dict[str, int]
    snapped: Snapped
    history: list[dict[str, Any]]
    clock: StageClock


@dataclass(kw_only=True)
class Epochs:
    """The batches of stage 1: called once for each epoch. Notes when a batch is asked for, which starts a step's time."""

    split: Split
    seed: int
    learning: SizeLearning
    normalisation: str
    epoch: int = 0
    asked: float = 0.0

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        return self.timed(
            Batches(
                split=self.split,
                seed=self.seed,
                stream=("size_learning",),
                epoch=self.epoch,
                batch_size=self.learning.batch_size,
                augmentation=self.learning.augmentation,
                normalisation=self.normalisation,
            )
        )

    def timed(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        opened = iter(batches)
        while True:
            self.asked = time.perf_counter()
            batch = next(opened, None)
            if batch is None:
                return
            yield batch


@dataclass(kw_only=True)
class Follower:
    """Hears of every step: keeps the time, tells the watcher, stops when asked.

    The time of an epoch is the mean over the steps that were timed, times all its steps: an interruption may lose the
    times of a few, or time a few twice.
    """

    epochs: Epochs
    steps: int  # an epoch
    notes: Notes
    every: float
    progress: Watcher
    stop: Callable[[], bool]
    timed: list[list[float]] = field(default_factory=list)  # by epoch: steps, seconds
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.timed = self.notes.load().get("timed", [])

    def __call__(self, step: effconv.Step) -> None:
        while len(self.timed) < step.epoch:
            self.timed.append([0, 0.0])
        entry = self.timed[step.epoch - 1]
        entry[0] += 1
        entry[1] += time.perf_counter() - self.epochs.asked
        self.progress.update(
            "sizes", step.epoch, step.epochs, step.step, self.steps, step.loss, None, step.budget_error
        )
        stopping = self.stop()
        if stopping or step.step == self.steps or time.monotonic() - self.saved_at >= self.every:
            self.notes.save({"timed": self.timed})
            self.saved_at = time.monotonic()
        if stopping:
            raise Interrupted  # size learning saves its own state at this step before it passes this on

    def clock(self) -> StageClock:
        return StageClock(epoch_seconds=[seconds / max(1, steps) * self.steps for steps, seconds in self.timed])


def learn(
    spec: RunSpec,
    seed: int,
    dataset: Dataset,
    *,
    device: torch.device,
    folder: Path,
    every: float,
    progress: Watcher,
    stop: Callable[[], bool],
) -> Learned:
    """Learn the sizes of a spec's network. Resume state lies in `folder`; a finished stage is read from there.

    Raises `Interrupted` when `stop()` is true, after saving; `effconv.DivergedError`; `UserError` for a budget out of reach.
    """
    learning = spec.size_learning
    assert learning is not None
    done = Notes(folder / "sizes.json")
    found = done.load()
    if not found:
        network = build(spec.model, spec.data.name, stream_seed(seed, "initialisation", "size_learning"))
        split = dataset.train if learning.labels == "true" else shuffled(dataset.train, seed)
        epochs = Epochs(split=split, seed=seed, learning=learning, normalisation=spec.training.normalisation)
        steps = steps_per_epoch(len(split.labels), learning.batch_size)
        notes = Notes(folder / "size_learning.json")
        follower = Follower(epochs=epochs, steps=steps, notes=notes, every=every, progress=progress, stop=stop)
        result = call(spec, seed, network, epochs, follower, device=device, checkpoint=folder / "size_learning.pt")
        found = {
            "sizes": result.sizes,
            "snapped": {key: value for key, value in asdict(result.snapped).items() if key != "sizes"},
            "history": [rounded(point) for point in thinned(result.history, HISTORY_POINTS)],
            "clock": follower.clock().model_dump(),
        }
        done.save(found)
    return Learned(
        sizes=found["sizes"],
        snapped=Snapped(**found["snapped"]),
        history=found["history"],
        clock=StageClock(**found["clock"]),
    )


def call(
    spec: RunSpec,
    seed: int,
    network: nn.Module,
    epochs: Epochs,
    follower: Follower,
    *,
    device: torch.device,
    checkpoint: Path,
) -> effconv.KernelSizes:
    """The call of the library. Its budget and input errors become lines for the user."""
    learning = epochs.learning
    try:
        return effconv.learn_kernel_sizes(
            network,
            epochs,
            budget=learning.budget,
            epochs=learning.epochs,
            layers=list(residual_convs(network, spec.model)),
            max_size=learning.max_size,
            device=device,
            seed=stream_seed(seed, "size_learning"),
            callback=follower,
            checkpoint=checkpoint,
            checkpoint_every=follower.every,
            readings=readings(learning),
            lam=learning.lam,
            lr=learning.lr,
            kernel_lr=learning.kernel_lr,
            weight_decay=learning.weight_decay,
            tolerance=learning.tolerance,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def readings(learning: SizeLearning) -> effconv.Readings:
    """The named readings of a spec."""
    return effconv.Readings(
        size_predictor=learning.size_predictor,
        kernel_predictor=learning.kernel_predictor,
        budget_value=learning.budget_value,
        budget_scope=learning.budget_scope,
        readout=learning.readout,
        mask_centre=learning.mask_centre,
        mask_denominator=learning.mask_denominator,
        padding=learning.padding,
    )


def shuffled(split: Split, seed: int) -> Split:
    """The same images under a permutation of all labels: a control that keeps the classes' counts."""
    order = torch.randperm(len(split.labels), generator=generator(seed, "shuffled_labels"))
    return Split(images=split.images, labels=split.labels[order.to(split.labels.device)])


def rounded(value: Any) -> Any:
    """Floats to a few significant digits, at any depth: a history is for curves."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def resized(spec: RunSpec, seed: int, sizes: dict[str, int]) -> nn.Module:
    """The plain network of these sizes, its weights drawn anew as the family does (step 10 of Algorithm 1)."""
    assert spec.size_learning is not None
    start = stream_seed(seed, "initialisation")
    network = build(spec.model, spec.data.name, start)
    with seeded(start):
        return effconv.resize(network, sizes, init=family(spec.model).init, padding=spec.size_learning.padding)
