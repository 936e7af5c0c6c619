"""Where the steps of the graph engine find their batches: tables that a counter on the device reads, or a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from reproduce.run.augmentation import DISTORTIONS, crop_padding, draw, normalise, padded
from reproduce.run.batches import Batches
from reproduce.run.splits import Split
from reproduce.specs import Recipe


class Source(Protocol):
    """Batches in two halves: what the host does before a step, and what the device does in it."""

    def start(self, batches: Batches) -> None:
        """Begin with what is left of this epoch."""

    def fetch(self) -> None:
        """Before a step, outside of any graph."""

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        """Within a step: images (n, C, H, W) float32, and labels (n,); the host sees none of them."""

    @property
    def augmentation_rng(self) -> Tensor | None:
        """As in `Batches`; None where the epoch's own start is enough."""


def make_source(split: Split, recipe: Recipe, counter: Tensor, layout: torch.memory_format) -> Source:
    """counter: (1,) int64 on the device, the step in the epoch."""
    return (Buffer if recipe.augmentation in DISTORTIONS else Tables)(split, recipe, counter, layout)


class Tables:
    """Order, flips and crops of a whole epoch, drawn before its first step exactly as `Batches` draws them.

    The images lie padded on the device, so a flipped and cropped batch is one gather: row i of an image's window is row
    `top + i` of the padded image, column j is column `first + direction * j`. Padding takes 1.6 times the memory.
    """

    augmentation_rng = None

    def __init__(self, split: Split, recipe: Recipe, counter: Tensor, layout: torch.memory_format) -> None:
        count, channels, height, width = split.images.shape
        self.labels, self.recipe, self.counter, self.layout = split.labels, recipe, counter, layout
        self.padding = 0 if recipe.augmentation == "none" else crop_padding(width)
        reflect = recipe.augmentation == "flip_crop_reflect"
        self.images = padded(split.images, self.padding, reflect=reflect) if self.padding else split.images
        if recipe.drop_last:
            count -= count % recipe.batch_size
        device = split.images.device
        self.table = torch.zeros(4, count, dtype=torch.int64, device=device)  # image, top, first, direction
        self.lines = torch.arange(recipe.batch_size, device=device)
        self.channels = torch.arange(channels, device=device).view(1, -1, 1, 1)
        self.rows, self.columns = torch.arange(height, device=device), torch.arange(width, device=device)

    def start(self, batches: Batches) -> None:
        """Always draws the whole epoch: a step's draws depend on those before."""
        order = batches.order()[: self.table.shape[1]]
        if not self.padding:
            self.table.copy_(torch.stack((order, 0 * order, 0 * order, 0 * order + 1)))
            return
        rng = batches.rng()
        drawn = [draw(len(part), self.padding, rng) for part in order.split(self.recipe.batch_size)]
        flips = torch.cat([chances for chances, _ in drawn]) < 0.5
        top, left = torch.cat([corners for _, corners in drawn], 1)
        last = self.images.shape[-1] - 1
        first = torch.where(flips, last - left, left)
        self.table.copy_(torch.stack((order, top, first, torch.where(flips, -1, 1))))

    def fetch(self) -> None:
        """The tables hold everything."""

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        places = torch.add(self.lines[:n], self.counter, alpha=self.recipe.batch_size)
        chosen = self.table.index_select(1, places)
        image, top, first, direction = chosen.unsqueeze(2)  # each (n, 1)
        rows, columns = top + self.rows, torch.addcmul(first, direction, self.columns)  # (n, H), (n, W)
        index = (image[:, :, None, None], self.channels, rows[:, None, :, None], columns[:, None, None, :])
        if self.layout == torch.channels_last:  # gathered in the order in which they are to lie
            pixels = self.images[tuple(part.movedim(1, 3) for part in index)].movedim(3, 1)
        else:
            pixels = self.images[index]
        return normalise(pixels, self.recipe.normalisation), self.labels.index_select(0, chosen[0])


class Buffer:
    """Plain batches, copied before each step to where the step looks: for distortions, which are many operations."""

    def __init__(self, split: Split, recipe: Recipe, counter: Tensor, layout: torch.memory_format) -> None:
        shape = (recipe.batch_size, *split.images.shape[1:])
        self.images = torch.zeros(shape, device=split.images.device).contiguous(memory_format=layout)
        self.labels = torch.zeros(recipe.batch_size, dtype=torch.int64, device=split.images.device)

    def start(self, batches: Batches) -> None:
        self.batches = batches
        self.to_come: Iterator[tuple[Tensor, Tensor]] = iter(batches)

    def fetch(self) -> None:
        images, labels = next(self.to_come)
        self.images[: len(labels)].copy_(images)
        self.labels[: len(labels)].copy_(labels)

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        return self.images[:n], self.labels[:n]

    @property
    def augmentation_rng(self) -> Tensor | None:
        return self.batches.augmentation_rng
