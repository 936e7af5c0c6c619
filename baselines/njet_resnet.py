"""N-JetNet-CIFARResNet: the CIFAR ResNet (option A) of `baselines/resnet.py`, its 3x3 convolutions as N-Jet layers.

The network was not released. With all 31 convolutions of depth 32 replaced, order 3 gives 515,433 parameters, the 0.52M
of Table 2; order 2 would be 310,441 and order 4 771,673 (R-29).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from baselines.njet import NJetConv2d, kernel_sizes
from baselines.resnet import WIDTHS, init_weights, shortcut

LEAST_SIZE = 5  # pixels; below, the last stage is 1 x 1, and a batch of one has no variance to train with


class NJetBlock(nn.Module):
    """N-Jet - BN - ReLU - N-Jet - BN, plus the shortcut, ReLU. (N, c_in, H, W) -> (N, c_out, ceil(H/stride), ...)."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, order: int, extent: float) -> None:
        super().__init__()
        self.c_out, self.stride = c_out, stride
        self.conv1 = NJetConv2d(c_in, c_out, order=order, extent=extent, stride=stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = NJetConv2d(c_out, c_out, order=order, extent=extent)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + shortcut(x, self.c_out, self.stride), inplace=True)


class NJetResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits; all convolutions are N-Jet, with the base's strides."""

    def __init__(self, blocks: int, *, order: int, extent: float, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = NJetConv2d(in_channels, WIDTHS[0], order=order, extent=extent)  # the stem too
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = stage(WIDTHS[0], WIDTHS[0], blocks, stride=1, order=order, extent=extent)
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], blocks, stride=2, order=order, extent=extent)  # stride kept
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], blocks, stride=2, order=order, extent=extent)
        self.fc = nn.Linear(WIDTHS[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))

    def kernel_sizes(self) -> dict[str, tuple[int, int]]:
        return kernel_sizes(self)


def stage(c_in: int, c_out: int, blocks: int, *, stride: int, order: int, extent: float) -> nn.Sequential:
    """`blocks` blocks; the first changes channels and resolution."""
    first = NJetBlock(c_in, c_out, stride=stride, order=order, extent=extent)
    rest = (NJetBlock(c_out, c_out, stride=1, order=order, extent=extent) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def njet_resnet(
    depth: int = 32, order: int = 3, *, extent: float = 2.0, in_channels: int, num_classes: int, image_size: int
) -> NJetResNet:
    """N-JetNet-CIFARResNet of depth 6n + 2; N-Jet layers start as 7 x 7 (sigma = 1, extent 2).

    Raises `ValueError` for another depth and for images below 5 pixels.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth of a CIFAR ResNet is 6n + 2 (8, 14, 20, ...); got {depth}")
    if image_size < LEAST_SIZE:
        raise ValueError(f"an N-JetNet-CIFARResNet takes images of {LEAST_SIZE} pixels or more; got {image_size}")
    net = NJetResNet(blocks, order=order, extent=extent, in_channels=in_channels, num_classes=num_classes)
    net.apply(init_weights)  # batch norm and the linear layer; N-Jet layers keep their own start
    return net
