"""The parameter budget: Eqs. 3 and 4 of the paper.

    p_pr = sum_l c_l c_{l-1} s_l^2                          (3)
    L_param = |log(p_pr / p_d)|                             (4)

`BUDGET_VALUES` holds the readings of what Eqs. 3-4 are taken of, by name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from effconv.size_predictor import straight_through


def parameter_count(sizes: Tensor, costs: Tensor, fixed: int = 0) -> Tensor:
    """Eq. 3. sizes: (L,) integer or soft; costs: (L,) c_l * c_{l-1}; fixed: parameters that no size changes."""
    return (costs * sizes * sizes).sum() + fixed


def log_ratio(p_pr: Tensor, budget: float) -> Tensor:
    """Eq. 4: log(p_pr / p_d) above the budget, log(p_d / p_pr) below it."""
    return torch.log(p_pr / budget).abs()


def hard(v: Tensor, costs: Tensor, budget: float, fixed: int = 0) -> Tensor:
    """R-04, default: Eq. 4 of the rounded sizes, as step 7 of Algorithm 1 says; dL/dv := dL/ds."""
    return log_ratio(parameter_count(straight_through(v), costs, fixed), budget)


def soft(v: Tensor, costs: Tensor, budget: float, fixed: int = 0) -> Tensor:
    """Eq. 4 of the soft sizes: no kink at the rounding thresholds, so no oscillation."""
    return log_ratio(parameter_count(v, costs, fixed), budget)


def hard_sq(v: Tensor, costs: Tensor, budget: float, fixed: int = 0) -> Tensor:
    """5 log^2 of the rounded sizes: smooth at the budget."""
    return 5 * hard(v, costs, budget, fixed) ** 2


BUDGET_VALUES: dict[str, Callable[[Tensor, Tensor, float, int], Tensor]] = {
    "hard": hard,
    "soft": soft,
    "hard_sq": hard_sq,
}

# What p_pr counts: the learnable convolutions, as Eq. 3 is printed, or every trainable parameter of the network.
# Each maps (all trainable parameters, weights of the learnable convolutions at their original sizes) to the fixed part.
BUDGET_SCOPES: dict[str, Callable[[int, int], int]] = {
    "learnable": lambda total, learnable: 0,
    "total": lambda total, learnable: total - learnable,
}
