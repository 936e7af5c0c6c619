"""Augmentation against torchvision: the same image for the same offset and flip, and the same distribution of both."""

from __future__ import annotations

import time

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as tv

from reproduce.run.augmentation import STATISTICS, augment, crop_padding, flip_and_crop, normalise

torch.set_num_threads(1)
KINDS = ["flip_crop", "flip_crop_reflect"]


def images(n: int, channels: int = 3, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=seeded(5))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(n: int) -> Tensor:
    """(n, 3, 32, 32): channel 0 holds 1 + row, channel 1 holds 1 + column, so that 0 is padding."""
    row = torch.arange(1, 33, dtype=torch.uint8).view(32, 1).expand(32, 32)
    return torch.stack((row, row.T, torch.ones_like(row))).expand(n, 3, 32, 32)


def drawn(out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reads flips and corners off augmented `coordinates`, from their centre pixel: flips, top, left, each (n,)."""
    row, column = out[:, 0, 16, 16].long() - 1, out[:, 1, 16, 16].long() - 1
    flips = out[:, 1, 16, 16] > out[:, 1, 16, 17]
    column = torch.where(flips, 31 - column, column)
    return flips, row - 16 + 4, column - 16 + 4


@pytest.mark.parametrize("size", [32, 96, 28])
@pytest.mark.parametrize("reflect", [False, True])
def test_every_offset_and_flip_is_torchvisions(size: int, reflect: bool) -> None:
    padding = crop_padding(size)
    assert padding == {32: 4, 96: 12, 28: 4}[size]
    places = torch.cartesian_prod(torch.arange(2), torch.arange(2 * padding + 1), torch.arange(2 * padding + 1))
    places = places[:: 1 if size < 96 else 31]
    flips, top, left = places[:, 0].bool(), places[:, 1], places[:, 2]
    batch = images(len(places), size=size)
    out = flip_and_crop(batch, flips, top, left, padding, reflect=reflect)
    for image, got, flip, i, j in zip(batch, out, flips, top.tolist(), left.tolist(), strict=True):
        flipped = tv.hflip(image) if flip else image
        padded = tv.pad(flipped, [padding], padding_mode="reflect" if reflect else "constant")
        assert torch.equal(got, tv.crop(padded, i, j, size, size))


def test_offsets_and_flips_are_distributed_as_torchvisions() -> None:
    n = 81 * 2 * 200
    flips, top, left = drawn(augment(coordinates(n), "flip_crop", seeded(0)))
    counts = torch.bincount((flips.long() * 9 + top) * 9 + left, minlength=162)
    assert len(counts) == 162  # every corner with every flip: uniform and independent, all in one test
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    reference = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, padding=4)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([reference(image) for image in coordinates(3000)])
    for ours, other in zip((flips, top, left), drawn(theirs), strict=True):
        table = torch.stack((torch.bincount(ours.long(), minlength=2), torch.bincount(other.long(), minlength=2)))
        assert stats.chi2_contingency(table.numpy()).pvalue > 0.001


@pytest.mark.parametrize("kind", KINDS)
def test_same_generator_same_images_and_the_input_stays(kind: str) -> None:
    batch = images(64)
    kept = batch.clone()
    once, again = augment(batch, kind, seeded(1)), augment(batch, kind, seeded(1))
    assert once.shape == batch.shape and once.dtype == torch.uint8
    assert torch.equal(once, again) and not torch.equal(once, augment(batch, kind, seeded(2)))
    assert torch.equal(batch, kept)
    assert augment(batch[:0], kind, seeded(1)).shape == (0, 3, 32, 32)


def test_none_draws_nothing() -> None:
    batch, generator = images(4), seeded(3)
    before = generator.get_state()
    assert augment(batch, "none", generator) is batch and torch.equal(before, generator.get_state())


def test_padding_is_black_before_normalisation() -> None:
    out = augment(images(256).clamp(min=1), "flip_crop", seeded(0))
    assert (out == 0).any()  # as torchvision's RandomCrop ahead of ToTensor and Normalize


def test_unknown_kinds() -> None:
    with pytest.raises(ValueError, match="flip_crop_reflect"):
        augment(images(1), "cutout", seeded(0))
    with pytest.raises(ValueError, match="imagenet"):
        normalise(images(1), "zca")
    with pytest.raises(ValueError, match="3 channels; the images have 1"):
        normalise(images(1, channels=1), "cifar10")


@pytest.mark.parametrize("kind", STATISTICS)
def test_normalisation_is_torchvisions(kind: str) -> None:
    mean, std = STATISTICS[kind]
    batch = images(8, channels=len(mean))
    expected = tv.normalize(tv.convert_image_dtype(batch, torch.float32), list(mean), list(std))
    out = normalise(batch, kind)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


def test_a_batch_takes_milliseconds() -> None:
    batch, generator = images(64), seeded(0)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        normalise(augment(batch, "flip_crop", generator), "imagenet")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.015  # 0.5 ms on the machine of 2025 that this was written on


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_cuda(kind: str) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    out = augment(coordinates(64 * 81).cuda(), kind, generator)
    assert out.is_cuda and normalise(out, "imagenet").is_cuda
    if kind == "flip_crop":
        flips, top, left = drawn(out.cpu())
        again = flip_and_crop(coordinates(64 * 81), flips, top, left, 4)
        assert torch.equal(out.cpu(), again)
