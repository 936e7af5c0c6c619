"""Several kernel networks of one kind, evaluated at the same positions: their parameters are stacked in the forward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.kernel_nets import SIREN, GaborNet, KernelNet, sinusoids, windows


def kind(net: KernelNet) -> tuple[object, ...]:
    """Networks can be stacked if this is equal: their class, hidden units and number of hidden layers."""
    return type(net), net.output.in_channels, len(net.linears)  # type: ignore[arg-type]


def features(nets: Sequence[Any], p: Tensor) -> Tensor:
    """`net.features(p)` of each. nets: G of one kind, p: (2, P) -> (G, hidden, P)."""
    return sine_features(nets, p) if isinstance(nets[0], SIREN) else multiplied_filters(nets, p)


def multiplied_filters(nets: Sequence[Any], p: Tensor) -> Tensor:
    """z_0 = g_0, z_l = g_l * (A_l z_(l-1) + a_l) -> z_L. All filters of all networks are one stack."""
    filters = [each for net in nets for each in net.filters]
    g = sinusoids(p, *affine(each.linear for each in filters))
    if isinstance(nets[0], GaborNet):
        mu, gamma = (torch.stack([getattr(each, name) for each in filters]) for name in ("mu", "gamma"))
        g = windows(p, mu, gamma) * g
    g_0, *g_l = g.unflatten(0, (len(nets), -1)).unbind(1)
    z = g_0
    for level, g_n in enumerate(g_l):
        weight, bias = affine(net.linears[level] for net in nets)
        z = g_n * torch.baddbmm(bias.unsqueeze(-1), weight, z)
    return z


def sine_features(nets: Sequence[Any], p: Tensor) -> Tensor:
    """h = sin(omega_0 (W h + b)), twice, from h = p."""
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
