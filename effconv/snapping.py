"""From soft sizes to integer sizes on budget: step 9 of Algorithm 1, about which the paper says nothing more (R-12).

    s* = argmin over integer s of sum_l (s_l - v*_l)^2,  |p(s) / p_d - 1| <= tolerance

is a knapsack, solved exactly by dynamic programming over the parameter count in units of the costs' greatest common
divisor. Where that grid is too fine (many weights, odd channel counts) the costs are rounded to a coarser one; every
candidate keeps its true count, by which it is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effconv.size_predictor import round_half_up

_MAX_CELLS = 200_000  # parameter counts that the exact grid may have


class BudgetError(ValueError):
    """No sizes reach the budget within the tolerance."""


@dataclass(frozen=True)
class Snapped:
    """How sizes came from soft sizes; lists are by layer, in forward order."""

    sizes: list[int]
    soft: list[float]  # v*, the read-out before rounding
    rounded: list[int]
    moved: list[int]  # sizes - rounded
    error_before: float  # p(rounded) / p_d - 1
    error_after: float
    differs_from_initial: int = 0  # layers that differ from snapping the initial v


def count(sizes: Sequence[int], costs: Sequence[int], fixed: int = 0) -> int:
    """Eq. 3 in whole numbers."""
    return sum(cost * size * size for cost, size in zip(costs, sizes, strict=True)) + fixed


def _grid_unit(costs: Sequence[int], budget: float, tolerance: float) -> int:
    exact = math.gcd(*costs)
    if budget * (1 + tolerance) / exact <= _MAX_CELLS:
        return exact
    # Rounding L costs to multiples of u moves a count by L u / 2 at most: a tenth of the tolerance.
    coarse = int(tolerance * budget / (5 * len(costs)))
    return max(exact, coarse, int(budget / (10 * _MAX_CELLS)) + 1)


def _search(v: Sequence[float], costs: Sequence[int], max_size: int, unit: int, limit: float) -> tuple[Tensor, ...]:
    """All cells up to `limit` weights: squared distance (C,), true count (C,) and the chosen sizes (L, C)."""
    cells = int(limit / unit) + len(costs) + 1
    distance = torch.full((cells,), math.inf, dtype=torch.float64)
    distance[0] = 0
    true_count = torch.zeros(cells, dtype=torch.int64)
    chosen = torch.zeros(len(costs), cells, dtype=torch.int16)
    for index, (soft, cost) in enumerate(zip(v, costs, strict=True)):
        best = torch.full_like(distance, math.inf)
        best_count = torch.zeros_like(true_count)
        for size in range(1, max_size + 1):
            step = round(cost * size * size / unit)
            if step >= cells:
                break
            candidate = distance[: cells - step] + (size - soft) ** 2
            better = candidate < best[step:]
            best[step:][better] = candidate[better]
            best_count[step:][better] = true_count[: cells - step][better] + cost * size * size
            chosen[index, step:][better] = size
        distance, true_count = best, best_count
    return distance, true_count, chosen


def _backtrack(cell: int, chosen: Tensor, costs: Sequence[int], unit: int) -> list[int]:
    sizes: list[int] = []
    for index in range(len(costs) - 1, -1, -1):
        size = int(chosen[index, cell])
        sizes.append(size)
        cell -= round(costs[index] * size * size / unit)
    return sizes[::-1]


def snap_to_budget(
    v: Sequence[float], costs: Sequence[int], budget: int, *, max_size: int, tolerance: float = 0.01, fixed: int = 0
) -> list[int]:
    """The integer sizes nearest to v whose count (Eq. 3, plus `fixed`) is within `tolerance` of the budget.

    v, costs: L soft sizes and L products c_l c_{l-1}. Raises `BudgetError` that names the nearest reachable counts.
    """
    least, most = count([1] * len(costs), costs), count([max_size] * len(costs), costs)
    target = budget - fixed
    slack = tolerance * budget
    if target + slack < least or target - slack > most:
        raise BudgetError(_out_of_reach(budget, tolerance, [least + fixed if target < least else most + fixed]))
    unit = _grid_unit(costs, max(target, least), tolerance)
    distance, counts, chosen = _search(v, costs, max_size, unit, min(most, 2 * max(target, least) + slack))
    reachable = torch.isfinite(distance)
    fits = reachable & ((counts - target).abs() <= slack)
    if not fits.any():
        below, above = counts[reachable & (counts <= target)], counts[reachable & (counts > target)]
        nearest = [int(below.max())] * bool(len(below)) + [int(above.min())] * bool(len(above))
        raise BudgetError(_out_of_reach(budget, tolerance, [near + fixed for near in nearest]))
    cell = int(torch.where(fits, distance, math.inf).argmin())
    return _backtrack(cell, chosen, costs, unit)


def _out_of_reach(budget: int, tolerance: float, nearest: list[int]) -> str:
    counts = " and ".join(f"{near:,}" for near in nearest)
    return f"no kernel sizes have {budget:,} weights within {tolerance:.2%}; nearest reachable: {counts}"


# Step 9 of Algorithm 1 by name: (averaged v, last v) -> (the soft sizes that are read out, whether they are snapped).
READOUTS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, bool]]] = {
    "snap_ema": lambda ema, last: (ema, True),  # R-12, default
    "snap_last": lambda ema, last: (last, True),
    "ema": lambda ema, last: (ema, False),
    "last": lambda ema, last: (last, False),
}


def read_out(
    name: str, ema: Tensor, last: Tensor, initial: Tensor, costs: Sequence[int], budget: int, **limits: float
) -> Snapped:
    """The final sizes from v's average, last and initial values, each (L,). `limits`: as for `snap_to_budget`."""
    soft, snapping = READOUTS[name](ema, last)
    fixed = int(limits.get("fixed", 0))

    def final(v: Tensor) -> list[int]:
        if not snapping:
            return [int(size) for size in round_half_up(v)]
        return snap_to_budget(v.tolist(), costs, budget, **limits)  # type: ignore[arg-type]

    sizes, rounded = final(soft), [int(size) for size in round_half_up(soft)]
    return Snapped(
        sizes=sizes,
        soft=soft.tolist(),
        rounded=rounded,
        moved=[size - before for size, before in zip(sizes, rounded, strict=True)],
        error_before=count(rounded, costs, fixed) / budget - 1,
        error_after=count(sizes, costs, fixed) / budget - 1,
        differs_from_initial=sum(a != b for a, b in zip(sizes, final(initial), strict=True)),
    )
