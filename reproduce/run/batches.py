"""Batches of one epoch, made on the device from uint8 tensors; seed, stream and epoch decide them, from any on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reproduce.run.augmentation import augment, normalise
from reproduce.run.datasets import Split
from reproduce.run.streams import generator
from reproduce.specs import Precision


@dataclass(kw_only=True)
class Batches:
    """Every image of a split once, in the order that seed, stream and epoch give, augmented and normalised.

    Yields (images (B, C, H, W) float32, labels (B,) int64), from the batch after the first `skip`. `augmentation_rng`
    is the state of the augmentation's generator after the last batch; given to another `Batches` together with `skip`
    it goes on from there. `part`: which images of a batch of so many this process is to see; order and augmentation are
    drawn for all of them, so that the parts of all processes are the batch of one.
    """

    split: Split
    seed: int
    stream: tuple[str, ...]
    epoch: int  # from 1
    batch_size: int
    augmentation: str
    normalisation: str
    drop_last: bool = False
    skip: int = 0
    augmentation_rng: Tensor | None = None
    part: Callable[[int], slice] | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng, order = self.rng(), self.order()
        if self.augmentation_rng is not None:
            rng.set_state(self.augmentation_rng.cpu())
        for step in range(self.skip, steps_per_epoch(len(order), self.batch_size, drop_last=self.drop_last)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = augment(self.split.images.index_select(0, chosen), self.augmentation, rng)
            self.augmentation_rng = rng.get_state()
            if self.part is not None:
                own = self.part(len(chosen))
                images, chosen = images[own], chosen[own]
            yield laid_out(normalise(images, self.normalisation)), self.split.labels.index_select(0, chosen)

    def order(self) -> Tensor:
        """(N,) int64, on the device: which image comes when."""
        order = torch.randperm(len(self.split), generator=generator(self.seed, *self.stream, "order", self.epoch))
        return order.to(self.split.images.device)

    def rng(self) -> torch.Generator:
        """The augmentation's generator, on the device, at the start of the epoch."""
        device = self.split.images.device
        return generator(self.seed, *self.stream, "augmentation", self.epoch, device=device)


def steps_per_epoch(images: int, batch_size: int, *, drop_last: bool = False) -> int:
    """The last partial batch counts unless it is dropped."""
    return images // batch_size if drop_last else math.ceil(images / batch_size)


def memory_format(device: torch.device, precision: Precision = "float32") -> torch.memory_format:
    """Channels last on the CPU, where it makes a training step 12 to 20 % faster (ResNet-20, -44; one thread).

    Also on CUDA below float32: tensor cores read the channels of a pixel together.
    """
    return torch.channels_last if device.type == "cpu" or precision != "float32" else torch.contiguous_format


def laid_out(images: Tensor) -> Tensor:
    """The same images in the memory format of their device."""
    return images.contiguous(memory_format=memory_format(images.device))
