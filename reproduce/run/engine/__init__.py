"""The engine of training: what takes its steps, one operation after the other or as graphs of whole steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from baselines.kernel_network import KernelNetwork
from reproduce.errors import UserError
from reproduce.run.batches import memory_format
from reproduce.run.distributed import Group
from reproduce.run.engine.base import Lap, no_lap
from reproduce.run.engine.graph import GraphStepper
from reproduce.run.engine.plain import PlainStepper
from reproduce.run.engine.shared import SharedStepper
from reproduce.run.engine.together import Together
from reproduce.run.engine.windows import WindowStepper, has_moving_crops
from reproduce.run.machine import check_precision
from reproduce.run.splits import Split
from reproduce.specs import Engine, Precision, Recipe

__all__ = ["Lap", "Stepper", "Together", "make_stepper", "make_together", "needs_host", "no_lap"]


class Stepper(Protocol):
    """What a training loop calls, and what it has to save. A look at `sums` waits for the device."""

    steps: int  # in an epoch
    optimizer: torch.optim.Optimizer
    sums: Tensor  # (3,) float64 on the device, over the epoch: loss, correct, images

    @property
    def settled(self) -> bool:
        """Whether every step that was taken counts; none will be taken anew."""

    @property
    def lr(self) -> float:
        """The rate of the step before, of the last parameter group."""

    @property
    def augmentation_rng(self) -> Tensor | None:
        """What `start_epoch` needs, together with `skip`, to go on from here."""

    def start_epoch(
        self, epoch: int, *, skip: int = 0, augmentation_rng: Tensor | None = None, factor: float = 1.0
    ) -> None:
        """Epoch from 0, after its first `skip` steps; then `sums` stay. All rates are multiplied by `factor`."""

    def step(self) -> None:
        """The next batch: data, schedule, forward, backward, update, sums. Raises `RuntimeError` after the last one."""

    def extra(self) -> dict[str, Any]:
        """What else has to be saved to go on, beside weights, optimiser and sums."""

    def load(self, optimizer: dict[str, Any], sums: Tensor, extra: dict[str, Any]) -> None:
        """Take over saved state; the weights are the caller's to load. Raises `KeyError` for too little `extra`."""


def make_stepper(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    engine: Engine = "plain",
    precision: Precision = "float32",
    lap: Lap = no_lap,
    group: Group | None = None,
) -> Stepper:
    """Trains `model`, which is moved to `device` in place, on `split`, which lies there, by the steps of an engine.

    `lap` is called after each part with its name: `data`, `schedule`, `forward`, `backward`, `optimizer` and
    `bookkeeping` by the plain engine; `tables`, `capture` (once) and `steps` by the graph engine, and `look` where
    crops move, which may be followed by a `capture`. "tf32" also needs `machine.settings`. `group`: the processes that
    share every step, each with all images at hand. Raises `UserError` for fewer images than one batch, for another
    precision than float32 on the CPU, and under "graph" for a group or a network that asks the host within a step.
    """
    check_precision(device, precision)
    moving = has_moving_crops(model)
    if engine == "graph" and needs_host(model) and not moving:
        raise UserError(f"{type(model).__name__} asks the host within a step; run it with --engine plain")
    if group is not None and engine == "graph":
        raise UserError("several processes cannot share the steps of a graph; run with --engine plain")
    if len(split) < (recipe.batch_size if recipe.drop_last else 1):
        raise UserError(f"{len(split)} training images are less than one batch of {recipe.batch_size}; take more")
    model.to(device=device, memory_format=memory_format(device, precision))  # type: ignore[call-overload]
    if engine == "graph" and isinstance(model, KernelNetwork):
        model.fuse(True)
    kind: Callable[..., Stepper] = PlainStepper
    if engine == "graph":
        kind = WindowStepper if moving else GraphStepper
    elif group is not None:
        kind = partial(SharedStepper, group=group)
    return kind(model, split, recipe, seed=seed, device=device, precision=precision, lap=lap)


def make_together(
    models: Sequence[nn.Module],
    split: Split,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    device: torch.device,
    precision: Precision = "float32",
    lap: Lap = no_lap,
) -> Together:
    """Trains several networks side by side by the steps of the graph engine, one for each seed, as `make_stepper`.

    Raises `UserError` for what that cannot do, and for kernels whose sizes move: a new window of one network would have
    all of them captured anew.
    """
    if any(has_moving_crops(model) for model in models):
        raise UserError("kernels whose sizes move cannot be trained side by side; hold them, or train one at a time")
    steppers = [
        make_stepper(model, split, recipe, seed=seed, device=device, engine="graph", precision=precision)
        for model, seed in zip(models, seeds, strict=True)
    ]
    return Together([stepper for stepper in steppers if isinstance(stepper, GraphStepper)], lap=lap)


def needs_host(model: nn.Module) -> bool:
    """Whether a module says, by a true attribute `needs_host`, that its forward pass reads values from the device."""
    return any(getattr(module, "needs_host", False) for module in model.modules())
