"""Plain steps that several processes take together, by `DistributedDataParallel`: each on its part of every batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reproduce.run.augmentation import normalise
from reproduce.run.batches import Batches, laid_out
from reproduce.run.distributed import Group
from reproduce.run.engine.plain import PlainStepper
from reproduce.run.losses import Loss
from reproduce.run.streams import noise_state, set_noise_state, stream_seed


class WithLoss(nn.Module):
    """A network up to its loss, for a loss may use more of it than its forward pass."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(self.model, images, labels)


class SharedStepper(PlainStepper):
    """What every process of a group does. Weights, optimiser and `sums` are the same in all; `sums` are of all images.

    Batch norm counts by process unless the group says otherwise; its running statistics are the first process's.
    """

    def __init__(self, model: nn.Module, *arguments: Any, group: Group, **named: Any) -> None:
        super().__init__(group.prepared(model), *arguments, **named)
        self.group = group
        self.whole = DistributedDataParallel(WithLoss(model, self.loss))
        self.loss = lambda _, images, labels: self.whole(images, labels)
        self.noise: list[list[Tensor]] = []  # by process, where an interrupted epoch goes on
        self.rehearse()

    def rehearse(self) -> None:
        """A forward and a backward pass without a trace.

        After its first ones DDP orders its buckets anew, and rounding with them. So the first step of a run, and the
        first one after an interruption, would not be rounded as the others are.
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            images = laid_out(normalise(self.split.images[:2], self.recipe.normalisation))
            super().backward(self.forward(images.contiguous(memory_format=self.layout), self.split.labels[:2])[0])
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)

    def batches(self, augmentation_rng: Tensor | None) -> Batches:
        batches = super().batches(augmentation_rng)
        batches.part = self.group.part
        return batches

    def start_epoch(
        self, epoch: int, *, skip: int = 0, augmentation_rng: Tensor | None = None, factor: float = 1.0
    ) -> None:
        """Noise, such as dropout's, is another in each process; the first one's is that of a run alone."""
        super().start_epoch(epoch, skip=skip, augmentation_rng=augmentation_rng, factor=factor)
        if skip:
            set_noise_state(self.noise[self.group.rank])
        elif self.group.rank:
            torch.manual_seed(stream_seed(self.seed, "noise", epoch + 1, self.group.rank))

    def _step(self) -> None:
        super()._step()
        if self.done == self.steps:
            self.group.check(list(self.model.parameters()), "weights")

    def backward(self, loss: Tensor) -> None:
        """DDP takes the mean over processes of gradients of means: parts of unequal size must not count alike."""
        images = min(self.recipe.batch_size, len(self.split) - self.done * self.recipe.batch_size)
        part = self.group.part(images)
        super().backward(loss * (self.group.size * (part.stop - part.start) / images))

    def count(self, found: Tensor) -> None:
        super().count(self.group.total(found))

    def extra(self) -> dict[str, Any]:
        return {"noise": self.group.gathered(noise_state(self.device))}

    def load(self, optimizer: dict[str, Any], sums: Tensor, extra: dict[str, Any]) -> None:
        super().load(optimizer, sums, extra)
        self.noise = extra["noise"]
