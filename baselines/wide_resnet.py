"""Wide ResNet: Zagoruyko and Komodakis, "Wide Residual Networks" (2016), the standard form WRN-depth-k for CIFAR.

Depth 6n + 4: a 3x3 stem with 16 channels, three stages of n pre-activation blocks with 16k, 32k and 64k channels, a
last BN-ReLU, global average, one linear layer. WRN-28-1 has 369,498 parameters, 364,032 of them in the residual 3x3
convolutions. The 1x1 projections of the shortcuts are no residual convolutions: they stay as they are (R-20).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

STEM = 16
WIDTHS = (16, 32, 64)


def conv(c_in: int, c_out: int, *, size: int, stride: int = 1) -> nn.Module:
    """A convolution without bias that gives ceil(H / stride) rows for every size and H.

    An even size pads one row and column more at the right and bottom (R-11).
    """
    left, right = (size - 1) // 2, size // 2
    if left == right:
        return nn.Conv2d(c_in, c_out, size, stride=stride, padding=left, bias=False)
    pad = nn.ZeroPad2d((left, right, left, right))
    return nn.Sequential(pad, nn.Conv2d(c_in, c_out, size, stride=stride, bias=False))


class WideBlock(nn.Module):
    """BN - ReLU - conv - BN - ReLU - conv, plus the shortcut. (N, c_in, H, W) -> (N, c_out, ceil(H/stride), ...).

    Where channels change the shortcut is a 1x1 convolution, without BN, of the input after its BN and ReLU; elsewhere
    it is the raw input.
    """

    def __init__(self, c_in: int, c_out: int, *, stride: int, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = conv(c_in, c_out, size=sizes[0], stride=stride)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out, size=sizes[1])
        self.projection = None if c_in == c_out else conv(c_in, c_out, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x), inplace=True)
        y = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        return y + (x if self.projection is None else self.projection(activated))


class WideResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits. `sizes`: one kernel size for each residual convolution."""

    def __init__(
        self, blocks: int, widen_factor: int, sizes: Iterator[int], *, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        widths = [width * widen_factor for width in WIDTHS]
        self.conv1 = conv(in_channels, STEM, size=3)
        self.layer1 = stage(STEM, widths[0], blocks, stride=1, sizes=sizes)
        self.layer2 = stage(widths[0], widths[1], blocks, stride=2, sizes=sizes)
        self.layer3 = stage(widths[1], widths[2], blocks, stride=2, sizes=sizes)
        self.bn = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(F.relu(self.bn(x), inplace=True).mean(dim=(2, 3)))


def stage(c_in: int, c_out: int, blocks: int, *, stride: int, sizes: Iterator[int]) -> nn.Sequential:
    """`blocks` blocks; the first changes channels and resolution. Takes 2 * blocks sizes."""
    return nn.Sequential(
        *(
            WideBlock(c_out if i else c_in, c_out, stride=1 if i else stride, sizes=(next(sizes), next(sizes)))
            for i in range(blocks)
        )
    )


def init_weights(module: nn.Module) -> None:
    """He normal with fan-in for convolutions and zero for the linear bias, as in the authors' Lua code; BN (1, 0).

    Their PyTorch port and other ports differ (fan-out, or BN weights from a uniform distribution). For `Module.apply`.
    """
    if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
        module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def checked_sizes(kernel_sizes: Sequence[int] | None, count: int) -> list[int]:
    """`count` kernel sizes, all 3 by default. Raises `ValueError` for another number or a size below 1."""
    sizes = [3] * count if kernel_sizes is None else list(kernel_sizes)
    if len(sizes) != count:
        raise ValueError(f"{count} kernel sizes are needed, one for each residual convolution; got {len(sizes)}")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"a kernel size must be a positive integer; got {size!r}")
    return sizes


def wide_resnet(
    depth: int,
    widen_factor: int,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    kernel_sizes: Sequence[int] | None = None,
) -> WideResNet:
    """WRN-depth-widen_factor. `kernel_sizes`: in forward order of the 6n residual convolutions.

    Raises `ValueError` for a depth that is not 6n + 4, a widening below 1 and kernel sizes that do not fit.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth of a Wide ResNet is 6n + 4 (10, 16, 22, 28, ...); got {depth}")
    if widen_factor < 1:
        raise ValueError(f"the widening factor of a Wide ResNet is 1 or more; got {widen_factor}")
    sizes = iter(checked_sizes(kernel_sizes, 6 * blocks))
    net = WideResNet(blocks, widen_factor, sizes, in_channels=in_channels, num_classes=num_classes)
    net.apply(init_weights)
    return net
