"""CIFAR ResNet whose convolutions are FlexConv or CKConv layers: two rows of the EffConv paper's Table 2.

R-26: no code for them is published. All 6n + 1 convolutions are swapped, the stem too; in a strided block the layer
keeps every second row and column of its same-size output, as the option-A shortcut does. The layers bring their biases.
Depth 44: 2,581,142 parameters with FlexConv (horizon 33), 2,580,970 with CKConv (horizon 3), both with MAGNet kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from baselines.flexnet import horizon_of, layer_maker
from baselines.kernel_batch import KernelLayer
from baselines.kernel_network import KernelNetwork
from baselines.resnet import WIDTHS, shortcut

MakeLayer = Callable[..., KernelLayer]  # channels in and out, stride


class FlexBasicBlock(nn.Module):
    """layer - BN - ReLU - layer - BN, plus the shortcut, ReLU. (N, c_in, H, W) -> (N, c_out, ceil(H/stride), ...)."""

    def __init__(self, c_in: int, c_out: int, make: MakeLayer, *, stride: int) -> None:
        super().__init__()
        self.c_out, self.stride = c_out, stride
        self.conv1, self.bn1 = make(c_in, c_out, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = make(c_out, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, kernels: Iterator[Tensor]) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x, next(kernels))), inplace=True)
        y = self.bn2(self.conv2(y, next(kernels)))
        return F.relu(y + shortcut(x, self.c_out, self.stride), inplace=True)


class FlexResNet(KernelNetwork):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for images of any size: the horizon sets the kernels'."""

    def __init__(self, blocks: int, make: MakeLayer, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = make(in_channels, WIDTHS[0]), nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = stage(WIDTHS[0], WIDTHS[0], blocks, make, stride=1)
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], blocks, make, stride=2)
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], blocks, make, stride=2)
        self.fc = nn.Linear(WIDTHS[2], num_classes)
        nn.init.kaiming_normal_(self.fc.weight)

    def forward(self, x: Tensor, kernels: Sequence[Tensor] | None = None) -> Tensor:
        given = self.each_kernel(kernels)
        x = F.relu(self.bn1(self.conv1(x, next(given))), inplace=True)
        for block in (*self.layer1, *self.layer2, *self.layer3):
            x = block(x, given)
        return self.fc(x.mean(dim=(2, 3)))


def stage(c_in: int, c_out: int, blocks: int, make: MakeLayer, *, stride: int) -> nn.ModuleList:
    """`blocks` basic blocks; the first changes channels and resolution."""
    return nn.ModuleList(
        FlexBasicBlock(c_out if i else c_in, c_out, make, stride=1 if i else stride) for i in range(blocks)
    )


def flex_resnet(
    depth: int,
    layer: str,
    *,
    kernel_net: str = "magnet",
    horizon: int | None = None,
    full_grid: bool = False,
    in_channels: int = 3,
    num_classes: int = 10,
    image_size: int = 32,
) -> FlexResNet:
    """CIFAR ResNet of depth 6n + 2 with layers "flexconv" or "ckconv". Raises `ValueError` for what does not exist.

    `horizon`: the kernels' greatest side (CKConv: their only one), odd; by default the next odd of `image_size`.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth of a CIFAR ResNet is 6n + 2 (8, 14, 20, ...); got {depth}")
    by_image = horizon_of(image_size)
    make = layer_maker(layer, kernel_net, horizon=by_image if horizon is None else horizon, full_grid=full_grid)
    return FlexResNet(blocks, make, in_channels=in_channels, num_classes=num_classes)
