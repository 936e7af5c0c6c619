"""Several kernel networks of one kind, evaluated on one grid: their parameters are stacked in the forward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.kernel_nets import SIREN, GaborNet, KernelNet
from baselines.pointwise import grid_filters, sinusoids, windows

FEW = 49  # positions


def kind(net: KernelNet) -> tuple[object, ...]:
    """Networks can be stacked if this is equal: their class, hidden units and number of hidden layers."""
    return type(net), net.output.in_channels, len(net.linears)  # type: ignore[arg-type]


def grid_features(nets: Sequence[Any], points: Tensor) -> Tensor:
    """`net.grid_features(points)` of each. nets: G of one kind, points: (2, kh, kw) -> (G, hidden, kh kw)."""
    if isinstance(nets[0], SIREN):
        return sine_features(nets, points.flatten(1))
    return multiplied_filters(nets, points)


def multiplied_filters(nets: Sequence[Any], points: Tensor) -> Tensor:
    """z_0 = g_0, z_l = g_l * (A_l z_(l-1) + a_l) -> z_L. The filters of all networks are evaluated as one long list."""
    filters = [each for net in nets for each in net.filters]
    w, b = affine(each.linear for each in filters)
    window = None
    if isinstance(nets[0], GaborNet):
        window = torch.cat([each.mu for each in filters]), torch.cat([each.gamma for each in filters])
    g = filter_values(points, w.flatten(0, 1), b.flatten(), window)
    linears = affine(linear for net in nets for linear in net.linears)
    z, *others = g.unflatten(0, (len(nets), -1, w.shape[1])).unbind(1)
    weights, biases = (each.unflatten(0, (len(nets), -1)).unbind(1) for each in linears)
    for g_l, weight, bias in zip(others, weights, biases, strict=True):
        z = g_l * torch.baddbmm(bias.unsqueeze(-1), weight, z)
    return z


def filter_values(points: Tensor, w: Tensor, b: Tensor, window: tuple[Tensor, Tensor] | None) -> Tensor:
    """`grid_filters`, on few positions by the plain equation, which then is faster."""
    if points[0].numel() > FEW:
        return grid_filters(points, w, b, window)
    p = points.flatten(1)
    g = sinusoids(p, w, b)
    return g if window is None else windows(p, *window) * g


def sine_features(nets: Sequence[Any], p: Tensor) -> Tensor:
    """h = sin(omega_0 (W h + b)), twice, from h = p. p: (2, P)."""
    h = p.expand(len(nets), -1, -1)
    for level in (0, 1):
        weight, bias = affine(net.linears[level] for net in nets)
        omega_0 = torch.stack([net.linears[level].omega_0 for net in nets]).unsqueeze(-1)
        h = torch.sin(omega_0 * torch.baddbmm(bias.unsqueeze(-1), weight, h))
    return h


def affine(linears: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """The weights (G, out, in) and biases (G, out) of 1x1 convolutions."""
    found = list(linears)
    return torch.stack([each.weight for each in found]).flatten(2), torch.stack([each.bias for each in found])
