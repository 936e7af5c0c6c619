"""The small networks of the benchmark: 1 or 2 convolutions, each with batch norm and ReLU; mean over positions; linear.

`plain` in `torch.nn.Conv2d`, whose sizes a size learner changes, and `OWN_SIZES` with kernels that have sizes of their
own. To add such a method, register `build(spec) -> nn.Module` under the entry-point group `reproduce.networks`: spec is
a `Spec`, and the module has `effective_sizes()`, by layer, and maybe `sizes()`, what the method itself calls its sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.flexconv import FlexConv2d
from baselines.masks import sigma_of
from baselines.njet import NJetConv2d
from effconv import resize

CHANNELS, CLASSES, SHARE = 8, 2, 0.95


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to build: for images (N, channels, side, side), convolutions of as many channels that start at a size."""

    layers: int
    start: int
    side: int = 16
    channels: int = CHANNELS
    classes: int = CLASSES


def network(layers: int, start: int, channels: int = CHANNELS, classes: int = CLASSES) -> nn.Sequential:
    """(N, channels, H, W) -> (N, classes). The size of every `nn.Conv2d` in it is to be learned, the first's too."""
    convs = [nn.Conv2d(channels, channels, start, padding="same", bias=False) for _ in range(layers)]
    return nn.Sequential(*stacked(convs, channels, classes))


def sized(sizes: Sequence[int], channels: int = CHANNELS) -> nn.Module:
    """`network` with these kernel sizes, layer by layer."""
    plain = network(len(sizes), 3, channels)
    return resize(plain, dict(zip(conv_names(plain), sizes, strict=True)))


def stacked(convs: Sequence[nn.Module], channels: int, classes: int) -> list[nn.Module]:
    blocks = [module for conv in convs for module in (conv, nn.BatchNorm2d(channels), nn.ReLU())]
    return [*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def conv_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def effective_size(kernel: Tensor, share: float = SHARE) -> int:
    """Side of the smallest centred square that holds `share` of the squared weights. kernel: (out, in, h, w).

    Centred exactly: odd for odd kernels, even for even ones, and the same for a kernel and its mirror image.
    """
    energy = kernel.detach().double().square().sum((0, 1))
    longest = max(energy.shape)
    for side in range(2 - longest % 2, longest, 2):
        cut = [max(0, (length - side) // 2) for length in energy.shape]
        inside = energy[cut[0] : energy.shape[0] - cut[0], cut[1] : energy.shape[1] - cut[1]]
        if inside.sum() >= share * energy.sum():
            return side
    return longest


class OwnSizes(nn.Sequential):
    """A network whose convolutions make their kernels, (out, in, h, w), in a method `kernel()`."""

    @torch.no_grad()
    def kernels(self) -> list[Tensor]:
        return [module.kernel() for module in self if isinstance(module, FlexConv2d | NJetConv2d)]

    def sizes(self) -> list[int]:
        return [max(kernel.shape[2:]) for kernel in self.kernels()]

    def effective_sizes(self) -> list[int]:
        return [effective_size(kernel) for kernel in self.kernels()]


def flexconv(spec: Spec) -> OwnSizes:
    """FlexConv, the grid of its kernels one wider than the image. Its sizes are odd: an even start becomes one more."""
    horizon = spec.side + 1
    convs = [FlexConv2d(spec.channels, spec.channels, horizon=horizon) for _ in range(spec.layers)]
    for conv in convs:
        with torch.no_grad():
            conv.mask_params.copy_(torch.tensor([[0.0, sigma_of(spec.start | 1, horizon)]] * 2))
    return OwnSizes(*stacked(convs, spec.channels, spec.classes))


def njet(spec: Spec) -> OwnSizes:
    """N-Jet of order 3. Its sizes are 2 h + 1 = 3, 5, ...: the nearest to the start, the larger of two."""
    h = max(1, spec.start // 2)
    scale = math.log2((h - 0.55) / 2)  # just inside the largest sigma of this h = ceil(2 sigma + 0.5)
    convs = [NJetConv2d(spec.channels, spec.channels, init_scale=scale) for _ in range(spec.layers)]
    return OwnSizes(*stacked(convs, spec.channels, spec.classes))


OWN_SIZES: dict[str, Callable[[Spec], nn.Module]] = {"flexconv": flexconv, "njet": njet}
