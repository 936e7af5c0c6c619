"""What the last layer of MAGNet, Gabor and Fourier networks reads, times a mask, with the gradient written by hand.

`baselines/pointwise.py` and `baselines/stacked_nets.py` have the plain form, which these must equal. A filter factors
over the axes, and so does the mask m(p) = m_0(p_0) m_1(p_1). With x_d the positions of axis d, and for one filter

    e_d = exp(-1/2 (gamma_d (x_d - mu_d))^2)  (1 without windows),   s = W_0 x_0 + b,   t = W_1 x_1,
    R = (e_0 sin s, e_0 cos s),   C = (e_1 sin t, e_1 cos t),   g(i, j) = R_0(i) C_1(j) + R_1(i) C_0(j),

    z_0 = g_0,   y_l = A_l z_(l-1) + a_l,   z_l = g_l y_l,   features = (m z_L, m),   kernel = (A, a) features.

m goes into R and C of the last filter, where it costs next to nothing. Backward, d. being the gradient to .:

    dg_l = dz_l y_l,   dy_l = dz_l g_l,   dA_l = dy_l z_(l-1)^T,   da_l = sum_p dy_l,   dz_(l-1) = A_l^T dy_l,
    dR_c(i) = sum_j dg(i, j) C_(1-c)(j),   ds = dR_0 R_1 - dR_1 R_0,   dlog e_0 = dR_0 R_0 + dR_1 R_1, so for C and t,
    dgamma_d = -sum (dlog e_d) gamma_d (x_d - mu_d)^2,   dmu_d = sum (dlog e_d) gamma_d^2 (x_d - mu_d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from baselines.kernel_nets import GaborNet
from baselines.masks import SMALLEST_SIGMA, above

Size = tuple[int, int]


def axis_positions(grid: Tensor, size: Size) -> Tensor:
    """Of a grid (2, H, H), which is the same along both axes, the middle positions as of the longer of `size`, (k,)."""
    return middle(grid[1, 0], max(size))


def on_axes(x: Tensor) -> Tensor:
    """(k,) -> (2, k, 1): points for the functions of `baselines/masks.py`, each axis by itself."""
    return x.expand(2, -1).unsqueeze(2)


def masked_features(nets: Sequence[Any], x: Tensor, size: Size, masks: Tensor) -> Tensor:
    """(m z_L, m) on a grid of `size`, the middle of the positions x times x.

    nets: G of one kind, x: (k,), masks: (G, 2, k), of each axis -> (G, h + 1, kh kw). Differentiable once.
    """
    filters = [each for net in nets for each in net.filters]
    hidden = [linear for net in nets for linear in net.linears]
    waves = [each.linear for each in filters]
    groups = [[one.weight for one in hidden], [one.bias for one in hidden]]
    groups += [[one.weight for one in waves], [one.bias for one in waves]]
    if isinstance(nets[0], GaborNet):
        groups += [[each.mu for each in filters], [each.gamma for each in filters]]
    counts = [len(group) for group in groups]
    return FilterProducts.apply(len(nets), size, counts, x, masks, *(each for group in groups for each in group))


class FilterProducts(torch.autograd.Function):
    """The equations for G networks at once, F filters in all. flat: of A, a, W, b, mu, gamma `counts` tensors each."""

    @staticmethod
    def forward(
        ctx: Any, nets: int, size: Size, counts: Sequence[int], x: Tensor, masks: Tensor, *flat: Tensor
    ) -> Tensor:
        parameters, first = [], 0
        for count in counts:
            parameters.append(torch.stack(flat[first : first + count]))
            first += count
        ctx.size, ctx.shapes = size, [each.shape for each in parameters]
        h, layers = flat[0].shape[0], counts[0] // nets
        a_matrix, a = parameters[0].view(nets, layers, h, h), parameters[1].view(nets, layers, h, 1)
        waves, window = axis_waves(x, *(each.view(each.shape[0] * h, -1, 1) for each in parameters[2:]))
        last = waves.view(nets, layers + 1, h, 2, 2, -1)[:, -1]
        unmasked = last.clone()
        last *= masks[:, None, :, None]
        g = torch.bmm(*crossed(waves, size)).view(nets, layers + 1, h, -1)
        z, *others = g.unbind(1)
        features = g.new_empty(nets, h + 1, g.shape[-1])
        saved = []
        for level, (g_l, a_l, bias) in enumerate(zip(others, a_matrix.unbind(1), a.unbind(1), strict=True)):
            y = torch.baddbmm(bias, a_l, z)
            saved += [z, y]
            z = torch.mul(g_l, y, out=features[:, :h] if level + 1 == layers else None)
        m_0, m_1 = along_axes(masks, size)
        torch.mul(m_0, m_1, out=features[:, h].view(nets, *size))
        ctx.save_for_backward(x, masks, unmasked, a_matrix, waves, g, *saved, *window)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_features: Tensor) -> tuple[Any, ...]:
        x, masks, unmasked, a_matrix, waves, g, *rest = ctx.saved_tensors
        nets, layers, h = a_matrix.shape[:3]
        window = rest[2 * layers :]
        dg, d_matrix, da = torch.empty_like(g), torch.empty_like(a_matrix), g.new_empty(nets, layers, h)
        g_s, dg_s, transposed, d_matrices, da_s = (each.unbind(1) for each in (g, dg, a_matrix.mT, d_matrix, da))
        dz = d_features[:, :h]
        for level in reversed(range(layers)):
            z, y = rest[2 * level : 2 * level + 2]
            torch.mul(dz, y, out=dg_s[level + 1])
            dy = dz * g_s[level + 1]
            torch.bmm(dy, z.mT, out=d_matrices[level])
            torch.sum(dy, -1, out=da_s[level])
            dz = torch.bmm(transposed[level], dy, out=None if level else dg_s[0])
        d_waves = gradient_of_waves(waves, dg.view(-1, *ctx.size), ctx.size)
        (d_sin, d_cos), (sin, cos) = d_waves.unbind(2), waves.unbind(2)
        d_s_t = torch.addcmul(d_sin * cos, d_cos, sin, value=-1)  # (F, 2, k), as d log e below
        found = [d_matrix, da, d_s_t @ x, d_s_t[:, 0].sum(-1)]
        if window:
            distance, gamma = window
            found += gradients_of_windows(distance, gamma, torch.addcmul(d_sin * sin, d_cos, cos))
        of_last = d_waves.view(nets, layers + 1, h, 2, 2, -1)[:, -1] * unmasked
        d_masks = of_last.sum((1, 3)) + gradient_of_product(masks, d_features[:, h].view(nets, *ctx.size))
        each = [one for d, shape in zip(found, ctx.shapes, strict=True) for one in d.view(shape).unbind()]
        return None, None, None, None, d_masks, *each


def axis_waves(x: Tensor, w: Tensor, b: Tensor, *window: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(e sin, e cos) of s and t, (F, axes, 2, k), and what the gradient of e needs: x - mu and gamma, or nothing.

    x: (k,), w: (F, 2, 1), b: (F, 1, 1), window: mu (F, 2, 1) and gamma (F, 2, 1) or (F, 1, 1), or nothing.
    """
    s_t = w * x
    s_t[:, :1] += b
    waves = torch.stack((s_t.sin(), s_t.cos()), 2)
    if not window:
        return waves, []
    mu, gamma = window
    distance = x - mu
    waves *= (gamma * distance).square_().mul_(-0.5).exp_().unsqueeze(2)
    return waves, [distance, gamma]


def middle(of_axis: Tensor, side: int) -> Tensor:
    """The middle `side` of the last dimension; both odd."""
    return of_axis.narrow(-1, (of_axis.shape[-1] - side) // 2, side)


def crossed(waves: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """R^T (F, kh, 2), and C in the order in which R meets it, (F, 2, kw)."""
    rows, columns = waves.unbind(1)
    return middle(rows, size[0]).mT, middle(columns, size[1]).flip(1)


def along_axes(masks: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """m_0 (G, kh, 1) and m_1 (G, 1, kw)."""
    m_0, m_1 = masks.unbind(1)
    return middle(m_0, size[0]).unsqueeze(2), middle(m_1, size[1]).unsqueeze(1)


def both(d_rows: Tensor, d_columns: Tensor, k: int) -> Tensor:
    """(..., kh) and (..., kw) -> (..., 2, ..., k), at dimension 1; 0 on both sides of the shorter."""
    margins = [(k - each.shape[-1]) // 2 for each in (d_rows, d_columns)]
    padded = [F.pad(d, (m, m)) if m else d for d, m in zip((d_rows, d_columns), margins, strict=True)]
    return torch.stack(padded, 1)


def gradient_of_waves(waves: Tensor, dg: Tensor, size: Size) -> Tensor:
    """dg: (F, kh, kw) -> as waves."""
    rows, columns = crossed(waves, size)
    return both(torch.bmm(columns, dg.mT), torch.bmm(rows.mT, dg).flip(1), waves.shape[-1])


def gradients_of_windows(distance: Tensor, gamma: Tensor, d_log: Tensor) -> list[Tensor]:
    """dmu and dgamma, from x - mu and d log e, both (F, 2, k)."""
    gamma, weighted = gamma.squeeze(2), d_log * distance
    d_mu, d_gamma = gamma.square() * weighted.sum(-1), -gamma * (weighted * distance).sum(-1)
    return [d_mu, d_gamma if gamma.shape[1] == 2 else d_gamma.sum(1, keepdim=True)]


def gradient_of_product(masks: Tensor, dm: Tensor) -> Tensor:
    """dm: (G, kh, kw) -> (G, 2, k), as masks."""
    m_0, m_1 = along_axes(masks, (dm.shape[1], dm.shape[2]))
    return both(torch.bmm(dm, m_1.mT).squeeze(2), torch.bmm(m_0.mT, dm).squeeze(1), masks.shape[-1])


class AxisMasks(torch.autograd.Function):
    """`masks.axis_masks` on positions x of both axes: (k,), (..., 2, 2) -> (..., 2, k). With u = (x - mean) / sigma,
    dmean = sum dm m u / sigma and dsigma = sum dm m u^2 / sigma. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask_params: Tensor) -> Tensor:
        mean, sigma = mask_params.unsqueeze(-1).unbind(-2)
        sigma = above(sigma, SMALLEST_SIGMA)
        u = (x - mean) / sigma
        mask = torch.exp(-0.5 * u.square())
        ctx.save_for_backward(u, mask, sigma)
        return mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mask: Tensor) -> tuple[None, Tensor]:
        u, mask, sigma = ctx.saved_tensors
        d_mean = d_mask * mask * u / sigma
        return None, torch.stack((d_mean.sum(-1), (d_mean * u).sum(-1)), -1)
