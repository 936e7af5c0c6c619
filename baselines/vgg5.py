"""VGG-5 for MNIST: Kabir et al., "SpinalNet: Deep Neural Network with Gradual Input" (2020), as in the authors' code.

Despite its name ten 3x3 convolutions in four groups, each with batch norm and ReLU, a 2x2 max pool after each group
(28 -> 14 -> 7 -> 3 -> 1), and one of two heads. 3,646,154 parameters with the plain head (the count in the table),
3,629,770 with the spinal one. The authors end in a log-softmax, which changes nothing under cross-entropy (the
log-softmax of log-probabilities is those again), so here the logits are the output.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

GROUPS = ((64, 64), (128, 128), (256, 256, 256), (256, 256, 256))
FEATURES = GROUPS[-1][-1]
HIDDEN = 512
SIZES = range(16, 32)  # pixels that four poolings take to exactly one


class VGG5(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for H and W of 16 to 31. In training N must be over 1."""

    def __init__(self, head: nn.Module, *, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for widths in GROUPS:
            self.features.append(group(in_channels, widths))
            in_channels = widths[-1]
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        check_size(*x.shape[2:])
        return self.head(self.features(x).flatten(1))


class SpinalHead(nn.Module):
    """(N, 256) -> (N, num_classes): each of four layers sees half of the features and the layer before it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        half, width = FEATURES // 2, HIDDEN // 4
        self.spine = nn.ModuleList(dense(half + (width if i else 0), width) for i in range(4))
        self.output = nn.Sequential(nn.Dropout(0.5), nn.Linear(HIDDEN, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        halves = x.chunk(2, dim=1)
        outputs: list[Tensor] = []
        for i, layer in enumerate(self.spine):
            outputs.append(layer(torch.cat([halves[i % 2], *outputs[-1:]], dim=1)))
        return self.output(torch.cat(outputs, dim=1))


def group(c_in: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU, then the pool that halves H and W, rounding down."""
    layers = nn.Sequential()
    for width in widths:
        layers.extend([nn.Conv2d(c_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
        c_in = width
    return layers.append(nn.MaxPool2d(2))


def dense(w_in: int, w_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(w_in, w_out), nn.BatchNorm1d(w_out), nn.ReLU(inplace=True))


def plain_head(num_classes: int) -> nn.Sequential:
    """(N, 256) -> (N, num_classes)."""
    return nn.Sequential(dense(FEATURES, HIDDEN), nn.Dropout(0.5), nn.Linear(HIDDEN, num_classes))


HEADS = {"plain": plain_head, "spinal": SpinalHead}


def init_weights(module: nn.Module) -> None:
    """Convolution weights N(0, 2 / (9 C_out)), the rest as PyTorch does. For `Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def check_size(*sides: int) -> None:
    for side in sides:
        if side not in SIZES:
            raise ValueError(f"VGG-5 takes images of {SIZES[0]} to {SIZES[-1]} pixels a side; got {side}")


def vgg5(
    *, in_channels: int = 1, num_classes: int = 10, image_size: int = 28, head: Literal["plain", "spinal"] = "plain"
) -> VGG5:
    """VGG-5 with a plain or a spinal head. `ValueError` for image sizes outside 16..31 and for another head."""
    check_size(image_size)
    if head not in HEADS:
        raise ValueError(f"the head of VGG-5 is 'plain' or 'spinal'; got {head!r}")
    net = VGG5(HEADS[head](num_classes), in_channels=in_channels)
    net.apply(init_weights)
    return net
