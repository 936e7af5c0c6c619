"""The authors' Network in Network with N-Jet layers, as released with Pintea et al., "Resolution learning in deep
convolutional networks using scale-space theory" (2021).

Three N-Jet layers, each followed by two 1x1 convolutions; batch norm and ReLU after each of the nine, the last one
included. No pooling and no stride: all maps keep the image's size. Parameters for 10 classes and orders 1 to 4:
329,047, 496,663, 720,151, 999,511.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from baselines.njet import NJetConv2d, kernel_sizes

LEAST_SIZE = 2  # pixels; a batch of one 1 x 1 image has no variance to train with


class AveragedStack(nn.Sequential):
    """Layers in a row, then the mean over the map: (N, in_channels, H, W) -> (N, num_classes) logits."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(dim=(2, 3))

    def kernel_sizes(self) -> dict[str, tuple[int, int]]:
        return kernel_sizes(self)


def normed(conv: nn.Module, channels: int) -> nn.Sequential:
    """A convolution with `channels` outputs, batch norm, ReLU."""
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))


def normed_1x1(c_in: int, c_out: int) -> nn.Sequential:
    return normed(nn.Conv2d(c_in, c_out, 1, bias=False), c_out)


def njet_nin(
    order: int = 2, *, extent: float = 2.0, in_channels: int, num_classes: int, image_size: int
) -> AveragedStack:
    """Order 2 is what the authors' script passes. Raises `ValueError` for images below 2 pixels."""
    if image_size < LEAST_SIZE:
        raise ValueError(f"the N-Jet NiN takes images of {LEAST_SIZE} pixels or more; got {image_size}")

    def njet(c_in: int, c_out: int) -> nn.Sequential:
        return normed(NJetConv2d(c_in, c_out, order=order, extent=extent), c_out)

    return AveragedStack(
        OrderedDict(
            njet1=njet(in_channels, 192),
            mlp1=nn.Sequential(normed_1x1(192, 160), normed_1x1(160, 96)),
            drop1=nn.Dropout(0.5),
            njet2=njet(96, 192),
            mlp2=nn.Sequential(normed_1x1(192, 192), normed_1x1(192, 192)),
            drop2=nn.Dropout(0.5),
            njet3=njet(192, 192),
            mlp3=nn.Sequential(normed_1x1(192, 192), normed_1x1(192, num_classes)),
        )
    )
