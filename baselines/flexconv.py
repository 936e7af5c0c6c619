"""FlexConv: Romero et al., "FlexConv: Continuous Kernel Convolutions with Differentiable Kernel Sizes" (2022).

A kernel network gives the weights at positions p in [-1, 1]^2 (`baselines/kernel_nets.py`), times a Gaussian mask with
learnable mean and sigma on each axis,

    m(p) = exp(-1/2 ((p_0 - mean_0) / sigma_0)^2) exp(-1/2 ((p_1 - mean_1) / sigma_1)^2),

and the kernel is cropped to where the mask, along that axis, exceeds 0.1. Axis 0 is the rows'. One network and one mask
for all kernels of a layer. The grid has as many positions per axis as the largest kernel, the horizon: image size + 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.kernel_nets import MU_SPAN, make_kernel_net
from baselines.large_conv import conv2d_same

THRESHOLD = 0.1  # of the mask, below which the kernel is cropped
SIGMA = 0.075  # at the start
SMALLEST_SIGMA = 1e-3


def grid(horizon: int) -> Tensor:
    """(2, H, H): positions from -1 to 1, [0] along rows, [1] along columns. `ValueError` unless odd and 3 at least."""
    if horizon < 3 or horizon % 2 == 0:
        raise ValueError(f"the horizon must be an odd number of 3 or more, such as the image size + 1; got {horizon}")
    axis = torch.linspace(-1, 1, horizon)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"))


def centre(points: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (..., kh, kw) of (..., H, W); all sides odd."""
    top, left = ((side - k) // 2 for side, k in zip(points.shape[-2:], size, strict=True))
    return points[..., top : top + size[0], left : left + size[1]]


def above(sigma: Tensor, smallest: float) -> Tensor:
    """|sigma| raised to `smallest` at least, sign kept (0 counts as positive), gradient as if nothing had happened."""
    value = sigma.detach()
    return sigma + torch.copysign((smallest - value.abs()).clamp(min=0), value)


def axis_masks(points: Tensor, mask_params: Tensor, smallest: float = SMALLEST_SIGMA) -> Tensor:
    """exp(-1/2 ((p_d - mean_d) / sigma_d)^2) of both axes. (..., 2, kh, kw), (..., 2, 2) -> (..., 2, kh, kw).

    Below 1e-3 sigma counts as 1e-3, with the gradient of that value (R-25): the mask is then 0 next to the centre
    anyway, while quotients by sigma itself overflow.
    """
    mean, sigma = mask_params[..., None, None].unbind(-3)
    return torch.exp(-0.5 * ((points - mean) / above(sigma, smallest)).square())


def gaussian_mask(points: Tensor, mask_params: Tensor) -> Tensor:
    """m(p). points: (..., 2, kh, kw), mask_params: (..., 2, 2), rows (mean, sigma) by axis -> (..., kh, kw)."""
    m_0, m_1 = axis_masks(points, mask_params).unbind(-3)
    return m_0 * m_1


def regrowing_mask(points: Tensor, mask_params: Tensor, size: tuple[int, int], *, step: float) -> Tensor:
    """The mask cropped to `size`, on points that reach one position beyond it along an axis where `size` is 1 (R-24).

    Beyond the crop the value is 0 and the gradient is that of the mask at its neighbour, with the sigma at which the
    neighbour would come in: so a mask of one position still learns whether more would help. `step`: the grid's.
    """
    axes = axis_masks(points, mask_params)
    grown = axis_masks(points, mask_params, smallest=step / reach(THRESHOLD))
    m_0, m_1 = (
        torch.where(p.abs() > step / 2, g - g.detach(), m) if k == 1 else m
        for p, g, m, k in zip(points, grown, axes, size, strict=True)
    )
    return m_0 * m_1


def reach(threshold: float) -> float:
    """Where a Gaussian with sigma 1 falls to the threshold: 2.146 for 0.1."""
    return math.sqrt(-2 * math.log(threshold))


def crop_size(mask_params: Tensor, horizon: int, threshold: float = THRESHOLD) -> tuple[int, int]:
    """The sides (kh, kw) of the crop, odd, for mask_params (2, 2) and an odd horizon H. One transfer from the device.

    Kept are the positions |p_d| < r_d = |mean_d| + |sigma_d| sqrt(-2 ln threshold), so the crop has the grid's centre.
    """
    kh, kw = (crop_side(mean, sigma, horizon, threshold) for mean, sigma in mask_params.tolist())
    return kh, kw


def crop_side(mean: float, sigma: float, horizon: int, threshold: float = THRESHOLD) -> int:
    r = abs(mean) + abs(sigma) * reach(threshold)
    if not r < 1:  # also if r is not a number: training that diverged should end with a loss that says so
        return horizon
    return max(1, 2 * math.ceil(r * (horizon - 1) / 2) - 1)


class FlexConv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H/stride), ceil(W/stride)), with zero padding.

    horizon: positions per axis, odd. full_grid: evaluate the kernel network at all of them and crop afterwards, instead
    of at those that are kept (the same kernel). regrow: see `regrowing_mask`. Parameters: 33 in out + out + 4 and the
    kernel network's own (MAGNet 4,064).
    """

    positions: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        horizon: int,
        kernel_net: str = "magnet",
        stride: int = 1,
        full_grid: bool = False,
        regrow: bool = True,
        mu_span: float = MU_SPAN,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.horizon, self.full_grid, self.regrow = horizon, full_grid, regrow
        self.register_buffer("positions", grid(horizon), persistent=False)
        self.kernel_net = make_kernel_net(kernel_net, in_channels * out_channels, mu_span=mu_span)
        self.mask_params = nn.Parameter(torch.tensor([[0.0, SIGMA], [0.0, SIGMA]]))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def kernel_size(self) -> tuple[int, int]:
        """(kh, kw) of the crop."""
        return crop_size(self.mask_params.detach(), self.horizon)

    def window(self, size: tuple[int, int]) -> tuple[int, int]:
        """The sides that the kernel is computed with: those of the crop, but 3 for 1 where the mask can regrow (R-24).

        Only while gradients are recorded; elsewhere it is the crop.
        """
        if self.regrow and torch.is_grad_enabled() and self.mask_params.requires_grad:
            return max(size[0], 3), max(size[1], 3)
        return size

    def points(self, size: tuple[int, int] | None = None) -> Tensor:
        """(2, kh, kw): the grid cropped to `window`. size: `kernel_size()`, if known already."""
        return centre(self.positions, self.window(size or self.kernel_size()))

    def mask(self, points: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The mask at points (2, kh, kw) -> (kh, kw). size: `kernel_size()`, if known already."""
        size = size or self.kernel_size()
        if self.window(size) == size:
            return gaussian_mask(points, self.mask_params)
        return regrowing_mask(points, self.mask_params, size, step=2 / (self.horizon - 1))

    def kernel(self) -> Tensor:
        """(out, in, kh, kw): the masked and cropped kernel, with zeros around it where `window` is wider."""
        size = self.kernel_size()
        points = self.positions if self.full_grid else self.points(size)
        kernel = self.kernel_net.on_grid(points, self.mask(points, size))
        return centre(kernel, self.window(size)).unflatten(0, (self.out_channels, self.in_channels))

    def forward(self, x: Tensor, kernel: Tensor | None = None) -> Tensor:
        """x: (N, in, H, W), kernel: a result of `kernel()`, made here if not given."""
        return conv2d_same(x, self.kernel() if kernel is None else kernel, self.bias, self.stride)
