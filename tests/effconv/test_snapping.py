"""Snapping to the budget: exact against brute force, within the tolerance always, honest when out of reach."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence

import pytest
import torch

from baselines.resnet import cifar_resnet
from effconv import BudgetError, snap_to_budget, snapping
from effconv.snapping import READOUTS, count, read_out
from tests.effconv.helpers import residual_costs


def _distance(sizes: Sequence[int], v: Sequence[float]) -> float:
    return sum((size - soft) ** 2 for size, soft in zip(sizes, v, strict=True))


def _all_sizes(layers: int, max_size: int) -> Iterator[tuple[int, ...]]:
    return itertools.product(range(1, max_size + 1), repeat=layers)


def _brute_force(
    v: Sequence[float], costs: Sequence[int], budget: int, max_size: int, tolerance: float
) -> float | None:
    """The smallest squared distance of any sizes within the tolerance; None if there are no such sizes."""
    fits = [s for s in _all_sizes(len(v), max_size) if abs(count(s, costs) - budget) <= tolerance * budget]
    return min((_distance(sizes, v) for sizes in fits), default=None)


def _brute_force_nearest(costs: Sequence[int], budget: int, max_size: int) -> int:
    """How far the nearest reachable count lies from the budget."""
    return min(abs(count(sizes, costs) - budget) for sizes in _all_sizes(len(costs), max_size))


def _named(error: BudgetError) -> list[int]:
    """The counts that the message names as the nearest."""
    return [
        int(number.replace(",", "")) for number in re.findall(r"[\d,]+\d|\d", str(error).split("nearest reachable:")[1])
    ]


def _draw(seed: int) -> tuple[list[float], list[int], int, int, float]:
    """A small problem: v, costs, budget, max_size, tolerance. Every third has ties, every fourth equal costs."""
    rng = random.Random(seed)
    layers, max_size = rng.randint(1, 4), rng.choice([3, 5, 7])
    v = [rng.uniform(1, max_size) for _ in range(layers)]
    if seed % 3 == 0:
        v = [math.floor(soft) + 0.5 for soft in v]
    cost = rng.choice([1, 7, 64, 256])
    costs = [cost] * layers if seed % 4 == 0 else [cost * rng.randint(1, 20) for _ in range(layers)]
    budget = rng.randint(count([1] * layers, costs), count([max_size] * layers, costs))
    return v, costs, budget, max_size, rng.choice([0.01, 0.05, 0.2])


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 200, 50)], ids=str)
def test_equals_brute_force(seeds: range) -> None:
    met = 0
    for seed in seeds:
        v, costs, budget, max_size, tolerance = _draw(seed)
        best = _brute_force(v, costs, budget, max_size, tolerance)
        if best is None:
            with pytest.raises(BudgetError) as error:
                snap_to_budget(v, costs, budget, max_size=max_size, tolerance=tolerance)
            nearest = _brute_force_nearest(costs, budget, max_size)
            assert min(abs(near - budget) for near in _named(error.value)) == nearest, seed
            continue
        sizes = snap_to_budget(v, costs, budget, max_size=max_size, tolerance=tolerance)
        assert all(1 <= size <= max_size for size in sizes)
        assert abs(count(sizes, costs) / budget - 1) <= tolerance, seed
        assert _distance(sizes, v) == pytest.approx(best, abs=1e-12), seed
        met += 1
    assert 10 <= met <= 45  # both kinds of problem were among them


def test_ties_go_the_same_way_every_time() -> None:
    results = {tuple(snap_to_budget([2.5] * 6, [256] * 6, 256 * 39, max_size=7, tolerance=0.0)) for _ in range(3)}
    assert len(results) == 1
    assert sorted(results.pop()) == [2, 2, 2, 3, 3, 3]


def _exact_distance(v: Sequence[float], costs: Sequence[int], budget: int, tolerance: float) -> float:
    """The smallest squared distance, by a dictionary over all reachable counts."""
    best = {0: 0.0}
    for soft, cost in zip(v, costs, strict=True):
        reached: dict[int, float] = {}
        for (total, distance), size in itertools.product(best.items(), range(1, 8)):
            now = total + cost * size * size
            if now <= budget * (1 + tolerance):
                reached[now] = min(reached.get(now, math.inf), distance + (size - soft) ** 2)
        best = reached
    return min(distance for total, distance in best.items() if abs(total - budget) <= tolerance * budget)


NETWORKS = [(20, 100_000), (20, 200_000), (20, 500_000), (20, 660_000), (32, 660_000), (44, 660_000), (56, 660_000)]


@pytest.mark.parametrize(("depth", "budget"), NETWORKS)
@pytest.mark.parametrize("tolerance", [0.01, 0.005, 0.0025])
def test_the_papers_networks_and_budgets(depth: int, budget: int, tolerance: float) -> None:
    costs = residual_costs(cifar_resnet(depth))
    for seed in range(5):
        v = (1 + 6 * torch.rand(len(costs), generator=torch.Generator().manual_seed(seed))).tolist()
        sizes = snap_to_budget(v, costs, budget, max_size=7, tolerance=tolerance)
        assert abs(count(sizes, costs) / budget - 1) <= tolerance
        if seed == 0 and tolerance == 0.01:
            assert _distance(sizes, v) == pytest.approx(_exact_distance(v, costs, budget, tolerance), abs=1e-9)


PRIMES = [11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53]


def _odd_problem(layers: int) -> tuple[list[float], list[int], int]:
    rng = random.Random(0)
    costs = [rng.choice(PRIMES) * rng.choice(PRIMES) for _ in range(layers)]
    budget = count([3] * layers, costs)
    assert math.gcd(*costs) == 1 and budget > 150_000  # or the grid would be exact
    return [rng.uniform(1, 6) for _ in costs], costs, budget


@pytest.mark.parametrize("tolerance", [0.01, 0.002])
def test_many_weights_and_odd_channel_counts_stay_within_the_tolerance(tolerance: float) -> None:
    v, costs, budget = _odd_problem(54)
    sizes = snap_to_budget(v, costs, budget, max_size=7, tolerance=tolerance)
    assert abs(count(sizes, costs) / budget - 1) <= tolerance


def test_the_coarser_grid_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    v, costs, budget = _odd_problem(20)
    monkeypatch.setattr(snapping, "_MAX_CELLS", 10**7)
    exact = snap_to_budget(v, costs, budget, max_size=7)
    monkeypatch.setattr(snapping, "_MAX_CELLS", 1_000)
    coarse = snap_to_budget(v, costs, budget, max_size=7)
    assert _distance(exact, v) <= _distance(coarse, v) <= 1.05 * _distance(exact, v)


def test_on_a_coarser_grid_true_counts_decide() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        costs, v = [rng.randint(10_000, 60_000) for _ in range(3)], [rng.uniform(1, 7) for _ in range(3)]
        budget = rng.randint(count([2] * 3, costs), count([6] * 3, costs))
        best = _brute_force(v, costs, budget, 7, 0.01)
        if best is None:
            with pytest.raises(BudgetError):
                snap_to_budget(v, costs, budget, max_size=7)
            continue
        sizes = snap_to_budget(v, costs, budget, max_size=7)
        assert abs(count(sizes, costs) / budget - 1) <= 0.01, seed
        assert _distance(sizes, v) == pytest.approx(best, abs=1e-9), seed


def test_wide_networks_stay_within_the_tolerance() -> None:
    """ResNet-50-like counts with channels that share no divisor: the costs' grid has over ten million cells."""
    rng = random.Random(1)
    costs = [rng.choice([63, 127, 251, 509]) * rng.choice([61, 131, 257, 521]) for _ in range(16)]
    for factor in (2, 3, 5):
        budget = count([factor] * 16, costs)
        v = [rng.uniform(1, 7) for _ in costs]
        sizes = snap_to_budget(v, costs, budget, max_size=7)
        assert abs(count(sizes, costs) / budget - 1) <= 0.01


@pytest.mark.parametrize("costs", [[100], [64, 640], [16, 1000, 3]])
@pytest.mark.parametrize("fixed", [0, 5_000])
def test_out_of_reach_names_the_nearest_reachable_counts(costs: list[int], fixed: int) -> None:
    least, most = (count([size] * len(costs), costs) for size in (1, 7))
    for target in (least // 2, math.ceil(1.5 * least), (least + most) // 2, 2 * most):
        if abs(_brute_force_nearest(costs, target, 7)) <= 1e-4 * (target + fixed):
            continue
        with pytest.raises(BudgetError, match="nearest reachable") as error:
            snap_to_budget([3.0] * len(costs), costs, target + fixed, max_size=7, tolerance=1e-4, fixed=fixed)
        reachable = {count(sizes, costs) + fixed for sizes in _all_sizes(len(costs), 7)}
        named = _named(error.value)
        assert set(named) <= reachable
        assert min(abs(near - target - fixed) for near in named) == _brute_force_nearest(costs, target, 7)
    assert issubclass(BudgetError, ValueError)


def test_the_message_is_one_line_with_both_neighbours() -> None:
    with pytest.raises(BudgetError) as error:
        snap_to_budget([3.0], [1000], 12_000, max_size=7)
    assert str(error.value) == "no kernel sizes have 12,000 weights within 1.00%; nearest reachable: 9,000 and 16,000"


def test_fixed_weights_count_towards_the_budget() -> None:
    assert snap_to_budget([3.2], [100], 900 + 5_000, max_size=7, fixed=5_000) == [3]
    assert snap_to_budget([3.2], [100], 1_600 + 5_000, max_size=7, fixed=5_000) == [4]
    with pytest.raises(BudgetError, match="5,100"):
        snap_to_budget([3.2], [100], 4_000, max_size=7, fixed=5_000)
    # the fixed part alone is above the budget, but with the smallest kernels still within the tolerance
    assert snap_to_budget([3.2, 3.2], [10, 20], 10_000, max_size=7, fixed=10_050) == [1, 1]


def test_read_out_by_name() -> None:
    ema, last, initial = torch.tensor([2.4, 4.5]), torch.tensor([5.4, 1.4]), torch.tensor([3.0, 3.0])
    results = {name: read_out(name, ema, last, initial, [10, 10], 250, max_size=7) for name in READOUTS}
    assert results["ema"].sizes == [2, 5]  # 4.5 rounds up
    assert results["last"].sizes == [5, 1]
    assert results["snap_ema"].sizes == [3, 4]
    assert results["snap_last"].sizes in ([5, 0], [4, 3])
    snapped = results["snap_ema"]
    assert snapped.soft == pytest.approx([2.4, 4.5])
    assert snapped.rounded == [2, 5] and snapped.moved == [1, -1]
    assert snapped.error_before == pytest.approx(290 / 250 - 1) and snapped.error_after == 0
    # the initial v snaps to [3, 4] or [4, 3]; unsnapped it rounds to [3, 3]
    assert snapped.differs_from_initial in (0, 2)
    assert results["ema"].differs_from_initial == 2


def test_an_unsnapped_read_out_may_miss_the_budget_and_says_so() -> None:
    result = read_out(
        "ema", torch.tensor([5.0]), torch.tensor([5.0]), torch.tensor([3.0]), [10], 90, max_size=7, fixed=10
    )
    assert result.sizes == [5] and result.moved == [0]
    assert result.error_before == result.error_after == pytest.approx(260 / 90 - 1)
