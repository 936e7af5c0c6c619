"""What both engines share: which epoch and step it is, batches, rates by step, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reproduce.run.batches import Batches, memory_format, steps_per_epoch
from reproduce.run.losses import make_loss
from reproduce.run.optimizers import make_optimizer
from reproduce.run.schedules import schedule
from reproduce.run.splits import Split
from reproduce.specs import Precision, Recipe

Lap = Callable[[str], None]


def no_lap(part: str) -> None:
    """No one holds a watch."""


class Base:
    """A network in training. Subclasses say what a step does, in `_step`."""

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        precision: Precision,
        lap: Lap,
    ) -> None:
        self.model, self.split, self.recipe, self.seed = model, split, recipe, seed
        self.device, self.precision, self.lap = device, precision, lap
        self.layout = memory_format(device, precision)
        self.steps = steps_per_epoch(len(split), recipe.batch_size, drop_last=recipe.drop_last)
        self.optimizer = make_optimizer(model, recipe)
        factors = [group["lr_factor"] for group in self.optimizer.param_groups]
        self.schedules = [schedule(recipe, self.steps, lr_factor=factor) for factor in factors]
        self.loss = make_loss(recipe)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.epoch, self.done, self.factor = 0, self.steps, 1.0  # no epoch is under way

    def step(self) -> None:
        """The next batch. Raises `RuntimeError` after the last one of the epoch."""
        self.ready()
        self._step()

    def ready(self) -> None:
        """Raises `RuntimeError` unless there is a next batch."""
        if self.done == self.steps:
            raise RuntimeError("the epoch is over, or none was started; call start_epoch")

    def _step(self) -> None:
        raise NotImplementedError

    @property
    def settled(self) -> bool:
        """Whether every step that was taken counts; none will be taken anew."""
        return True

    def extra(self) -> dict[str, Any]:
        """What else has to be saved to go on, beside weights, optimiser and sums."""
        return {}

    @property
    def lr(self) -> float:
        """The rate of the step before, of the last parameter group."""
        return self.rates(self.done - 1)[-1]

    def rates(self, step: int) -> list[float]:
        """The learning rate of each parameter group in a step of the epoch."""
        return [self.factor * rate(self.epoch * self.steps + step) for rate in self.schedules]

    def begin(self, epoch: int, skip: int, factor: float) -> None:
        self.epoch, self.done, self.factor = epoch, skip, factor
        if not skip:
            self.sums.zero_()
        self.model.train()

    def batches(self, augmentation_rng: Tensor | None) -> Batches:
        """What is left of the epoch under way."""
        return Batches(
            split=self.split,
            seed=self.seed,
            stream=(),
            epoch=self.epoch + 1,
            batch_size=self.recipe.batch_size,
            augmentation=self.recipe.augmentation,
            normalisation=self.recipe.normalisation,
            drop_last=self.recipe.drop_last,
            skip=self.done,
            augmentation_rng=augmentation_rng,
        )

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the class scores. Under bf16 the weights and what batch norm counts stay float32."""
        # Each weight is cast once in a forward pass, so a cache of casts would save nothing.
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            return self.loss(self.model, images, labels)
