"""Network in Network, the MNIST network: Lin, Chen, Yan, "Network In Network" (2014), from the authors' definition.

Three blocks of a 5x5 convolution and two 1x1 convolutions, ReLU after each of the nine, the last one too; a 3x3 max
pool with stride 2 and dropout 0.5 after the first two blocks, the global average after the third. No batch norm.
349,674 parameters with one channel and ten classes.
"""

from __future__ import annotations

from torch import Tensor, nn

SMALLEST = 4  # pixels: with fewer the second pool has nothing to pool


class NiN(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for H and W of 4 or more; 28 -> 14 -> 7 in the paper.

    The last convolution is `head`, since it trains at a tenth of the others' rate.
    """

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.block1 = mlpconv(in_channels, 96, 64, 48)
        self.block2 = mlpconv(48, 128, 96, 48)
        self.block3 = mlpconv(48, 128, 96)
        self.head = nn.Conv2d(96, num_classes, 1)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.dropout = nn.Dropout(0.5)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        check_size(min(x.shape[2:]))
        x = self.dropout(self.pool(self.block1(x)))
        x = self.dropout(self.pool(self.block2(x)))
        return self.relu(self.head(self.block3(x))).mean(dim=(2, 3))


def mlpconv(c_in: int, *widths: int) -> nn.Sequential:
    """A padded 5x5 convolution, then 1x1 convolutions, each with ReLU; H and W stay. One width for each convolution."""
    block = nn.Sequential()
    for i, width in enumerate(widths):
        block.append(nn.Conv2d(c_in, width, 1) if i else nn.Conv2d(c_in, width, 5, padding=2))
        block.append(nn.ReLU(inplace=True))
        c_in = width
    return block


def init_weights(module: nn.Module) -> None:
    """Weights N(0, 0.05^2), biases 0. For `Module.apply`."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.normal_(module.weight, std=0.05)
        nn.init.zeros_(module.bias)


def check_size(image_size: int) -> None:
    if image_size < SMALLEST:
        raise ValueError(f"Network in Network takes images of {SMALLEST} pixels or more a side; got {image_size}")


def nin(*, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> NiN:
    """The MNIST network. Other sizes only change what the last average is over. `ValueError` for sizes below 4."""
    check_size(image_size)
    net = NiN(in_channels=in_channels, num_classes=num_classes)
    net.apply(init_weights)
    return net
