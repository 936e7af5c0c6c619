"""CKConv: Romero et al., "CKConv: Continuous Kernel Convolution For Sequential Data" (2022), for images.

A kernel network gives the weights at all positions of a grid as large as the image; no mask, no crop. FlexConv's code
has the two-dimensional form that the image experiments use.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.flexconv import grid
from baselines.kernel_nets import SIREN, make_kernel_net
from baselines.large_conv import conv2d_same

__all__ = ["SIREN", "CKConv2d"]


class CKConv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H/stride), ceil(W/stride)), with zero padding.

    horizon: the side of the kernel, odd. Parameters: 33 in out + out and the kernel network's own (SIREN 1,152).
    """

    positions: Tensor
    method: str = "auto"  # of the convolution, see `conv2d_same`

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        horizon: int,
        kernel_net: str = "siren",
        stride: int = 1,
        mu_span: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.horizon = horizon
        self.register_buffer("positions", grid(horizon), persistent=False)
        self.kernel_net = make_kernel_net(kernel_net, in_channels * out_channels, mu_span=mu_span)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def kernel_size(self) -> tuple[int, int]:
        """(horizon, horizon)."""
        return self.horizon, self.horizon

    def points(self) -> Tensor:
        """(2, horizon, horizon): the grid."""
        return self.positions

    def kernel(self) -> Tensor:
        """(out, in, horizon, horizon)."""
        return self.kernel_net.on_grid(self.positions).unflatten(0, (self.out_channels, self.in_channels))

    def forward(self, x: Tensor, kernel: Tensor | None = None) -> Tensor:
        """x: (N, in, H, W), kernel: a result of `kernel()`, made here if not given."""
        kernel = self.kernel() if kernel is None else kernel
        return conv2d_same(x, kernel, self.bias, self.stride, method=self.method)
