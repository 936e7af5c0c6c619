"""Eqs. 3 and 4: the parameter count and its distance from the budget."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from effconv.budget import BUDGET_SCOPES, BUDGET_VALUES, log_ratio, parameter_count

V = [2.7, 3.5, 1.2, 6.4]
SIZES = [3, 4, 1, 6]
COSTS = [48, 256, 512, 1024]


def _slow_count(sizes: list[float], fixed: int = 0) -> float:
    total = float(fixed)
    for cost, size in zip(COSTS, sizes, strict=True):
        total += cost * size * size
    return total


def _slow_loss(sizes: list[float], budget: float, fixed: int = 0) -> float:
    """Eq. 4 with its two branches."""
    p_pr = _slow_count(sizes, fixed)
    return math.log(p_pr / budget) if p_pr > budget else math.log(budget / p_pr)


def _slow_gradient(sizes: list[float], budget: float, fixed: int = 0, eps: float = 1e-6) -> list[float]:
    """Finite differences of Eq. 4 in each size."""
    gradient = []
    for layer in range(len(sizes)):
        up, down = ([size + sign * eps * (i == layer) for i, size in enumerate(sizes)] for sign in (1, -1))
        gradient.append((_slow_loss(up, budget, fixed) - _slow_loss(down, budget, fixed)) / (2 * eps))
    return gradient


def _evaluated(name: str, budget: float, fixed: int = 0) -> tuple[float, list[float]]:
    v = torch.tensor(V, dtype=torch.float64, requires_grad=True)
    loss: Tensor = BUDGET_VALUES[name](v, torch.tensor(COSTS, dtype=torch.float64), budget, fixed)
    (gradient,) = torch.autograd.grad(loss, v)
    return loss.item(), gradient.tolist()


@pytest.mark.parametrize("fixed", [0, 7_000])
@pytest.mark.parametrize("budget", [10_000.0, 200_000.0])  # below and above what the sizes have
class TestEquation4:
    def test_soft_is_taken_of_v(self, budget: float, fixed: int) -> None:
        loss, gradient = _evaluated("soft", budget, fixed)
        assert loss == pytest.approx(_slow_loss(V, budget, fixed), abs=1e-12)
        assert gradient == pytest.approx(_slow_gradient(V, budget, fixed), rel=1e-6)

    def test_hard_is_taken_of_s_and_passes_its_gradient_to_v(self, budget: float, fixed: int) -> None:
        loss, gradient = _evaluated("hard", budget, fixed)
        sizes = [float(size) for size in SIZES]
        assert loss == pytest.approx(_slow_loss(sizes, budget, fixed), abs=1e-12)
        assert gradient == pytest.approx(_slow_gradient(sizes, budget, fixed), rel=1e-6)

    def test_hard_sq_is_five_squares_of_hard(self, budget: float, fixed: int) -> None:
        loss, gradient = _evaluated("hard_sq", budget, fixed)
        sizes = [float(size) for size in SIZES]
        hard = _slow_loss(sizes, budget, fixed)
        assert loss == pytest.approx(5 * hard**2, abs=1e-12)
        assert gradient == pytest.approx([10 * hard * g for g in _slow_gradient(sizes, budget, fixed)], rel=1e-6)

    def test_it_pulls_every_size_towards_the_budget(self, budget: float, fixed: int) -> None:
        for name in BUDGET_VALUES:
            _, gradient = _evaluated(name, budget, fixed)
            assert all((g > 0) == (budget == 10_000.0) for g in gradient), name


def test_count_is_equation_3() -> None:
    sizes, costs = torch.tensor(SIZES), torch.tensor(COSTS)
    assert parameter_count(sizes, costs).item() == _slow_count([float(size) for size in SIZES])
    assert parameter_count(sizes, costs, 1_000).item() == _slow_count([float(size) for size in SIZES]) + 1_000


def test_on_budget_the_loss_is_zero_and_twice_the_budget_is_log_2() -> None:
    assert log_ratio(torch.tensor(660_000.0), 660_000).item() == 0
    assert log_ratio(torch.tensor(1_320_000.0), 660_000).item() == pytest.approx(math.log(2))
    assert log_ratio(torch.tensor(330_000.0), 660_000).item() == pytest.approx(math.log(2))


def test_scopes_say_what_stays_fixed() -> None:
    assert BUDGET_SCOPES["learnable"](269_722, 267_264) == 0
    assert BUDGET_SCOPES["total"](269_722, 267_264) == 2_458
