"""FlexNet: Romero, Bruintjes, Bekkers, Tomczak, Hoogendoorn, van Gemert, "FlexConv: Continuous Kernel Convolutions with
Differentiable Kernel Sizes" (ICLR 2022); with CKConv layers it is the 2-D CKCNN of the same paper.

Stem, residual blocks of two convolutions, average, one linear layer; every convolution is a FlexConv (or CKConv) that
sees the full resolution. Two ways of counting are in use, and the EffConv paper mixes them:

| name there | blocks | layers with stem and head | width | parameters, CIFAR-10 |
| --- | --- | --- | --- | --- |
| FlexNet-3, named by its blocks | 3 | 8 | 24 | 277,090 |
| FlexNet-5, named by its blocks | 5 | 12 | 22 | 454,046 |
| FlexNet-16, FlexNet_Gabor-16, CKCNN-16, CKCNN_MAGNet-16, named by their layers | 7 | 16 | 24 | 671,650 (FlexNet-16) |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.ckconv import CKConv2d
from baselines.flexconv import FlexConv2d
from baselines.kernel_batch import KernelLayer
from baselines.kernel_nets import KERNEL_NETS
from baselines.kernel_network import KernelNetwork
from baselines.masks import THRESHOLD
from baselines.published import Plan, read_published
from baselines.published_layout import published_name

# blocks: (factor of the width, number of blocks with it)
FACTORS: Mapping[int, tuple[tuple[float, int], ...]] = {
    3: ((1, 1), (1.5, 1), (2, 1)),
    5: ((1, 1), (1.5, 2), (2, 2)),
    7: ((1, 2), (1.5, 3), (2, 2)),
}
TEMPERATURE = 15.0  # stored in the authors' state dicts, used by none of their masks here
MU_SPAN = {"flexconv": 0.125025, "ckconv": 1.0}  # the filters' centres start within this of the grid's centre

MakeLayer = Callable[[int, int], KernelLayer]  # channels in and out


def horizon_of(image_size: int) -> int:
    """The kernel's greatest side for images of this side: odd, and no smaller than the image."""
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 2:
        raise ValueError(f"image_size must be an integer of at least 2, the side of the images; got {image_size!r}")
    return image_size + 1 - image_size % 2


def layer_maker(
    layer: str, kernel_net: str, *, horizon: int, full_grid: bool = False, regrow: bool = True
) -> Callable[..., KernelLayer]:
    """Makes the layers of a network: (c_in, c_out, stride=1) -> layer. Raises `ValueError` for unknown names."""
    if layer not in MU_SPAN:
        raise ValueError(f"layer must be one of {', '.join(MU_SPAN)}; got {layer!r}")
    if kernel_net not in KERNEL_NETS:
        raise ValueError(f"kernel_net must be one of {', '.join(KERNEL_NETS)}; got {kernel_net!r}")
    settings: dict[str, Any] = {"horizon": horizon, "kernel_net": kernel_net, "mu_span": MU_SPAN[layer]}

    def make(c_in: int, c_out: int, stride: int = 1) -> KernelLayer:
        if layer == "ckconv":
            return CKConv2d(c_in, c_out, stride=stride, **settings)
        return FlexConv2d(c_in, c_out, stride=stride, full_grid=full_grid, regrow=regrow, **settings)

    return make


class Block(nn.Module):
    """ReLU(BN(conv2(dropout(ReLU(BN(conv1(x)))))) + shortcut(x)): (N, c_in, H, W) -> (N, c_out, H, W).

    Where channels change, the shortcut is a 1x1 convolution with bias and without batch norm.
    """

    def __init__(self, c_in: int, c_out: int, make: MakeLayer, *, dropout: float) -> None:
        super().__init__()
        self.conv1, self.norm1 = make(c_in, c_out), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = make(c_out, c_out), nn.BatchNorm2d(c_out)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, kernels: Iterator[Tensor]) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x, next(kernels))), inplace=True)
        y = self.norm2(self.conv2(self.dropout(y), next(kernels)))
        return F.relu(y + self.shortcut(x), inplace=True)


def head(c_in: int, num_classes: int) -> nn.Conv2d:
    """The last layer, a 1x1 convolution of the average: Kaiming normal weights (fan-in), bias 0."""
    layer = nn.Conv2d(c_in, num_classes, 1)
    nn.init.kaiming_normal_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class FlexNet(KernelNetwork):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for images of any size: the horizon sets the kernels' extent.

    `widths`: the output channels of each block. `make`: what makes the convolutions.
    """

    def __init__(
        self,
        stem: int,
        widths: Sequence[int],
        make: MakeLayer,
        *,
        in_channels: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = make(in_channels, stem), nn.BatchNorm2d(stem)
        pairs = zip([stem, *widths], widths, strict=False)
        self.blocks = nn.ModuleList(Block(c_in, c_out, make, dropout=dropout) for c_in, c_out in pairs)
        self.head = head(widths[-1], num_classes)

    def forward(self, x: Tensor, kernels: Sequence[Tensor] | None = None) -> Tensor:
        given = self.each_kernel(kernels)
        x = F.relu(self.norm1(self.conv1(x, next(given))), inplace=True)
        for block in self.blocks:
            x = block(x, given)
        return self.head(x.mean(dim=(2, 3), keepdim=True)).flatten(1)


def flexnet(
    blocks: int,
    width: int,
    *,
    layer: str = "flexconv",
    kernel_net: str = "magnet",
    full_grid: bool = False,
    regrow: bool = True,
    dropout: float = 0.2,
    in_channels: int = 3,
    num_classes: int = 10,
    image_size: int = 32,
) -> FlexNet:
    """FlexNet of 3, 5 or 7 blocks (see above), or with `layer="ckconv"` a CKCNN. `width`: channels of the stem.

    `image_size`, at least 2, sets the horizon: the next odd number. Raises `ValueError` for what does not exist.
    """
    if blocks not in FACTORS:
        raise ValueError(f"blocks must be one of {', '.join(map(str, FACTORS))}; got {blocks!r}")
    widths = [int(width * factor) for factor, count in FACTORS[blocks] for _ in range(count)]
    make = layer_maker(layer, kernel_net, horizon=horizon_of(image_size), full_grid=full_grid, regrow=regrow)
    return FlexNet(width, widths, make, in_channels=in_channels, num_classes=num_classes, dropout=dropout)


def load_published(state_dict: Mapping[str, Any], *, dropout: float = 0.0, horizon: int | None = None) -> FlexNet:
    """The network of a state dict in the layout of the authors' checkpoints; all sizes are read off the shapes.

    Its layers do exactly what the authors' do, so a mask at 1x1 does not grow again (`regrow=False`). `dropout` is not
    in the dict; 0 lets gradients in train mode be compared. `horizon`: only for a network that never ran, whose dict
    does not know it. Type and device are the dict's. Raises `ValueError`, one line, for a dict that does not fit.
    """
    plan = read_published(state_dict, horizon=horizon)
    net = FlexNet(
        plan.stem,
        plan.widths,
        _published_maker(plan),
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        dropout=dropout,
    ).to(plan.state["conv1.bias"])
    own = net.state_dict()
    net.load_state_dict({name: value.reshape(own[name].shape) for name, value in plan.state.items()})
    return net


def _published_maker(plan: Plan) -> MakeLayer:
    found = plan.structure
    kind = found.kernel_net
    make = layer_maker("flexconv" if found.masked else "ckconv", kind, horizon=plan.horizon, regrow=False)
    settings = {} if kind == "siren" else {"layers": found.filters - 1}

    def made(c_in: int, c_out: int) -> KernelLayer:
        layer = make(c_in, c_out)
        layer.kernel_net = KERNEL_NETS[kind](c_in * c_out, hidden=plan.hidden, **settings)
        return layer

    return made


def published_state(net: FlexNet) -> dict[str, Tensor]:
    """The inverse of `load_published`: the state dict in the authors' layout."""
    layer = net.conv1
    kernel_net = next(name for name, kind in KERNEL_NETS.items() if type(layer.kernel_net) is kind)
    state = {published_name(name, kernel_net): value.detach() for name, value in net.state_dict().items()}
    for name in net.layers():
        prefix = published_name(name, kernel_net)
        state[f"{prefix}.train_length"] = torch.tensor([layer.horizon], dtype=torch.int32)
        if isinstance(layer, FlexConv2d):
            state[f"{prefix}.temperature"] = torch.tensor([TEMPERATURE])
            state[f"{prefix}.mask_threshold"] = torch.tensor([THRESHOLD])
    return state
