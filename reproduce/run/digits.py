"""The digits that come with scikit-learn, in the shape of any data set: for smoke tests without files."""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduce.records import DataFile, DataOrigin
from reproduce.run.splits import Split, balanced, rank_in_class
from reproduce.specs import DATASETS, DatasetFacts

TITLE = "scikit-learn's digits"
TRAIN_PER_CLASS = 139  # the rarest digit has 174 images
TEST_PER_CLASS = 35


def load_digits(name: str, train_images: int | None, test_images: int | None) -> tuple[Split, Split, DataOrigin]:
    """Digits at the image size and channels of data set `name`, labels 0..9 whatever its classes.

    The split is fixed: of each digit the first 139 images train, the last 35 test (1,390 and 350 in all); the counts
    then take the first ones of each class. Raises `UserError` when there are fewer.
    """
    everything = bundled()
    rank = rank_in_class(everything.labels)
    size = torch.bincount(everything.labels)[everything.labels]
    splits = []
    for chosen, count in ((rank < TRAIN_PER_CLASS, train_images), (rank >= size - TEST_PER_CLASS, test_images)):
        part = Split(images=everything.images[chosen], labels=everything.labels[chosen])
        part = balanced(part, count, 10, TITLE)
        splits.append(Split(images=in_shape(part.images, DATASETS[name]), labels=part.labels))
    train, test = splits
    return train, test, origin(name, everything, train, test)


@functools.cache
def bundled() -> Split:
    """All 1,797 of them: (1797, 1, 8, 8) uint8 in 0..16. Shared: to be copied, not changed."""
    from sklearn import datasets  # takes a second to import, and only `tiny` needs it

    digits = datasets.load_digits()
    # numpy converts: in torch that could start threads, and no process may be forked after that (see `preloaded`).
    pixels, labels = digits.images.astype("uint8"), digits.target.astype("int64")
    return Split(images=torch.from_numpy(pixels)[:, None], labels=torch.from_numpy(labels))


def in_shape(digits: Tensor, facts: DatasetFacts) -> Tensor:
    """digits: (N, 1, 8, 8) uint8 in 0..16 -> (N, C, H, W) uint8 in 0..255, bilinear, grey in every channel."""
    size = (facts.image_size, facts.image_size)
    scaled = F.interpolate(digits.float() * (255 / 16), size=size, mode="bilinear", align_corners=False)
    return scaled.round().to(torch.uint8).repeat(1, facts.in_channels, 1, 1)


def origin(name: str, everything: Split, train: Split, test: Split) -> DataOrigin:
    content = everything.images.numpy().tobytes() + everything.labels.to(torch.uint8).numpy().tobytes()
    checksum = hashlib.sha256(content).hexdigest()
    return DataOrigin(
        name=name,
        source="digits",
        title=f"{TITLE} in place of {DATASETS[name].title}",
        canonical=False,
        train_images=len(train),
        test_images=len(test),
        files=[DataFile(path="sklearn.datasets.load_digits", sha256=checksum, bytes=len(content), canonical=False)],
    )
