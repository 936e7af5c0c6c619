"""The numbers that an implementation of EffConv should show at the paper's layer shapes, without any data.

They were measured on an independent prototype; the texture task, which needs data, has a file of its own.
"""

from __future__ import annotations

import functools
import math
import statistics
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from baselines.resnet import cifar_resnet
from baselines.wide_resnet import wide_resnet
from effconv import snap_to_budget
from effconv.budget import BUDGET_VALUES, parameter_count
from effconv.kernel_predictor import KERNEL_PREDICTORS, Layer
from effconv.size_predictor import SizePredictor, round_half_up
from effconv.snapping import count
from tests.effconv.helpers import convolutions, residual_costs

STEPS = 2_000
COSTS = {depth: residual_costs(cifar_resnet(depth)) for depth in (20, 56)}


@pytest.mark.parametrize(("depth", "residual"), [(20, 267_264), (32, 460_800), (44, 654_336), (56, 847_872)])
def test_number_1_weights_of_the_residual_convolutions(depth: int, residual: int) -> None:
    costs = residual_costs(cifar_resnet(depth))
    assert len(costs) == depth - 2
    assert count([3] * len(costs), costs) == residual


@pytest.mark.parametrize(("depth", "total"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_number_1_all_parameters(depth: int, total: int) -> None:
    assert sum(parameter.numel() for parameter in cifar_resnet(depth).parameters()) == total


def test_number_1_wide_resnet_and_what_resnet_20_can_reach() -> None:
    kernels = [conv for conv in convolutions(wide_resnet(28, 1))[1:] if conv.kernel_size == (3, 3)]
    assert sum(conv.weight.numel() for conv in kernels) == 364_032
    assert [count([size] * 18, COSTS[20]) for size in (1, 7)] == [29_696, 1_455_104]


@pytest.mark.parametrize("depth", [20, 56])
def test_number_2_sizes_start_near_3_with_some_spread(depth: int) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        v = SizePredictor([3] * (depth - 2), 7)().detach()
        assert v.mean().item() == pytest.approx(3.0, abs=0.25), seed
        assert 0.2 <= v.std().item() <= 0.6, seed
        assert v.min() > 1.5 and v.max() < 4.5, seed


class Run(NamedTuple):
    """A size predictor driven by L_param alone. `soft`, `hard`: p / p_d - 1 of v and of s after each step."""

    soft: Tensor
    hard: Tensor
    ema: Tensor  # of v
    costs: list[int]
    budget: int


@functools.cache
def drive(depth: int, budget: int, value: str = "hard", architecture: str = "bigru", seed: int = 1) -> Run:
    """2,000 steps of AdamW on lambda L_param, lambda = 2, at the paper's rates."""
    torch.manual_seed(seed)
    costs = torch.tensor(COSTS[depth], dtype=torch.float32)
    predictor = SizePredictor([3] * len(costs), 7, architecture)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=1e-4, weight_decay=1e-3, fused=True)
    ema = predictor().detach()
    counts = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        v = predictor()
        (2 * BUDGET_VALUES[value](v, costs, budget, 0)).backward()
        optimizer.step()
        with torch.no_grad():
            ema.lerp_(v, 0.01)
            counts.append(torch.stack((parameter_count(v, costs), parameter_count(round_half_up(v), costs))))
    soft, hard = (torch.stack(counts) / budget - 1).unbind(1)
    return Run(soft, hard, ema, COSTS[depth], budget)


@pytest.mark.parametrize(
    ("depth", "budget"),
    [
        (20, 660_000),
        pytest.param(20, 100_000, marks=pytest.mark.slow),
        pytest.param(20, 200_000, marks=pytest.mark.slow),
        pytest.param(20, 500_000, marks=pytest.mark.slow),
        pytest.param(56, 660_000, marks=pytest.mark.slow),
    ],
)
class TestNumber3:
    """`hard`, the default: on budget soon, then chattering around it for ever; the average of v stays on it."""

    def test_the_budget_is_met_within_200_steps(self, depth: int, budget: int) -> None:
        assert (drive(depth, budget).hard[:200].abs() <= 0.02).any()

    def test_the_error_from_step_1000_on(self, depth: int, budget: int) -> None:
        errors = drive(depth, budget).hard[1_000:].abs().tolist()
        assert statistics.mean(errors) <= 0.25
        assert statistics.median(errors) <= 0.03

    def test_the_average_of_v_is_within_2_percent_before_snapping(self, depth: int, budget: int) -> None:
        run = drive(depth, budget)
        sizes = [math.floor(v + 0.5) for v in run.ema.tolist()]
        assert abs(count(sizes, run.costs) / budget - 1) <= 0.02

    def test_snapping_ends_within_1_percent(self, depth: int, budget: int) -> None:
        run = drive(depth, budget)
        sizes = snap_to_budget(run.ema.tolist(), run.costs, budget, max_size=7)
        assert abs(count(sizes, run.costs) / budget - 1) <= 0.01


@pytest.mark.slow
def test_number_4_soft_stays_on_budget() -> None:
    tail = drive(20, 660_000, value="soft").soft[1_000:]
    assert tail.abs().max() <= 0.01
    assert tail.std() <= 0.005


def test_number_4_free_scalars_are_too_slow_at_the_papers_rate() -> None:
    """A check of this harness: without the many shared weights of a network the sizes hardly move."""
    assert drive(20, 660_000, architecture="direct").hard[-1] < -0.4


def _spatial_share(kernel: Tensor) -> float:
    """Share of a kernel's variance that lies between its positions, (out, in, s, s) -> [0, 1]."""
    return (kernel.var((2, 3), unbiased=False).mean() / kernel.var(unbiased=False)).item()


@pytest.mark.parametrize(("name", "least", "most"), [("per_position", 0.3, 1.0), ("const_z", 0.0, 0.06)])
def test_number_7_scale_and_spatial_variance_of_predicted_kernels(name: str, least: float, most: float) -> None:
    layers = [Layer(16, 16, 3), Layer(32, 16, 3), Layer(32, 32, 3), Layer(64, 64, 3)]
    for seed in range(3):
        torch.manual_seed(seed)
        for layer, kernel in zip(layers, KERNEL_PREDICTORS[name](layers, 7)([3] * 4), strict=True):
            assert kernel.std().item() == pytest.approx(math.sqrt(2 / (9 * layer.in_channels)), rel=0.1)
            assert least <= _spatial_share(kernel) <= most
