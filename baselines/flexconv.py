"""FlexConv: Romero et al., "FlexConv: Continuous Kernel Convolutions with Differentiable Kernel Sizes" (2022).

A kernel network gives the weights at positions p in [-1, 1]^2 (`baselines/kernel_nets.py`), times a Gaussian mask with
learnable mean and sigma on each axis,

    m(p) = exp(-1/2 ((p_0 - mean_0) / sigma_0)^2) exp(-1/2 ((p_1 - mean_1) / sigma_1)^2),

and the kernel is cropped to where the mask, along that axis, exceeds 0.1. Axis 0 is the rows'. One network and one mask
for all kernels of a layer. The grid has as many positions per axis as the largest kernel, the horizon: image size + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.filter_products import AxisMasks, axis_positions, masked_features, on_axes
from baselines.kernel_nets import MU_SPAN, MultiplicativeNet, make_kernel_net
from baselines.large_conv import conv2d_same
from baselines.masks import axis_masks, both_axes, crop_size, moving_axis_masks, regrowing_axis_masks, sigma_of
from baselines.pointwise import LastLayer

SIGMA = 0.075  # at the start


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


class FlexConv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H/stride), ceil(W/stride)), with zero padding.

    horizon: positions per axis, odd. full_grid: evaluate the kernel network at all of them and crop afterwards, instead
    of at those that are kept (the same kernel). regrow: see R-24 at `regrowing_axis_masks`; a sigma near 0: R-25 at
    `masks.axis_masks`. Parameters: 33 in out + out + 4 and the kernel network's own (MAGNet 4,064).

    The host looks at the mask for the size of the crop, unless `held` says it, or `reserved` a window in which the
    device crops. `method`: of the convolution, see `conv2d_same`. `fused`: kernels by `baselines/filter_products.py`
    where the kernel network is a product of filters, or by the plain form.
    """

    positions: Tensor
    held: tuple[int, int] | None = None
    reserved: tuple[int, int] | None = None
    method: str = "auto"
    fused: bool = False

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

    def hold(self, size: int | None) -> None:
        """Sets the masks so that the crop is `size` x `size` and says so to the host, whatever the masks do from then
        on; None: the host looks again, at masks as they are. Raises `ValueError` for a size that no crop has.
        """
        if size is not None:
            self.check_side(size)
            with torch.no_grad():
                self.mask_params.copy_(torch.tensor([[0.0, sigma_of(size, self.horizon)]] * 2))
        self.held, self.reserved = None if size is None else (size, size), None

    def check_side(self, size: int) -> None:
        if size < 1 or size % 2 == 0:
            raise ValueError(f"a kernel can be held at odd sizes only, as its centre is a position; got {size}")
        if size > self.horizon:
            raise ValueError(f"a kernel can be held at sizes up to the horizon, {self.horizon}; got {size}")

    @property
    def needs_host(self) -> bool:
        """Whether a forward pass reads sizes from the device."""
        return self.held is None and self.reserved is None

    def kernel_size(self) -> tuple[int, int]:
        """(kh, kw) of the crop."""
        return self.held or crop_size(self.mask_params.detach(), self.horizon)

    def multiplies(self) -> bool:
        """Whether its kernel comes from `baselines/filter_products.py`."""
        return self.fused and isinstance(self.kernel_net, MultiplicativeNet)

    def window(self, size: tuple[int, int]) -> tuple[int, int]:
        """The sides that the kernel is computed with: those of the crop, but 3 for 1 where the mask can regrow (R-24).

        Only while gradients are recorded; elsewhere it is the crop. What is reserved is the window as it stands.
        """
        if self.reserved is None and self.regrow and torch.is_grad_enabled() and self.mask_params.requires_grad:
            return max(size[0], 3), max(size[1], 3)
        return size

    def points(self, size: tuple[int, int] | None = None) -> Tensor:
        """(2, kh, kw): the grid cropped to `window`. size: `kernel_size()`, if known already."""
        return centre(self.positions, self.window(size or self.kernel_size()))

    def axis_masks(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """The masks of both axes at points (2, kh, kw) -> (2, kh, kw), cropped to `size` or on the device."""
        if self.reserved is not None:
            return moving_axis_masks(points, self.mask_params, horizon=self.horizon, regrow=self.regrow)
        if self.window(size) == size:  # then the points end where the crop does
            return axis_masks(points, self.mask_params)
        return regrowing_axis_masks(points, self.mask_params, size, step=2 / (self.horizon - 1))

    def mask(self, points: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The mask at points (2, kh, kw) -> (kh, kw). size: `kernel_size()`, if known already."""
        return both_axes(self.axis_masks(points, size or self.kernel_size()))

    def kernel(self) -> Tensor:
        """(out, in, kh, kw): the masked and cropped kernel, with zeros around it where `window` is wider."""
        size = self.reserved or self.kernel_size()
        window = self.window(size)
        extent = (self.horizon, self.horizon) if self.full_grid else window
        if self.multiplies():
            x = axis_positions(self.positions, extent)
            plain = window == size and self.reserved is None
            masks = AxisMasks.apply(x, self.mask_params) if plain else self.axis_masks(on_axes(x), size).squeeze(2)
            (features,) = masked_features([self.kernel_net], x, extent, masks.unsqueeze(0))
            output = self.kernel_net.output
            kernel = LastLayer.apply(features, output.weight, output.bias).unflatten(1, extent)
        else:
            points = centre(self.positions, extent)
            kernel = self.kernel_net.on_grid(points, self.mask(points, size))
        return centre(kernel, window).unflatten(0, (self.out_channels, self.in_channels))

    def forward(self, x: Tensor, kernel: Tensor | None = None) -> Tensor:
        """x: (N, in, H, W), kernel: a result of `kernel()`, made here if not given."""
        kernel = self.kernel() if kernel is None else kernel
        return conv2d_same(x, kernel, self.bias, self.stride, method=self.method)
