"""Random crops and flips of a whole batch of uint8 images at once, and normalisation; on the images' device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduce.run import distortions

# Mean and standard deviation by channel, for pixels in 0..1.
STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "cifar10_exact": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "unit": ((0.0,), (1.0,)),
    "capsnet": ((0.0,), (256 / 255,)),  # pixels divided by 256
}
ANY_CHANNELS = ("unit", "capsnet")

KINDS = ("none", "flip_crop", "flip_crop_reflect", "capsnet", "vgg5")
DISTORTIONS = {"capsnet": distortions.capsnet, "vgg5": distortions.vgg5}


def crop_padding(size: int) -> int:
    """Pixels of padding on each side of an image of `size` pixels: 4, and 12 for STL-10's 96."""
    return 12 if size == 96 else 4


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """images: (N, C, H, W) uint8 -> the same shape, flipped with probability 1/2 and then cropped at a random place.

    `none` returns the images themselves and draws nothing. `flip_crop` pads raw pixels with 0 (black, before
    normalisation, as torchvision's RandomCrop does), `flip_crop_reflect` by reflection. `generator` must live on the
    images' device. `capsnet` and `vgg5` are of `reproduce.run.distortions`. Raises `ValueError` for another kind.
    """
    if kind == "none":
        return images
    if kind in DISTORTIONS:
        return DISTORTIONS[kind](images, generator)
    if kind not in KINDS:
        raise ValueError(f"no augmentation is named {kind!r}; use one of {', '.join(KINDS)}")
    padding = crop_padding(images.shape[-1])
    chances, (top, left) = draw(len(images), padding, generator)
    return flip_and_crop(images, chances < 0.5, top, left, padding, reflect=kind == "flip_crop_reflect")


def draw(n: int, padding: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What n images are flipped and cropped by: (n,) in 0..1, flipped if below 1/2, and corners (2, n), top and left.

    On the generator's device.
    """
    chances = torch.rand(n, generator=generator, device=generator.device)
    return chances, torch.randint(0, 2 * padding + 1, (2, n), generator=generator, device=generator.device)


def flip_and_crop(
    images: Tensor, flips: Tensor, top: Tensor, left: Tensor, padding: int, *, reflect: bool = False
) -> Tensor:
    """images: (N, C, H, W) uint8; flips: (N,) bool; top, left: (N,) corners in the padded image -> (N, C, H, W)."""
    height, width = images.shape[2:]
    flipped = torch.where(flips[:, None, None, None], images.flip(3), images)
    # A view of every possible window, (N, C, 2p+1, 2p+1, H, W); only the chosen ones are copied.
    windows = padded(flipped, padding, reflect=reflect).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def padded(images: Tensor, padding: int, *, reflect: bool = False) -> Tensor:
    """images: (N, C, H, W) uint8 -> (N, C, H + 2p, W + 2p), with black or reflected pixels around."""
    return reflected(images, padding) if reflect else F.pad(images, (padding,) * 4)


def reflected(images: Tensor, padding: int) -> Tensor:
    """Reflection padding, the border itself not repeated; by hand, since torch's own lacks uint8 on the CPU."""
    for dim in (2, 3):
        before = images.narrow(dim, 1, padding).flip(dim)
        after = images.narrow(dim, images.shape[dim] - padding - 1, padding).flip(dim)
        images = torch.cat((before, images, after), dim)
    return images


@lru_cache(maxsize=32)
def statistics(kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (1, C, 1, 1) float32 on `device`; kept, so that no step copies them anew."""
    if kind not in STATISTICS:
        raise ValueError(f"no normalisation is named {kind!r}; use one of {', '.join(STATISTICS)}")
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in STATISTICS[kind])
    return mean, std


def normalise(images: Tensor, kind: str) -> Tensor:
    """images: (N, C, H, W) uint8 -> float32, (pixel / 255 - mean) / std by channel. Raises `ValueError`."""
    mean, std = statistics(kind, images.device)
    if images.shape[1] != mean.shape[1] and kind not in ANY_CHANNELS:
        raise ValueError(f"normalisation {kind!r} is for {mean.shape[1]} channels; the images have {images.shape[1]}")
    return images.float().div_(255).sub_(mean).div_(std)
