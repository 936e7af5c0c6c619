"""DCN-sigma^ji: Tomen, Pintea, van Gemert, "Deep Continuous Networks" (ICML 2021).

Depth is continuous: each of three blocks solves dh/dt = f(t, h) from t = 0 to 2. Space is continuous too: each filter
of f is a weighted sum of Gaussian derivatives, and each pair of input channel j and output channel i has a sigma of its
own, hence the name. 472,202 parameters for CIFAR-10.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint, odeint_adjoint

ORDER = 2
RADIUS = 3  # kernels are 7x7 whatever sigma is: a wide Gaussian is cut off
DERIVATIVES = tuple((i, j) for i in range(ORDER + 1) for j in range(ORDER - i, -1, -1))  # (rows, columns), i + j <= 2
WIDTHS = (32, 64, 128)
END = 2.0  # of the ODE's time
Split = tuple[Tensor, Tensor]
SMALLEST = 6  # pixels: with fewer the second strided convolution has nothing to see


def gaussian_derivatives(sigma: Tensor) -> Tensor:
    """sigma: (...) pixels -> (3, ..., 7): D_n(x) = (-1)^n He_n(x / sigma) g(x) for n = 0, 1, 2 and x = -3..3.

    g is the Gaussian, scaled to sum 1 over the seven taps; He_n are the probabilists' Hermite polynomials. This is
    sigma^n times the n-th derivative (scale-normalised).
    """
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=sigma.dtype, device=sigma.device)
    u = x / sigma[..., None]
    g = torch.softmax(-(u**2) / 2, dim=-1)
    return torch.stack((g, -u * g, (u**2 - 1) * g))


class PairwiseGaussianConv(nn.Module):
    """Convolution with one sigma per channel pair: W_ij = sum_ab alpha_ab,ji D_a(y) D_b(x), sigma_ji = 2^scale_ji.

    (N, c_in, H, W) -> (N, c_out, H, W), zero-padded, no bias; 7 parameters per pair.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(0.1 * torch.randn(len(DERIVATIVES), c_in, c_out))
        self.scale = nn.Parameter(2 / 3 * torch.randn(c_in, c_out))

    def kernel(self) -> Tensor:
        """(c_out, c_in, 7, 7), all pairs at once."""
        d = gaussian_derivatives(2**self.scale)  # (3, c_in, c_out, 7)
        rows, columns = (d[list(orders)] for orders in zip(*DERIVATIVES, strict=True))
        return torch.einsum("fjiy,fjix->ijyx", self.alpha[..., None] * rows, columns)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), padding=RADIUS)

    def split(self, height: int, width: int) -> Split:
        """W and m so that the layer of [t, h], the constant channel t in front of h, is W * h + t m (R-30).

        W: (c_out, c_in - 1, 7, 7); m: (1, c_out, H, W), what the layer makes of a one in every place of that channel.
        """
        kernel = self.kernel()
        ones = kernel.new_ones(1, 1, height, width)
        return kernel[:, 1:].contiguous(), F.conv2d(ones, kernel[:, :1], padding=RADIUS)


def conv_with_time(t: Tensor, h: Tensor, split: Split) -> Tensor:
    """conv[t, h] for a scalar t; (N, C, H, W) -> (N, C, H, W)."""
    w, m = split
    return F.conv2d(h, w, padding=RADIUS) + t * m


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels), channels)


class ODEBlock(nn.Module):
    """h(0) -> h(2) of dh/dt = f(t, h); (N, C, H, W) -> (N, C, H, W).

    Dormand-Prince 5(4) with adaptive steps. `adjoint`: gradients from a second ODE backward in time (the authors'
    choice, memory of one evaluation), else through the solver's own steps. `nfe` counts evaluations of f, those of the
    adjoint's backward pass too; set it to 0 to start again. Output is NaN where the solver finds no finite solution.
    """

    needs_host = True  # the solver looks at errors to choose its steps

    def __init__(self, channels: int, *, adjoint: bool, rtol: float, atol: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (group_norm(channels) for _ in range(3))
        self.conv1, self.conv2 = (PairwiseGaussianConv(channels + 1, channels) for _ in range(2))
        self.adjoint, self.rtol, self.atol = adjoint, rtol, atol
        self.nfe = 0

    def derivative(self, t: Tensor, h: Tensor, split1: Split, split2: Split) -> Tensor:
        """f(t, h) = GN(conv2[t, CELU(GN(conv1[t, CELU(GN(h))]))])."""
        self.nfe += 1
        h = conv_with_time(t, F.celu(self.norm1(h)), split1)
        h = conv_with_time(t, F.celu(self.norm2(h)), split2)
        return self.norm3(h)

    def forward(self, h: Tensor) -> Tensor:
        # Kernels are built once per solve: they do not depend on t.
        split1, split2 = (conv.split(*h.shape[2:]) for conv in (self.conv1, self.conv2))

        def f(t: Tensor, h: Tensor) -> Tensor:
            return self.derivative(t, h, split1, split2)

        times = h.new_tensor([0.0, END])
        settings = {"rtol": self.rtol, "atol": self.atol, "method": "dopri5"}
        try:
            if not self.adjoint:
                return odeint(f, h, times, **settings)[-1]
            # The adjoint ends at W and m; autograd goes on from there to alpha and scale.
            norms = [p for norm in (self.norm1, self.norm2, self.norm3) for p in norm.parameters()]
            return odeint_adjoint(f, h, times, **settings, adjoint_params=(*split1, *split2, *norms))[-1]
        except AssertionError:  # torchdiffeq's word for a state that is not finite and for steps that shrink to nothing
            return torch.full_like(h, torch.nan)  # cut off from h: an adjoint further up could not take NaN gradients


class DCN(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for H and W of 6 or more; 32 -> 30 -> 15 -> 7."""

    def __init__(self, *, in_channels: int, num_classes: int, adjoint: bool, rtol: float, atol: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, WIDTHS[0], 3)
        self.blocks = nn.ModuleList(ODEBlock(width, adjoint=adjoint, rtol=rtol, atol=atol) for width in WIDTHS)
        self.norms = nn.ModuleList(group_norm(width) for width in WIDTHS)
        self.downsample = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(WIDTHS))
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    @property
    def nfe(self) -> int:
        """Evaluations of f in all blocks so far."""
        return sum(block.nfe for block in self.blocks if isinstance(block, ODEBlock))

    def forward(self, x: Tensor) -> Tensor:
        check_size(min(x.shape[2:]))
        h = self.stem(x)
        for block, norm, down in zip(self.blocks, self.norms, [*self.downsample, None], strict=True):
            h = F.celu(norm(block(h)))
            h = h if down is None else down(h)
        return self.head(h.mean(dim=(2, 3)))


def check_size(image_size: int) -> None:
    if image_size < SMALLEST:
        raise ValueError(f"DCN takes images of {SMALLEST} pixels or more a side; got {image_size}")


def dcn(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    image_size: int = 32,
    adjoint: bool = True,
    rtol: float = 1e-3,
    atol: float = 1e-3,
) -> DCN:
    """DCN-sigma^ji with the authors' solver tolerances. `ValueError` for image sizes below 6 and tolerances not > 0.

    The default initialisation of PyTorch but for the filters: alpha ~ N(0, 0.1^2), scale ~ N(0, (2/3)^2).
    """
    check_size(image_size)
    if rtol <= 0 or atol <= 0:
        raise ValueError(f"the solver's tolerances must be positive; got rtol={rtol}, atol={atol}")
    return DCN(in_channels=in_channels, num_classes=num_classes, adjoint=adjoint, rtol=rtol, atol=atol)
