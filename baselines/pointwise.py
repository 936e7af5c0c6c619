"""What kernel networks (`baselines/kernel_nets.py`) are made of: functions of positions p = (row, column)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
    rows, columns = points[0, :, 0], points[1, 0]
    s, t = torch.addcmul(b.unsqueeze(1), w[:, :1], rows), w[:, 1:] * columns
    along_rows, along_columns = torch.stack((s.sin(), s.cos()), 1), torch.stack((t.cos(), t.sin()), 1)  # (F, 2, k)
    if window is not None:
        mu, gamma = (each.expand_as(w).unsqueeze(2) for each in window)
        along_rows = along_rows * torch.exp(-0.5 * (gamma[:, :1] * (rows - mu[:, :1])).square())
        along_columns = along_columns * torch.exp(-0.5 * (gamma[:, 1:] * (columns - mu[:, 1:])).square())
    return (along_rows.mT @ along_columns).flatten(1)


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
        """The same for a grid, faster, and times a mask (kh, kw) if one is given.

        m (A z + a) = [A a] [m z; m]: a product with m of 32 features is cheaper than one with the kernel.
        """
        z = self.grid_features(points)
        if mask is None:
            kernel = affine(self.output, z)
        else:
            assert self.output.bias is not None
            m = mask.reshape(1, -1)
            kernel = torch.cat((matrix(self.output), self.output.bias.unsqueeze(1)), 1) @ torch.cat((z * m, m))
        return kernel.unflatten(1, points.shape[1:])
