"""The distortions of MNIST digits that two baselines train with, of a whole batch at once, on the images' device.

`capsnet` is Efficient-CapsNet's and `vgg5` SpinalNet's; each draws all its numbers from the generator that it is given,
which must live on the images' device. Every step takes uint8 images (N, C, S, S) and gives the same; the authors of
Efficient-CapsNet keep floats between the steps and do not cut off Lanczos's overshoot (R-32).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 4  # side of the erased square
LANCZOS = 3  # radius of the kernel


def capsnet(images: Tensor, generator: torch.Generator) -> Tensor:
    """images: (N, C, S, S) uint8 -> the same shape: rotated (half of them), shifted, squeezed and partly erased.

    Draws a fixed amount of numbers for N images. Raises `ValueError` for a side below 10.
    """
    n, side, device = len(images), checked_side(images), images.device
    z = torch.randn(5, n, generator=generator, device=device).mul_(0.33).clamp_(-0.9999, 0.9999)
    u = torch.rand(5, n, generator=generator, device=device)
    degrees = torch.where(u[0] < 0.5, (30 * z[0]).trunc(), 0)
    # About the centre of the pixel right and below of the image's centre, as the authors' library counts (R-32).
    turned = rotate(images, degrees, side / 2 + 0.5)
    shifted = shift(turned, z[1:3].abs(), u[1:3] < 0.5)
    squeezed = squeeze(shifted, (z[3].abs() * (side / 4)).long() + 1, (z[4].abs() * 2).long())
    top, left = 4 + (u[3:] * (side - 9)).long()  # 4..22 in 28 pixels
    return erase(squeezed, top, left)


def vgg5(images: Tensor, generator: torch.Generator) -> Tensor:
    """images: (N, C, S, S) uint8 -> the same shape: torchvision's RandomPerspective() and then RandomRotation(10)."""
    n, side, device = len(images), checked_side(images), images.device
    reach = int(0.5 * (side // 2))
    inward = torch.randint(0, reach + 1, (n, 4, 2), generator=generator, device=device)
    chance, turn = torch.rand(2, n, generator=generator, device=device)
    tilted = torch.where((chance < 0.5).view(-1, 1, 1, 1), perspective(images, inward), images)
    return rotate(tilted, 20 * turn - 10, side / 2, mode="nearest")


def checked_side(images: Tensor) -> int:
    """S of images (N, C, S, S). Raises `ValueError` for images that are not square, or too small to distort."""
    height, width = images.shape[2:]
    if height != width or width < 10:
        raise ValueError(f"the images to distort must be square, with a side of at least 10; got {height} x {width}")
    return width


def warp(images: Tensor, maps: Tensor, *, mode: str = "bilinear") -> Tensor:
    """images: (N, C, S, S) uint8; maps: (N, 3, 3), homogeneous (x, y, 1) in the output -> its place in the image.

    Places are in pixels; the centre of the first pixel is (0.5, 0.5). Beyond the image all is black.
    """
    side = images.shape[-1]
    centres = torch.arange(side, device=images.device) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    output = torch.stack((x, y, torch.ones_like(x)), -1)
    places = torch.einsum("nij,yxj->nyxi", maps, output)
    grid = places[..., :2] / places[..., 2:] / (side / 2) - 1
    return to_bytes(F.grid_sample(images.float(), grid, mode=mode, align_corners=False))


def to_bytes(images: Tensor) -> Tensor:
    """Any grey values, rounded and cut to 0..255: uint8."""
    return images.round().clamp(0, 255).to(torch.uint8)


def rotate(images: Tensor, degrees: Tensor, centre: float, *, mode: str = "bilinear") -> Tensor:
    """Rotation counter-clockwise. degrees: (N,); centre: x and y in the coordinates of `warp`."""
    radians = degrees * (math.pi / 180)
    cos, sin, one = radians.cos(), radians.sin(), torch.ones_like(radians)
    right, down = centre * (1 - cos + sin), centre * (1 - sin - cos)
    maps = torch.stack((cos, -sin, right, sin, cos, down, 0 * one, 0 * one, one), -1)
    return warp(images, maps.view(-1, 3, 3), mode=mode)


def perspective(images: Tensor, inward: Tensor) -> Tensor:
    """inward: (N, 4, 2), pixels by which the corners (top left, top right, bottom right, bottom left) move in x and y.

    The corners move towards the middle, and the image follows, as torchvision's `perspective` does it.
    """
    last = images.shape[-1] - 1
    start = torch.tensor([[0.0, 0.0], [last, 0], [last, last], [0, last]], dtype=torch.float64, device=images.device)
    end = start + torch.where(start > 0, -1, 1) * inward
    return warp(images, homographies(end, start.expand_as(end)).float())


def homographies(points: Tensor, places: Tensor) -> Tensor:
    """points, places: (N, 4, 2) -> (N, 3, 3): the projective maps that take each point to its place, m_33 = 1.

    X = (m11 x + m12 y + m13) / (m31 x + m32 y + 1), likewise Y: 8 equations linear in 8 numbers.
    """
    with_one = F.pad(points, (0, 1), value=1.0)  # (N, 4, 3)
    zero = torch.zeros_like(with_one)
    for_x = torch.cat((with_one, zero, -places[..., :1] * points), -1)
    for_y = torch.cat((zero, with_one, -places[..., 1:] * points), -1)
    numbers = torch.linalg.solve(torch.cat((for_x, for_y), 1), places.transpose(1, 2).flatten(1))
    return F.pad(numbers, (0, 1), value=1.0).view(-1, 3, 3)


def shift(images: Tensor, amounts: Tensor, back: Tensor) -> Tensor:
    """What is not black moves by a part of the empty margin in its way, and so stays in the frame.

    amounts: (2, N) in 0..1, of the margin of rows and columns; back: (2, N), up or to the left.
    """
    inked = (images > 0).any(1)
    for dim, amount, backward in zip((2, 3), amounts, back, strict=True):
        line = inked.any(2 if dim == 2 else 1).int()  # (N, S), rows or columns with ink
        before, after = line.argmax(1), line.flip(1).argmax(1)
        steps = torch.where(backward, -(amount * before).ceil(), (amount * (after + 1)).floor()).long()
        places = (torch.arange(line.shape[1], device=images.device) - steps[:, None]) % line.shape[1]
        images = images.take_along_dim(places[:, None, :, None] if dim == 2 else places[:, None, None, :], dim)
    return images


def squeeze(images: Tensor, narrower: Tensor, offsets: Tensor) -> Tensor:
    """Narrower by some pixels, (N,) in 1..S/4, with black at the sides; offsets: (N,), 0 or 1 more at the left."""
    maps = squeezings(images.shape[-1], images.device)[narrower - 1, offsets]
    return to_bytes(images.float() @ maps[:, None])


@lru_cache(maxsize=8)
def squeezings(side: int, device: torch.device) -> Tensor:
    """(S/4, 2, S, S): the matrices, for rows of pixels from the left, of every squeeze and offset.

    Lanczos's kernel sinc(x) sinc(x / 3), made wider by the ratio of the widths so that it does not alias.
    """
    maps = torch.zeros(side // 4, 2, side, side, dtype=torch.float64)
    for narrower in range(1, side // 4 + 1):
        width = side - narrower
        ratio = side / width
        centres = (torch.arange(width, dtype=torch.float64) + 0.5) * ratio
        x = (torch.arange(side, dtype=torch.float64)[:, None] + 0.5 - centres) / ratio
        kernel = torch.where(x.abs() < LANCZOS, x.sinc() * (x / LANCZOS).sinc(), 0)
        for offset in (0, 1):
            left = narrower // 2 + offset
            maps[narrower - 1, offset, :, left : left + width] = kernel / kernel.sum(0)
    return maps.float().to(device)


def erase(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """A square of 4 x 4 pixels black. top, left: (N,), its first row and column."""
    lines = torch.arange(images.shape[-1], device=images.device)
    rows, columns = ((lines >= first) & (lines < first + PATCH) for first in (top[:, None], left[:, None]))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
