"""What kernel networks (`baselines/kernel_nets.py`) are made of: functions of positions p = (row, column)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 50_000  # numbers that MaskedLinear makes at once, 200 kB


def matrix(linear: nn.Conv2d) -> Tensor:
    """(out, in, 1, 1) -> (out, in): a convolution over positions with a 1x1 kernel is this matrix on each of them."""
    return linear.weight.flatten(1)


def affine(linear: nn.Module, z: Tensor) -> Tensor:
    """A z + a for a 1x1 convolution. z: (in, P) -> (out, P)."""
    assert isinstance(linear, nn.Conv2d) and linear.bias is not None
    return torch.addmm(linear.bias.unsqueeze(1), matrix(linear), z)


def sinusoids(p: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """sin(W p + b). p: (..., 2, P), w: (..., h, 2), b: (..., h) -> (..., h, P)."""
    return torch.sin(w @ p + b.unsqueeze(-1))


def windows(p: Tensor, mu: Tensor, gamma: Tensor) -> Tensor:
    """exp(-1/2 sum_d (gamma_d (p_d - mu_d))^2). p: (..., 2, P), mu: (..., h, 2), gamma: so or (..., h, 1)
    -> (..., h, P).
    """
    u = gamma.unsqueeze(-1) * (p.unsqueeze(-3) - mu.unsqueeze(-1))
    return torch.exp(-0.5 * u.square().sum(-2))


def grid_filters(points: Tensor, w: Tensor, b: Tensor, window: tuple[Tensor, Tensor] | None) -> Tensor:
    """windows * sinusoids on a grid, where they factor over the axes: exp and sin at kh + kw positions, not at kh kw.

    sin(W p + b) = sin(s) cos(t) + cos(s) sin(t) with s = W_0 p_0 + b, t = W_1 p_1. points: (2, kh, kw), w: (F, 2),
    b: (F,), window: mu (F, 2) and gamma (F, 2) or (F, 1) -> (F, kh kw).
    """
    kh, kw = points.shape[1:]
    k = max(kh, kw)  # both axes at once; the shorter one has positions to spare
    x = torch.stack((F.pad(points[0, :, 0], (0, k - kh)), F.pad(points[1, 0], (0, k - kw))))
    s_t = torch.addcmul(F.pad(b.unsqueeze(1), (0, 1)).unsqueeze(2), w.unsqueeze(2), x)  # (F, 2, k)
    waves = torch.stack((s_t.sin(), s_t.cos()), 2)
    if window is not None:
        mu, gamma = (each.unsqueeze(2) for each in window)
        waves = waves * torch.exp(-0.5 * (gamma * (x - mu)).square()).unsqueeze(2)
    along_rows, along_columns = waves.unbind(1)  # (F, 2, k) each
    return (along_rows[..., :kh].mT @ along_columns[..., :kw].flip(1)).flatten(1)


def product(matrix: Tensor, features: Tensor) -> Tensor:
    """(n, h) by (h, P) -> (n, P).

    By blocks of rows on the CPU: at 33 x 33 positions BLAS needs twice the time for all at once.
    """
    rows = max(1, BLOCK // features.shape[1])
    if matrix.device.type != "cpu" or rows >= len(matrix):
        return torch.mm(matrix, features)
    y = features.new_empty(len(matrix), features.shape[1])
    for some, of_y in zip(matrix.split(rows), y.split(rows), strict=True):
        torch.mm(some, features, out=of_y)
    return y


class LastLayer(torch.autograd.Function):
    """[A a] f. f: (h + 1, P), A: (n, h, 1, 1), a: (n,) -> (n, P). Differentiable once.

    The gradients have no need of blocks.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        matrix = torch.cat((weight.flatten(1), bias.unsqueeze(1)), 1)
        ctx.save_for_backward(features, matrix)
        return product(matrix, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        features, matrix = ctx.saved_tensors
        h = len(features) - 1
        d_matrix = torch.mm(features, dy.t()).t()
        return torch.mm(matrix.t(), dy), d_matrix[:, :h, None, None], d_matrix[:, h]


class MaskedLinear(torch.autograd.Function):
    """m (A z + a) = [A a] [m z; m]. z: (h, P), m: (1, P), A: (n, h), a: (n,) -> (n, P). Differentiable once.

    A product with m of h features is cheaper than one with n outputs.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, m: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        features, matrix = torch.cat((z * m, m)), torch.cat((weight, bias.unsqueeze(1)), 1)
        ctx.save_for_backward(z, m, features, matrix)
        return product(matrix, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        z, m, features, matrix = ctx.saved_tensors
        d_features, d_matrix = matrix.t() @ dy, (features @ dy.t()).t()
        d_mz, d_m = d_features[:-1], d_features[-1:]
        return d_mz * m, d_m + (d_mz * z).sum(0, keepdim=True), d_matrix[:, :-1], d_matrix[:, -1]


class KernelNet(nn.Module):
    """(2, kh, kw) positions -> (out_channels, kh, kw): `features`, and on top one linear layer, `output`."""

    output: nn.Conv2d

    def features(self, p: Tensor) -> Tensor:
        """The last hidden units. p: (2, P) -> (hidden, P)."""
        raise NotImplementedError

    def grid_features(self, points: Tensor) -> Tensor:
        """`features` of positions (2, kh, kw) that form a grid -> (hidden, kh kw)."""
        return self.features(points.flatten(1))

    def forward(self, points: Tensor) -> Tensor:
        """points: (2, kh, kw), any positions -> (out_channels, kh, kw)."""
        return affine(self.output, self.features(points.flatten(1))).unflatten(1, points.shape[1:])

    def on_grid(self, points: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same for a grid, faster, and times a mask (kh, kw) if one is given."""
        z = self.grid_features(points)
        if mask is None:
            kernel = affine(self.output, z)
        else:
            kernel = MaskedLinear.apply(z, mask.reshape(1, -1), matrix(self.output), self.output.bias)
        return kernel.unflatten(1, points.shape[1:])
