"""FlexConv's mask and where it is cropped; the equations are in `baselines/flexconv.py`.

With r_d = |mean_d| + |sigma_d| sqrt(-2 ln 0.1), kept are the positions |p_d| < r_d of axis d, and always the centre.
The host decides that from numbers that it fetched (`crop_side`), or the device does, with the same result
(`moving_axis_masks`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

THRESHOLD = 0.1  # of the mask, below which the kernel is cropped
SMALLEST_SIGMA = 1e-3


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


def both_axes(axes: Tensor) -> Tensor:
    """The mask: the product of those of the axes. (..., 2, kh, kw) -> (..., kh, kw)."""
    m_0, m_1 = axes.unbind(-3)
    return m_0 * m_1


def gaussian_mask(points: Tensor, mask_params: Tensor) -> Tensor:
    """m(p). points: (..., 2, kh, kw), mask_params: (..., 2, 2), rows (mean, sigma) by axis -> (..., kh, kw)."""
    return both_axes(axis_masks(points, mask_params))


def regrowing_axis_masks(points: Tensor, mask_params: Tensor, size: tuple[int, int], *, step: float) -> Tensor:
    """`axis_masks` cropped to `size`, on points that reach one position beyond it along an axis where it is 1 (R-24).

    Beyond the crop the value is 0 and the gradient is that of the mask at its neighbour, with the sigma at which the
    neighbour would come in: so a mask of one position still learns whether more would help. `step`: the grid's.
    """
    axes = axis_masks(points, mask_params)
    grown = grown_axis_masks(points, mask_params, step)
    return torch.stack(
        [
            torch.where(p.abs() > step / 2, g, m) if k == 1 else m
            for p, g, m, k in zip(points, grown, axes, size, strict=True)
        ]
    )


def grown_axis_masks(points: Tensor, mask_params: Tensor, step: float) -> Tensor:
    """0, with the gradient of masks that just reach the neighbours of the centre, or farther."""
    grown = axis_masks(points, mask_params, smallest=step / reach(THRESHOLD))
    return grown - grown.detach()


def moving_axis_masks(points: Tensor, mask_params: Tensor, *, horizon: int, regrow: bool) -> Tensor:
    """`axis_masks`, 0 beyond the crop wherever that now is, and no look at it by the host. Shapes as there.

    With `regrow`, along an axis where the crop is 1 the centre's neighbours are as in `regrowing_axis_masks`.
    """
    step = 2 / (horizon - 1)
    n, reached = (points / step).round().abs(), crop_reach(mask_params, horizon)[..., None, None]
    axes = axis_masks(points, mask_params)
    cropped = torch.where(n <= reached, axes, torch.zeros_like(axes))
    if not regrow:
        return cropped
    return torch.where((n == 1) & (reached == 0), grown_axis_masks(points, mask_params, step), cropped)


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


def crop_reach(mask_params: Tensor, horizon: int) -> Tensor:
    """(`crop_side` - 1) / 2 on the device, in float64 as there. (..., 2, 2) -> (..., 2)."""
    mean, sigma = mask_params.detach().double().abs().unbind(-1)
    r = mean + sigma * reach(THRESHOLD)
    side = (r * (horizon - 1) / 2).ceil() - 1
    return torch.where(r < 1, side, (horizon - 1) / 2).clamp(min=0)


def sigma_of(side: int, horizon: int) -> float:
    """The sigma in the middle of those that crop a mask with mean 0 to this side; of the horizon's, one step in."""
    return side / (horizon - 1) / reach(THRESHOLD)
