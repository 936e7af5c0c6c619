"""CKCNN-7, a guess: the EffConv paper gives it 0.70M parameters and 71.7 % on CIFAR-10, and nobody describes it.

R-27: neither FlexConv's nor CKConv's authors publish a two-dimensional CKCNN of seven layers. CKConv's own CKCNN has no
stem and constant width; three such blocks, 64 channels wide, in two dimensions are six CKConv layers and the head, and
have 691,146 parameters: the nearest to 0.70M that was found.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from baselines.flexnet import Block, head, horizon_of, layer_maker
from baselines.kernel_network import KernelNetwork

BLOCKS, WIDTH = 3, 64


class CKCNN7(KernelNetwork):
    """(N, in_channels, H, W) -> (N, num_classes) logits: FlexNet's blocks with SIREN kernels, average, linear."""

    def __init__(self, *, horizon: int, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        make = layer_maker("ckconv", "siren", horizon=horizon)
        widths = [in_channels] + [WIDTH] * (BLOCKS - 1)
        self.blocks = nn.ModuleList(Block(c_in, WIDTH, make, dropout=dropout) for c_in in widths)
        self.head = head(WIDTH, num_classes)

    def forward(self, x: Tensor, kernels: Sequence[Tensor] | None = None) -> Tensor:
        given = self.each_kernel(kernels)
        for block in self.blocks:
            x = block(x, given)
        return self.head(x.mean(dim=(2, 3), keepdim=True)).flatten(1)


def ckcnn7(*, in_channels: int = 3, num_classes: int = 10, image_size: int = 32, dropout: float = 0.2) -> CKCNN7:
    """The nearest reconstruction of CKCNN-7 (see above). `image_size`, at least 2, sets the horizon: the next odd."""
    horizon = horizon_of(image_size)
    return CKCNN7(horizon=horizon, in_channels=in_channels, num_classes=num_classes, dropout=dropout)
