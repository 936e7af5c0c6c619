"""The size mask: Eqs. 6 and 7 of the paper.

    m(i, j) = exp(-((i - c)^2 + (j - c)^2) / d(v)),  i, j = 1..s      (6)
    w = m * w_hat                                                     (7)

The printed centre c = v/2 with i counted from 1 is half a pixel off; `MASK_CENTRES` holds the readings of c and
`MASK_DENOMINATORS` those of d(v) by name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MASK_CENTRES: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "pixel": lambda v, s: (v + 1) / 2,  # R-09, default: pixel centres at i - 1/2
    "printed": lambda v, s: v / 2,
    "fixed": lambda v, s: (s + 1) / 2,
    "none": None,
}
MASK_DENOMINATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "v2": lambda v: v**2,  # R-10, default: as printed
    "v2_over_2": lambda v: v**2 / 2,
    "half_v2": lambda v: (v / 2) ** 2,
}


def mask_profiles(v: Tensor, sizes: Tensor, max_size: int, *, centre: str, denominator: str = "v2") -> Tensor:
    """One side of Eq. 6, which separates into rows and columns: m(i, j) = g(i) g(j).

    v: (L,) soft sizes, sizes: (L,) integers -> g: (L, max_size), g(i) = exp(-(i - c)^2 / d(v)); valid up to i = s.
    """
    if centre not in MASK_CENTRES or denominator not in MASK_DENOMINATORS:
        raise ValueError(
            f"no mask has centre {centre!r} and denominator {denominator!r}; centres: {', '.join(MASK_CENTRES)}; "
            f"denominators: {', '.join(MASK_DENOMINATORS)}"
        )
    c = MASK_CENTRES[centre]
    if c is None:
        return v.new_ones(len(v), max_size)
    i = torch.arange(1, max_size + 1, device=v.device, dtype=v.dtype)
    d = MASK_DENOMINATORS[denominator](v)
    return torch.exp(-((i - c(v, sizes.to(v)).unsqueeze(1)) ** 2) / d.unsqueeze(1))


def size_mask(v: Tensor | float, s: int, *, centre: str = "pixel", denominator: str = "v2") -> Tensor:
    """m of Eq. 6 for one layer. v: soft size, a scalar (differentiable if a tensor); s: its integer size -> (s, s).

    `centre`: `pixel` c = (v + 1)/2, `printed` v/2, `fixed` (s + 1)/2, `none` (a mask of ones).
    Raises `ValueError` for a name that is in no registry.
    """
    v = torch.as_tensor(v, dtype=None if isinstance(v, Tensor) else torch.get_default_dtype()).reshape(1)
    g = mask_profiles(v, torch.tensor([s], device=v.device), s, centre=centre, denominator=denominator)[0]
    return g.unsqueeze(1) * g
