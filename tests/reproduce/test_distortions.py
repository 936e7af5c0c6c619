"""Distortions of digits: each step against torchvision, PIL or a loop over pixels; the draws against their laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomPerspective
from torchvision.transforms.v2 import functional as tv

from reproduce.run import distortions
from reproduce.run.distortions import capsnet, erase, perspective, rotate, shift, squeeze, vgg5

torch.set_num_threads(1)
KINDS = [capsnet, vgg5]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, *, channels: int = 1, side: int = 28) -> Tensor:
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=seeded(5))


def blobs(n: int, *, side: int = 28) -> Tensor:
    """Noise in a rectangle with an inked border, black around it."""
    images = noise(n, side=side).clamp(min=1)
    corners = torch.randint(0, side // 2, (n, 4), generator=seeded(6))
    for image, (top, bottom, left, right) in zip(images, corners.tolist(), strict=True):
        inside = torch.zeros(side, side, dtype=torch.uint8)
        inside[top : side - bottom, left : side - right] = 1
        image *= inside
    return images


def differing(a: Tensor, b: Tensor, *, by: int) -> float:
    """The share of pixels that differ by more than `by` grey levels."""
    return ((a.int() - b.int()).abs() > by).float().mean().item()


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(("side", "centre"), [(28, 14.0), (28, 14.5), (33, 16.5)])
def test_rotation_is_torchvisions(mode: str, side: int, centre: float) -> None:
    degrees = torch.tensor([-29.0, -7.5, 0.0, 3.0, 10.0, 28.5])
    batch = noise(6, channels=2, side=side)
    out = rotate(batch, degrees, centre, mode=mode)
    for image, got, angle in zip(batch, out, degrees.tolist(), strict=True):
        expected = tv.rotate(image, angle, InterpolationMode(mode), center=[centre, centre])
        assert differing(got, expected, by=1) < 0.005  # ties between two pixels, or between two grey levels
    assert torch.equal(out[2], batch[2])


def test_capsnet_turns_about_the_pixel_below_and_right_of_the_centre() -> None:
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, 14, 14], image[0, 0, 14, 20] = 200, 100
    out = rotate(image, torch.tensor([90.0]), 28 / 2 + 0.5)
    assert out.nonzero()[:, 2:].tolist() == [[8, 14], [14, 14]]  # counter-clockwise
    assert out[0, 0, 8, 14] == 100 and out[0, 0, 14, 14] == 200


def end_points(inward: list[list[int]], side: int) -> list[list[int]]:
    (a, b), (c, d), (e, f), (g, h) = inward
    last = side - 1
    return [[a, b], [last - c, d], [last - e, last - f], [g, last - h]]


def theirs(image: Tensor, inward: list[list[int]]) -> Tensor:
    """torchvision's perspective to these corners."""
    last = image.shape[-1] - 1
    start = [[0, 0], [last, 0], [last, last], [0, last]]
    return tv.perspective(image, start, end_points(inward, last + 1), InterpolationMode.BILINEAR)


@pytest.mark.parametrize("side", [28, 33])
def test_perspective_is_torchvisions(side: int) -> None:
    batch = noise(20, channels=2, side=side)
    inward = torch.randint(0, side // 4 + 1, (20, 4, 2), generator=seeded(1))
    inward[0] = 0
    out = perspective(batch, inward)
    for image, got, moves in zip(batch, out, inward.tolist(), strict=True):
        assert differing(got, theirs(image, moves), by=1) < 0.005
    assert torch.equal(out[0], batch[0])


def shifted_by_hand(image: Tensor, amounts: list[float], back: list[bool]) -> Tensor:
    """image: (S, S). Up and left by ceil(amount x margin), down and right by floor(amount x (margin + 1))."""
    array, side, steps = image.numpy(), len(image), []
    for axis in (0, 1):
        lines = np.flatnonzero(array.any(axis=1 - axis))
        before, after = lines[0], side - 1 - lines[-1]
        if back[axis]:
            steps.append(-int(np.ceil(amounts[axis] * before)))
        else:
            steps.append(int(np.floor(amounts[axis] * (after + 1))))
    out = np.zeros_like(array)
    for y, x in zip(*array.nonzero(), strict=True):
        out[y + steps[0], x + steps[1]] = array[y, x]  # an IndexError or a lost pixel if it left the frame
    assert (out > 0).sum() == (array > 0).sum()
    return torch.from_numpy(out)


@pytest.mark.parametrize("side", [28, 15])
def test_the_shift_by_hand(side: int) -> None:
    batch = blobs(60, side=side)
    amounts = torch.rand(2, 60, generator=seeded(2)) * 0.9999
    amounts[:, :12], amounts[:, 12:16] = 0.9999, 0.0
    back = torch.rand(2, 60, generator=seeded(3)) < 0.5
    out = shift(batch, amounts, back)
    for i in range(60):
        expected = shifted_by_hand(batch[i, 0], amounts[:, i].tolist(), back[:, i].tolist())
        assert torch.equal(out[i, 0], expected)
    assert torch.equal(out[12:16], batch[12:16])


def test_the_farthest_shift_reaches_the_border_and_a_black_image_stays() -> None:
    batch = blobs(32)
    far = torch.full((2, 32), 0.9999)
    assert shift(batch, far, torch.ones(2, 32, dtype=torch.bool))[:, 0, :, 0].any(1).all()
    assert shift(batch, far, torch.zeros(2, 32, dtype=torch.bool))[:, 0, 27].any(1).all()
    assert not shift(torch.zeros_like(batch), far, torch.rand(2, 32) < 0.5).any()


def test_the_ink_of_all_channels_stays_in_the_frame() -> None:
    batch = torch.zeros(1, 2, 28, 28, dtype=torch.uint8)
    batch[0, 0, 10, 10], batch[0, 1, 2, 3] = 7, 9
    out = shift(batch, torch.full((2, 1), 0.9999), torch.ones(2, 1, dtype=torch.bool))
    assert out[0, 1, 0, 0] == 9 and out[0, 0, 8, 7] == 7


@pytest.mark.parametrize("narrower", range(1, 8))
@pytest.mark.parametrize("offset", [0, 1])
def test_the_squeeze_is_pils_lanczos(narrower: int, offset: int) -> None:
    batch = noise(3)
    out = squeeze(batch, torch.full((3,), narrower), torch.full((3,), offset))
    width, left = 28 - narrower, narrower // 2 + offset
    for image, got in zip(batch, out, strict=True):
        expected = Image.fromarray(image[0].numpy()).resize((width, 28), Image.Resampling.LANCZOS)
        inner = got[0, :, left : left + width]
        assert differing(inner, torch.from_numpy(np.array(expected)), by=1) == 0
    assert not out[..., :left].any() and not out[..., left + width :].any()


@pytest.mark.parametrize("side", [28, 15])
def test_a_squeezed_white_image_is_white_and_narrower(side: int) -> None:
    most = side // 4
    white = torch.full((2 * most, 1, side, side), 255, dtype=torch.uint8)
    narrower, offsets = torch.arange(1, most + 1).repeat(2), torch.arange(2).repeat_interleave(most)
    out = squeeze(white, narrower, offsets)
    assert ((out == 255) | (out == 0)).all()
    assert (out == 255).sum(3).eq((side - narrower).view(-1, 1, 1)).all()
    assert out[:, 0, 0].int().argmax(1).tolist() == (narrower // 2 + offsets).tolist()


def test_one_square_is_erased() -> None:
    batch = noise(5, channels=2).clamp(min=1)
    top, left = torch.tensor([4, 22, 10, 4, 22]), torch.tensor([22, 4, 10, 4, 22])
    out = erase(batch, top, left)
    for image, got, i, j in zip(batch, out, top.tolist(), left.tolist(), strict=True):
        expected = image.clone()
        expected[:, i : i + 4, j : j + 4] = 0
        assert torch.equal(got, expected)
    assert (out == 0).sum().item() == 5 * 2 * 16


class Recorder:
    """Stands in for the steps: notes their order and arguments, and gives the images back one grey level lighter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.calls: list[str] = []
        self.arguments: dict[str, tuple[Any, ...]] = {}
        for name in names:
            monkeypatch.setattr(distortions, name, self.step(name))

    def step(self, name: str) -> Callable[..., Tensor]:
        def call(images: Tensor, *arguments: Any, **options: Any) -> Tensor:
            self.calls.append(name)
            self.arguments[name] = (*arguments, *options.values())
            return images + 1

        return call


def fits(counts: Tensor, expected: np.ndarray) -> None:
    """Chi-squared test of counts against probabilities."""
    assert stats.chisquare(counts.numpy(), expected / expected.sum() * int(counts.sum())).pvalue > 0.001


def test_what_capsnet_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    n, normal = 20_000, stats.norm(scale=0.33)
    record = Recorder(monkeypatch, "rotate", "shift", "squeeze", "erase")
    out = capsnet(torch.zeros(n, 1, 28, 28, dtype=torch.uint8), seeded(0))
    assert record.calls == ["rotate", "shift", "squeeze", "erase"] and (out == 4).all()  # each on what the last gave

    degrees, centre = record.arguments["rotate"]
    assert centre == 14.5 and torch.equal(degrees, degrees.trunc()) and degrees.abs().max() == 29
    edges = np.arange(1, 30) / 30  # |degrees| = d for |z| in [d/30, (d+1)/30), and half of all stay
    above = 0.5 * 2 * normal.sf(edges)
    fits(degrees.abs().long().bincount(minlength=30), -np.diff(np.concatenate(([1.0], above, [0.0]))))
    assert abs((degrees.sign()).mean().item()) < 0.02

    amounts, back = record.arguments["shift"]
    assert amounts.shape == back.shape == (2, n) and amounts.min() >= 0 and amounts.max() < 1
    for amount in amounts:
        assert stats.kstest(amount[amount < 0.99].numpy(), lambda x: (2 * normal.cdf(x) - 1) / 0.9973).pvalue > 0.001
    fits((back[0].long() * 2 + back[1]).bincount(minlength=4), np.ones(4))

    narrower, offsets = record.arguments["squeeze"]
    fits(narrower.bincount(minlength=8)[1:], -np.diff(np.append(normal.sf(np.arange(7) / 7), 0.0)))
    fits(offsets.bincount(minlength=2), np.array([1 - 2 * normal.sf(0.5), 2 * normal.sf(0.5)]))

    top, left = record.arguments["erase"]
    assert top.min() == left.min() == 4 and top.max() == left.max() == 22
    fits(((top - 4) * 19 + left - 4).bincount(minlength=361), np.ones(361))

    drawn = torch.stack([x.float() for x in (degrees, degrees != 0, *amounts, *back, narrower, offsets, top, left)])
    assert (drawn.corrcoef() - torch.eye(len(drawn))).abs().max() < 0.03  # independent of one another


def test_what_vgg5_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 20_000
    record = Recorder(monkeypatch, "perspective", "rotate")
    out = vgg5(torch.zeros(n, 1, 28, 28, dtype=torch.uint8), seeded(0))
    assert record.calls == ["perspective", "rotate"]
    assert stats.binomtest(int((out[:, 0, 0, 0] == 2).sum()), n, 0.5).pvalue > 0.001  # half were given a perspective
    (inward,) = record.arguments["perspective"]
    assert inward.shape == (n, 4, 2)
    for i in range(4):
        fits((inward[:, i, 0] * 8 + inward[:, i, 1]).bincount(minlength=64), np.ones(64))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        corners = torch.tensor([RandomPerspective.get_params(28, 28, 0.5)[1] for _ in range(500)])
    ours = torch.tensor([end_points(moves, 28) for moves in inward.tolist()])
    assert torch.equal(corners.amin(0), ours.amin(0)) and torch.equal(corners.amax(0), ours.amax(0))
    degrees, centre, mode = record.arguments["rotate"]
    assert centre == 14 and mode == "nearest"
    assert stats.kstest(degrees.numpy(), stats.uniform(-10, 20).cdf).pvalue > 0.001


def test_vgg5_is_torchvisions_perspective_for_half_and_then_its_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, chosen = blobs(200), 0
    expected = vgg5(batch, seeded(4))
    record = Recorder(monkeypatch, "perspective", "rotate")
    vgg5(batch, seeded(4))  # the same draws, noted
    (inward,), degrees = record.arguments["perspective"], record.arguments["rotate"][0].tolist()
    for image, moves, angle, got in zip(batch, inward.tolist(), degrees, expected, strict=True):
        alike = [differing(got, tv.rotate(x, angle), by=1) for x in (image, theirs(image, moves))]
        assert min(alike) < 0.01
        chosen += alike[1] < alike[0]
    assert stats.binomtest(chosen, 200, 0.5).pvalue > 0.001


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(16, 1, 28, 28), (3, 3, 33, 33), (1, 1, 10, 10), (0, 1, 28, 28)])
def test_shapes_and_determinism(kind: Callable[[Tensor, torch.Generator], Tensor], shape: tuple[int, ...]) -> None:
    batch = noise(shape[0], channels=shape[1], side=shape[2])
    kept, state = batch.clone(), torch.get_rng_state()
    once, again = kind(batch, seeded(1)), kind(batch, seeded(1))
    assert once.shape == shape and once.dtype == torch.uint8
    assert torch.equal(once, again) and torch.equal(batch, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert not len(batch) or not torch.equal(once, kind(batch, seeded(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_other_images_are_an_error(kind: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    for height, width in ((28, 30), (9, 9)):
        with pytest.raises(ValueError, match=f"{height} x {width}"):
            kind(torch.zeros(1, 1, height, width, dtype=torch.uint8), seeded(0))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_cuda(kind: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    out = kind(blobs(64).cuda(), torch.Generator("cuda").manual_seed(0))
    again = kind(blobs(64).cuda(), torch.Generator("cuda").manual_seed(0))
    assert out.is_cuda and out.dtype == torch.uint8 and torch.equal(out, again)
