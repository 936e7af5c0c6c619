"""ALL-CNN-C: Springenberg et al., "Striving for Simplicity: The All Convolutional Net" (2015), Table 1, model C.

Nine convolutions, ReLU after each, the last one too; two of them have stride 2 in the place of pools. Dropout 0.2 on
the input and 0.5 after each strided convolution. No batch norm. 1,369,738 parameters for CIFAR-10, where the maps go
32 -> 16 -> 8 -> 6: the seventh convolution is not padded. Dropout and initialisation are those of the Caffe version.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

SMALLEST = 9  # pixels: with fewer the 3x3 convolution without padding does not fit


class AllCNN(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for H and W of 9 or more."""

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.2),
            conv(in_channels, 96),
            conv(96, 96),
            conv(96, 96, stride=2),
            nn.Dropout(0.5),
            conv(96, 192),
            conv(192, 192),
            conv(192, 192, stride=2),
            nn.Dropout(0.5),
            conv(192, 192, padding=0),
            conv(192, 192, size=1),
            conv(192, num_classes, size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_size(min(x.shape[2:]))
        return self.layers(x).mean(dim=(2, 3))


def conv(c_in: int, c_out: int, *, size: int = 3, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    """Convolution and ReLU; padded to the same resolution unless `padding` is given."""
    side = size // 2 if padding is None else padding
    return nn.Sequential(nn.Conv2d(c_in, c_out, size, stride=stride, padding=side), nn.ReLU(inplace=True))


def init_weights(module: nn.Module) -> None:
    """Caffe's 'xavier', which knows the fan-in only: weights U(-a, a), a = sqrt(3 / fan_in). Biases 0. For `apply`."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        bound = math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)


def check_size(image_size: int) -> None:
    if image_size < SMALLEST:
        raise ValueError(f"ALL-CNN-C takes images of {SMALLEST} pixels or more a side; got {image_size}")


def all_cnn_c(*, in_channels: int = 3, num_classes: int = 10, image_size: int = 32) -> AllCNN:
    """ALL-CNN-C. Other sizes only change what the last average is over. `ValueError` for sizes below 9."""
    check_size(image_size)
    net = AllCNN(in_channels=in_channels, num_classes=num_classes)
    net.apply(init_weights)
    return net
