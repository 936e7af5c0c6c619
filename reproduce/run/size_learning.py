"""Stage 1 of a run: what a spec says about size learning, as one resumable call of `effconv`; and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import effconv
from reproduce.errors import UserError
from reproduce.phases import phase
from reproduce.records import Snapped, StageClock
from reproduce.run.batches import steps_per_epoch
from reproduce.run.datasets import Dataset
from reproduce.run.distributed import Group, SharedNotes, SharedSlot
from reproduce.run.models import build, family, residual_convs, seeded
from reproduce.run.outcome import Watcher, rounded, thinned
from reproduce.run.resume import Notes, Slot
from reproduce.run.size_controls import Course, without_images
from reproduce.run.size_steps import Epochs, Follower, shuffled
from reproduce.run.streams import stream_seed
from reproduce.size_records import SizeSpec
from reproduce.specs import RunSpec, SizeLearning

HISTORY_POINTS = 50  # each holds four numbers a layer


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What stage 1 gave."""

    sizes: dict[str, int]
    snapped: Snapped
    history: list[dict[str, Any]]
    clock: StageClock


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
    group: Group | None = None,
) -> Learned:
    """Learn the sizes of a spec's network. Resume state lies in `folder`; a finished stage is read from there.

    `group`: the processes that all call this alike and share every step; the first one reads and writes for all.
    Raises `Interrupted` when `stop()` is true, after saving; `effconv.DivergedError`; `UserError` for a budget out of
    reach.
    """
    learning = spec.size_learning
    assert learning is not None
    done = notes_of(folder / "sizes.json", group)
    found = done.load()
    if not {"sizes", "snapped", "history", "clock"} <= found.keys():
        steps = steps_per_epoch(len(dataset.train), learning.batch_size)
        if learning.source == "data":
            split = dataset.train if learning.labels == "true" else shuffled(dataset.train, seed)
            epochs = Epochs(split=split, seed=seed, learning=learning, normalisation=spec.training.normalisation)
            notes = notes_of(folder / "size_learning.json", group)
            follower = Follower(epochs=epochs, steps=steps, notes=notes, every=every, progress=progress, stop=stop)
            checkpoint = folder / "size_learning.pt"
            result = call(spec, seed, epochs, follower, device=device, checkpoint=checkpoint, group=group)
            clock = follower.clock()
        else:
            course = Course(epochs=learning.epochs, steps=steps, progress=progress, stop=stop)
            result, clock = without_images(spec, seed, settings(learning, seed), readings(learning), course)
        found = {
            "sizes": result.sizes,
            "snapped": {key: value for key, value in asdict(result.snapped).items() if key != "sizes"},
            "history": [rounded(point) for point in thinned(result.history, HISTORY_POINTS)],
            "clock": clock.model_dump(),
        }
        phase("snap")
        done.save(found)
    return Learned(
        sizes=found["sizes"],
        snapped=Snapped(**found["snapped"]),
        history=found["history"],
        clock=StageClock(**found["clock"]),
    )


def call(
    spec: RunSpec | SizeSpec,
    seed: int,
    epochs: Epochs,
    follower: Follower,
    *,
    device: torch.device,
    checkpoint: Path,
    planted: float = 0.0,
    group: Group | None = None,
) -> effconv.KernelSizes:
    """The call of the library. Its budget and input errors become lines for the user.

    planted: a constant added to the gradient on every other layer's v and taken off that on the others'.
    """
    network = build(spec.model, spec.data.name, stream_seed(seed, "initialisation", "size_learning"))
    layers = list(residual_convs(network, spec.model))
    keeper = Slot(checkpoint, every=follower.every)
    if group is not None:
        epochs.part, follower.agree = group.part, group.agree
        network, keeper = group.prepared(network), SharedSlot(keeper, group)
    try:
        return effconv.learn_kernel_sizes(
            network,
            epochs,
            layers=layers,
            device=device,
            callback=follower,
            checkpoint=keeper,
            checkpoint_every=follower.every,
            readings=readings(epochs.learning),
            engine=spec.engine,
            autocast=autocast(spec),
            planted=[planted * (-1) ** index for index in range(len(layers))] if planted else None,
            peers=group,
            **asdict(settings(epochs.learning, seed)),
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def notes_of(path: Path, group: Group | None) -> Notes:
    return Notes(path) if group is None else SharedNotes(path, group)


def autocast(spec: RunSpec | SizeSpec) -> torch.dtype | None:
    """What the CNN computes in. The sizes' and kernels' predictors stay with float32."""
    return torch.bfloat16 if spec.precision == "bf16" else None


def settings(learning: SizeLearning, seed: int) -> effconv.Settings:
    """The numbers of a spec, and the seed of size learning's own stream."""
    return effconv.Settings(
        budget=learning.budget,
        epochs=learning.epochs,
        max_size=learning.max_size,
        lam=learning.lam,
        lr=learning.lr,
        kernel_lr=learning.kernel_lr,
        weight_decay=learning.weight_decay,
        tolerance=learning.tolerance,
        seed=stream_seed(seed, "size_learning"),
    )


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


def resized(spec: RunSpec, seed: int, sizes: dict[str, int]) -> nn.Module:
    """The plain network of these sizes, its weights drawn anew as the family does (step 10 of Algorithm 1)."""
    assert spec.size_learning is not None
    start = stream_seed(seed, "initialisation")
    network = build(spec.model, spec.data.name, start)
    with seeded(start):
        return effconv.resize(network, sizes, init=family(spec.model).init, padding=spec.size_learning.padding)
