"""The data of the known-answer benchmark: two classes, told apart by evidence of known extent, made from a seed.

**Lag d.** White noise, and d pixels to the right of it plus or minus its copy; the class is that sign. A column of
noise a (3 pixels high, in each channel) stands on a ground of zeros, its copy c a, c = +-1, d columns to the right,
and -a and -c a stand below them, d - 1 empty rows between:

    a    .  c a
    .    .   .        (d = 2)
    -a   . -c a

*d + 1 suffices:* with taps at both ends of a row of one channel, the sum over positions p of |x(p) + x(p+d)| -
|x(p) - x(p+d)|, which four filters, ReLU, pooling and a linear layer compute, is 2 c sum |a| twice: the class's sign.
*Below it, chance by symmetry:* a window of at most d pixels a side meets one of the four columns only, so exchanging
the two on the right (with which +a and -a, that is the classes, change places) leaves the set of all windows, and so
whatever is pooled from them, as it was. With two layers a window is the receptive field, s1 + s2 - 1, and near the
border the zeros that layer 2 is padded with mark rows, so that an exchange may show; but each column's own law is the
same in both classes, so the means of the pooled features are too, and the cross-entropy of a linear layer on them,
being convex, is nowhere below that of a guess, log 2 (Jensen).

The columns below make the difference between 'no evidence on average' and 'no evidence'. On a plain field of noise
plus or minus its copy, the mean of an image has variance 0 for one class and 4 / pixels for the other: averages over
windows of one pixel then tell 75 % of the images apart.

**Texture d.** Smooth random textures of correlation length d or 1.5 d under white noise as strong as they are. Windows
of every size carry some evidence, so there is no minimal size.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from reproduce.errors import UsageError
from reproduce.known_answers import MAX_SIZE
from reproduce.run.streams import generator

TEST_IMAGES = 1000
_ROWS = 3  # height of a column of noise
_NOISE = 1.0  # standard deviation, of textures and of the noise upon them


@dataclass(frozen=True)
class Task:
    """A kind of data at one scale d, in pixels. Raises `UsageError` for what there is not."""

    name: str
    scale: int
    channels: int = 8

    def __post_init__(self) -> None:
        if self.name not in ("lag", "texture"):
            raise UsageError(f"no task is named {self.name!r}; there are lag and texture")
        if self.scale < 1:
            raise UsageError(f"the scale of a task is 1 or more; got {self.scale}")

    @property
    def side(self) -> int:
        """Of the images, in pixels: 16, or more where a lag or the texture's scale needs it."""
        if self.name == "texture":  # six correlation lengths: on fewer the two classes look alike at any size
            return max(16, -(-6 * self.scale // 8) * 8)
        extent = sum(margins(self.scale)) + 2 * _ROWS + self.scale - 1
        return max(16, extent + extent % 2)

    @property
    def minimal_size(self) -> int | None:
        """The smallest receptive field that can tell the classes apart; None where every size tells something."""
        return self.scale + 1 if self.name == "lag" else None

    def batches(self, count: int, batch_size: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        """`count` pairs of images (batch_size, channels, side, side) and labels, as many 0 as 1 (or one off)."""
        rng = generator(seed, "known_answer", self.name, self.scale, "training")
        return [self._draw(batch_size, rng) for _ in range(count)]

    def test_set(self, seed: int) -> tuple[Tensor, Tensor]:
        """1,000 images and labels, half of each class; independent of all batches."""
        return self._draw(TEST_IMAGES, generator(seed, "known_answer", self.name, self.scale, "test"))

    def _draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randperm(count, generator=rng) % 2
        if self.name == "lag":
            return lag_images(labels, self.scale, self.side, self.channels, rng), labels
        factors = factor(float(self.scale), self.side), factor(1.5 * self.scale, self.side)
        return textures(labels, factors, self.channels, rng), labels


def margins(d: int) -> tuple[int, int]:
    """Empty pixels above and left of the columns, and below and right of them.

    So many that each window of d pixels a side, or of the largest size, that meets a column is that of some output; an
    even one reaches one pixel farther to the right and bottom (R-11).
    """
    return min(d, MAX_SIZE) // 2, (min(d, MAX_SIZE) - 1) // 2


def lag_images(labels: Tensor, d: int, side: int, channels: int, rng: torch.Generator) -> Tensor:
    """labels: (N,), 1 for a copy and 0 for a negated one -> (N, channels, side, side).

    What is drawn does not depend on the labels: a generator in the same state and the other labels give the same images
    in the other class.
    """
    count, (near, far) = len(labels), margins(d)
    noise = torch.randn(count, _ROWS, channels, generator=rng)
    top = torch.randint(near, side - far - (2 * _ROWS + d - 1) + 1, (count, 1), generator=rng)
    left = torch.randint(near, side - far - (d + 1) + 1, (count, 1), generator=rng)
    copy = noise * (2 * labels - 1).view(-1, 1, 1)
    images = torch.zeros(count, channels, side, side)
    image, row = torch.arange(count).unsqueeze(1), top + torch.arange(_ROWS)  # (N, 1), (N, 3)
    below = row + _ROWS + d - 1
    images[image, :, row, left], images[image, :, row, left + d] = noise, copy
    images[image, :, below, left], images[image, :, below, left + d] = -noise, -copy
    return images


@functools.cache
def factor(correlation: float, side: int) -> Tensor:
    """(side, side) A such that A z A^T, z white, has the correlation exp(-r^2 / correlation^2) at distance r."""
    place = torch.arange(side, dtype=torch.float64)
    covariance = torch.exp(-((place[:, None] - place) ** 2) / correlation**2)
    a: Tensor = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(side, dtype=torch.float64))
    return a.float()


def textures(labels: Tensor, factors: tuple[Tensor, Tensor], channels: int, rng: torch.Generator) -> Tensor:
    """labels: (N,), by which each image is made with one of the two `factor`s -> (N, channels, side, side)."""
    z = torch.randn(len(labels), channels, *factors[0].shape, generator=rng)
    smooth = torch.where(labels.view(-1, 1, 1, 1) == 1, factors[1] @ z @ factors[1].T, factors[0] @ z @ factors[0].T)
    return smooth + _NOISE * torch.randn(z.shape, generator=rng)
