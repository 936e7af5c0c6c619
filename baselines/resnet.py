"""CIFAR ResNet: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2016), section 4.2, option A.

Depth 6n + 2: a 3x3 stem with 16 channels, three stages of n basic blocks with 16, 32 and 64 channels (the first block
of stages 2 and 3 has stride 2), global average, one linear layer. ResNet-20 has 269,722 parameters, 267,264 of them in
the residual convolutions. Other widths of the stages than the paper's may be given; the stem has the first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

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


def shortcut(x: Tensor, c_out: int, stride: int) -> Tensor:
    """Option A, without parameters: every second row and column from the first; new channels are zero, half a side.

    Of an odd number of new channels the one more stands behind.
    """
    if stride == 1:
        return x
    new = c_out - x.shape[1]
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new - new // 2))


class BasicBlock(nn.Module):
    """conv - BN - ReLU - conv - BN, plus the shortcut, ReLU. (N, c_in, H, W) -> (N, c_out, ceil(H/stride), ...)."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.c_out, self.stride = c_out, stride
        self.conv1 = conv(c_in, c_out, size=sizes[0], stride=stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out, size=sizes[1])
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + shortcut(x, self.c_out, self.stride), inplace=True)


class CifarResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits. `sizes`: one kernel size for each residual convolution."""

    def __init__(
        self, blocks: int, widths: Sequence[int], sizes: Iterator[int], *, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        w1, w2, w3 = widths
        self.conv1 = conv(in_channels, w1, size=3)
        self.bn1 = nn.BatchNorm2d(w1)
        self.layer1 = stage(w1, w1, blocks, stride=1, sizes=sizes)
        self.layer2 = stage(w1, w2, blocks, stride=2, sizes=sizes)
        self.layer3 = stage(w2, w3, blocks, stride=2, sizes=sizes)
        self.fc = nn.Linear(w3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def stage(c_in: int, c_out: int, blocks: int, *, stride: int, sizes: Iterator[int]) -> nn.Sequential:
    """`blocks` basic blocks; the first changes channels and resolution. Takes 2 * blocks sizes."""
    return nn.Sequential(
        *(
            BasicBlock(c_out if i else c_in, c_out, stride=1 if i else stride, sizes=(next(sizes), next(sizes)))
            for i in range(blocks)
        )
    )


def init_weights(module: nn.Module) -> None:
    """Kaiming normal (fan-in) for convolution and linear weights, the rest as PyTorch does. For `Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
        module.reset_parameters()
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)


def checked_sizes(kernel_sizes: Sequence[int] | None, count: int) -> list[int]:
    """`count` kernel sizes, all 3 by default. Raises `ValueError` for another number or a size below 1."""
    sizes = [3] * count if kernel_sizes is None else list(kernel_sizes)
    if len(sizes) != count:
        raise ValueError(f"{count} kernel sizes are needed, one for each residual convolution; got {len(sizes)}")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"a kernel size must be a positive integer; got {size!r}")
    return sizes


def checked_widths(widths: Sequence[int] | None) -> list[int]:
    """The three stages' channels, 16, 32, 64 by default. Raises `ValueError` unless three positive that never fall."""
    chosen = list(WIDTHS if widths is None else widths)
    whole = all(isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in chosen)
    if len(chosen) != 3 or not whole or chosen != sorted(chosen):
        # Option A can add channels, not take them away.
        raise ValueError(f"widths are three positive integers, none below the one before; got {chosen}")
    return chosen


def cifar_resnet(
    depth: int,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    kernel_sizes: Sequence[int] | None = None,
    widths: Sequence[int] | None = None,
) -> CifarResNet:
    """CIFAR ResNet of depth 6n + 2. `kernel_sizes`: in forward order of the 6n residual convolutions.

    `widths`: channels of the three stages, 16, 32 and 64 if None. Raises `ValueError` for another depth and for kernel
    sizes or widths that do not fit.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth of a CIFAR ResNet is 6n + 2 (8, 14, 20, ...); got {depth}")
    sizes = iter(checked_sizes(kernel_sizes, 6 * blocks))
    net = CifarResNet(blocks, checked_widths(widths), sizes, in_channels=in_channels, num_classes=num_classes)
    net.apply(init_weights)
    return net
