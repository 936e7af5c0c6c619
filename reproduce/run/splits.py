"""A split: images and labels as tensors, put together from parts, checked, and cut to a class-balanced subset."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reproduce.errors import UserError
from reproduce.specs import DatasetFacts

Progress = Callable[[int, int], None]  # called with (done, total)


def tell(progress: Progress | None, done: int, total: int) -> None:
    """Calls `progress` now and then, and at the end."""
    if progress is not None and (done % 500 == 0 or done == total):
        progress(done, total)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """images: (N, C, H, W) uint8; labels: (N,) int64, from 0."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def assemble(
    images: list[NDArray[np.uint8]], labels: list[NDArray[np.int64]], facts: DatasetFacts, where: str
) -> Split:
    """Joins parts, images each (n, C, H, W). Empties `images` on the way: memory holds them hardly more than once.

    Raises `UserError` when there are none, when labels and images differ in number or a label is no class.
    """
    classes = np.concatenate(labels) if labels else np.empty(0, np.int64)
    total = sum(len(part) for part in images)
    if total == 0:
        raise UserError(f"{where} holds no images; give the folder of {facts.title} with --data-root DIR")
    if total != len(classes):
        raise UserError(f"{where}: {total:,} images but {len(classes):,} labels; fetch the files again with --download")
    check_labels(classes, facts, where)
    joined = images.pop() if len(images) == 1 else np.empty((total, *images[0].shape[1:]), np.uint8)
    end = total
    while images:
        part = images.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    return Split(images=torch.from_numpy(joined), labels=torch.from_numpy(classes))


def off_heap(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy in memory of its own, given back the moment it is dropped; malloc would keep blocks of a batch's 31 MB."""
    copy = np.frombuffer(mmap.mmap(-1, max(images.size, 1)), np.uint8, images.size).reshape(images.shape)
    copy[...] = images
    return copy


def check_labels(labels: NDArray[np.int64], facts: DatasetFacts, where: str) -> None:
    """Raises `UserError` unless every label is in 0 .. classes - 1."""
    wrong = labels[(labels < 0) | (labels >= facts.num_classes)]
    if len(wrong):
        raise UserError(
            f"{where} has a label {int(wrong[0])} outside the {facts.num_classes} classes of {facts.title}; "
            "the file is damaged or another data set's: fetch it again with --download"
        )


def balanced(split: Split, count: int | None, num_classes: int, where: str) -> Split:
    """The first images of each class, `count` in all, in file order; the first classes get one more if need be.

    None, and as many as there are, keep everything. Raises `UserError` when there are too few, of all or of a class.
    """
    if count is None or count == len(split):
        return split
    if not 0 < count <= len(split):
        raise UserError(f"{where} holds {len(split):,} images, {count:,} were asked for; ask for at most that many")
    quota = torch.full((num_classes,), count // num_classes)
    quota[: count % num_classes] += 1
    held = torch.bincount(split.labels, minlength=num_classes)
    short = (held < quota).nonzero().flatten().tolist()
    if short:
        raise UserError(
            f"{where}: class {short[0]} has {int(held[short[0]]):,} images, {int(quota[short[0]]):,} are needed for "
            f"{count:,} class-balanced ones; ask for at most {most_balanced(held):,}"
        )
    kept = (rank_in_class(split.labels) < quota[split.labels]).nonzero().flatten()
    return Split(images=split.images[kept], labels=split.labels[kept])


def rank_in_class(labels: Tensor) -> Tensor:
    """labels: (N,) -> (N,) how many earlier images have the same label."""
    order = torch.sort(labels, stable=True).indices
    counts = torch.bincount(labels)
    firsts = torch.cumsum(counts, 0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - firsts[labels[order]]
    return ranks


def most_balanced(held: Tensor) -> int:
    """held: (classes,) images a class -> the largest class-balanced number."""
    fewest = int(held.min())
    more = (held <= fewest).nonzero().flatten()  # the first class that cannot give one more
    return fewest * len(held) + int(more[0])
