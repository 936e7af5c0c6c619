"""N-Jet layer: Pintea, Tomen, Goes, Loog, van Gemert, "Resolution learning in deep convolutional networks using
scale-space theory" (2021), with the constants of the authors' released code.

Each filter is a linear combination of Gaussian derivatives up to an order; their scale sigma is learned, one for each
layer, and the filter's size follows it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (-100.0, 7.0)  # sigma from 2^-100, finite in float32 as is its inverse, to 128 pixels, beyond the images here
FAR = 40.0  # in sigmas: exp(-FAR^2 / 2) is 0 in float64


class ScaleError(ValueError, FloatingPointError):
    """A scale that no layer can have: asked for (a wrong value) or arrived at by learning (training diverged)."""


def half_width(scale: float, extent: float) -> int:
    """h = ceil(extent sigma + 0.5), sigma = 2^scale; the kernel has the 2h + 1 taps -h..h, never fewer than 3.

    Raises `ScaleError` for a scale that is not finite, or far from any image's.
    """
    least, most = SCALES
    if not least <= scale <= most:  # NaN is neither
        raise ScaleError(f"the scale of an N-Jet layer lies in {least:g}..{most:g}; got {scale:g}: learn more slowly")
    return math.ceil(extent * 2.0**scale + 0.5)


def gaussian_derivatives(scale: Tensor, order: int, half: int) -> Tensor:
    """Scale-normalised derivatives of a sampled Gaussian. scale: (1,) -> (order + 1, 2 half + 1).

    With u = x / sigma and g = exp(-u^2 / 2) over its sum: D_n = sigma^n d^n g / dx^n = (-1)^n He_n(u) g. The recurrence
    He_{n+1} = u He_n - n He_{n-1} becomes D_{n+1} = -u D_n - n D_{n-1}. No derivative is centred or normed further.
    """
    x = torch.arange(-half, half + 1, dtype=scale.dtype, device=scale.device)
    u = (x * torch.exp2(-scale)).clamp(-FAR, FAR)  # g is 0 beyond: changes nothing, and keeps 0 * inf out of gradients
    g = torch.exp(-u * u / 2)
    g = g / g.sum()
    derivatives = [g, -u * g]
    for n in range(1, order):
        derivatives.append(-u * derivatives[n] - n * derivatives[n - 1])
    return torch.stack(derivatives[: order + 1])


def derivative_orders(order: int) -> list[tuple[int, int]]:
    """(along rows, along columns) of the (order + 1)(order + 2) / 2 basis functions, as the authors store them."""
    return [(i, j) for i in range(order + 1) for j in range(order - i, -1, -1)]


def safe_sample(x: Tensor, scale: float, r: float) -> Tensor:
    """The authors' optional subsampling: nearest-neighbour, by 2^sigma / r where that is above 1."""
    factor = max(1.0, 2.0 ** (2.0**scale) / r)
    height, width = (max(1, int(side / factor)) for side in x.shape[2:])
    return F.interpolate(x, (height, width))


class NJetConv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)); zero padding, no bias.

    kernel[o, c] = sum_f alphas[f, c, o] basis[f], where c counts within o's group; applied without a flip. The size
    follows sigma = 2^scale in each forward pass, and no gradient goes through it. `extent`: sigmas on each side.
    `safe_sampling`: r of the authors' subsampling of the input (theirs is 4); off by default.
    """

    needs_host = True  # the size follows from sigma, which lies on the device

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        order: int = 3,
        extent: float = 2.0,
        stride: int = 1,
        groups: int = 1,
        init_scale: float = 0.0,
        safe_sampling: float | None = None,
    ) -> None:
        super().__init__()
        check(in_channels, out_channels, order=order, extent=extent, stride=stride, groups=groups)
        half_width(init_scale, extent)
        if safe_sampling is not None and not safe_sampling > 0:
            raise ValueError(f"safe_sampling is a positive number, or None for none; got {safe_sampling}")
        self.order, self.extent, self.stride, self.groups = order, extent, stride, groups
        self.init_scale, self.safe_sampling = init_scale, safe_sampling
        orders = torch.tensor(derivative_orders(order))
        self.register_buffer("orders", orders, persistent=False)
        self.orders: Tensor  # (F, 2)
        self.alphas = nn.Parameter(torch.empty(len(orders), in_channels // groups, out_channels))
        self.scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """alphas ~ N(0, 1), whatever the fan-in: batch norm follows."""
        nn.init.normal_(self.alphas)
        nn.init.constant_(self.scale, self.init_scale)

    def kernel_size(self) -> tuple[int, int]:
        size = 2 * half_width(self.scale.item(), self.extent) + 1
        return size, size

    def basis(self) -> Tensor:
        """(F, k, k): basis[f](y, x) = D_i(y) D_j(x), (i, j) = derivative_orders(order)[f]."""
        derivatives = gaussian_derivatives(self.scale, self.order, self.kernel_size()[0] // 2)
        rows, columns = derivatives[self.orders[:, 0]], derivatives[self.orders[:, 1]]
        return rows.unsqueeze(2) * columns.unsqueeze(1)

    def kernel(self) -> Tensor:
        """(out_channels, in_channels / groups, k, k), in one product of matrices."""
        basis = self.basis()
        alphas = self.alphas.permute(2, 1, 0)
        return (alphas.flatten(0, 1) @ basis.flatten(1)).view(*alphas.shape[:2], *basis.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel()
        if self.safe_sampling is not None:
            x = safe_sample(x, self.scale.item(), self.safe_sampling)
        return F.conv2d(x, kernel, stride=self.stride, padding=kernel.shape[-1] // 2, groups=self.groups)

    def extra_repr(self) -> str:
        in_channels, out_channels = self.alphas.shape[1] * self.groups, self.alphas.shape[2]
        return f"{in_channels}, {out_channels}, order={self.order}, stride={self.stride}, groups={self.groups}"


def check(in_channels: int, out_channels: int, *, order: int, extent: float, stride: int, groups: int) -> None:
    """Raises `ValueError` for arguments of which no layer can be made."""
    if order < 0:
        raise ValueError(f"the order of an N-Jet layer is 0 or more; got {order}")
    if not 0 < extent < math.inf:
        raise ValueError(f"the extent of an N-Jet layer is a positive number of sigmas; got {extent}")
    if stride < 1 or groups < 1 or in_channels < 1 or out_channels < 1:
        raise ValueError("channels, stride and groups of an N-Jet layer are 1 or more")
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups must divide the channels; got {in_channels} -> {out_channels}")


def kernel_sizes(net: nn.Module) -> dict[str, tuple[int, int]]:
    """Module name -> current (kh, kw) of each N-Jet layer of a network, in the order of its modules."""
    return {name: module.kernel_size() for name, module in net.named_modules() if isinstance(module, NJetConv2d)}
