"""The uniform control's widths: on budget, nearest to 1:2:4 of all that are, and what the network then counts."""

from __future__ import annotations

import math
from itertools import product

import pytest

from reproduce.uniform import Widths, distance, pairs, uniform_widths

BUDGETS = (500_000, 660_000)  # of the rows
OTHERS = [(20, 3, 100_000), (20, 3, 780_000), (44, 3, 660_000), (8, 3, 120_000), (20, 5, 660_000), (56, 2, 200_000)]


def eq3(widths: Widths, depth: int, size: int) -> int:
    """Eq. 3, convolution by convolution."""
    total, channels = 0, widths[0]
    for width in widths:
        for _ in range((depth - 2) // 3):
            total += channels * width * size * size
            channels = width
    return total


def spread(widths: Widths) -> float:
    """Another way to the same distance: a third of the sum over pairs of squared logarithms of ratios of ratios."""
    a, b, c = widths
    return (math.log(b / (2 * a)) ** 2 + math.log(c / (2 * b)) ** 2 + math.log(c / (4 * a)) ** 2) / 3


def brute_force(depth: int, size: int, budget: int, most: int) -> Widths:
    """Every triple up to `most` channels, looked at one by one."""
    sides = range(1, most + 1)
    found = [
        (round(spread(widths), 9), abs(eq3(widths, depth, size) - budget), widths)
        for widths in product(sides, sides, sides)
        if widths[0] <= widths[1] <= widths[2] and abs(eq3(widths, depth, size) / budget - 1) <= 0.01
    ]
    return min(found)[2]


@pytest.mark.parametrize(("depth", "size", "budget"), [*((20, 3, budget) for budget in BUDGETS), *OTHERS])
def test_the_budget_is_met(depth: int, size: int, budget: int) -> None:
    widths = uniform_widths(depth, size, budget)
    assert abs(eq3(widths, depth, size) / budget - 1) <= 0.01
    assert eq3(widths, depth, size) == size * size * pairs(widths, (depth - 2) // 6)
    assert spread(widths) < 0.002  # within a few per cent of 1:2:4


@pytest.mark.parametrize(
    ("depth", "size", "budget", "most"),
    [(8, 3, 20_000, 50), (8, 3, 5_000, 30), (14, 3, 15_000, 30), (20, 2, 10_000, 30), (14, 1, 3_000, 40)],
)
def test_no_other_widths_are_nearer(depth: int, size: int, budget: int, most: int) -> None:
    assert uniform_widths(depth, size, budget) == brute_force(depth, size, budget, most)


@pytest.mark.parametrize("budget", BUDGETS)
def test_no_other_widths_of_the_rows_are_nearer(budget: int) -> None:
    """Around the answer, one by one: whatever is nearer in ratio is off budget."""
    best = uniform_widths(20, 3, budget)
    a, b, c = (range(round(width * 0.9), round(width * 1.1) + 1) for width in best)
    nearer = [widths for widths in product(a, b, c) if spread(widths) < spread(best) - 1e-9]
    assert nearer and all(abs(eq3(widths, 20, 3) / budget - 1) > 0.01 for widths in nearer)


def test_the_rows_networks() -> None:
    assert uniform_widths(20, 3, 660_000) == (25, 50, 101)
    assert uniform_widths(20, 3, 500_000) == (22, 44, 87)


def test_he_et_als_widths_at_their_own_count() -> None:
    assert uniform_widths(20, 3, 267_264) == (16, 32, 64)
    assert uniform_widths(44, 3, 660_000) == (16, 32, 64)


def test_among_equally_near_widths_the_count_decides() -> None:
    """Both 150 and 151 times 1:2:4 are on budget."""
    assert uniform_widths(8, 1, 725_000) == (151, 302, 604)
    assert uniform_widths(8, 1, 723_000) == (150, 300, 600)


def test_distance_looks_at_the_ratio_alone_and_at_both_sides_alike() -> None:
    assert distance((3, 6, 12)) == distance((50, 100, 200)) == 0
    assert distance((10, 25, 40)) == pytest.approx(distance((10, 16, 40)))
    assert distance((10, 25, 40)) == pytest.approx(spread((10, 25, 40)))


def test_a_tolerance_that_nothing_meets() -> None:
    with pytest.raises(ValueError, match="the fewest are 54") as caught:
        uniform_widths(8, 3, 20)
    assert "\n" not in str(caught.value)
    assert abs(eq3(uniform_widths(20, 3, 660_000, tolerance=0.001), 20, 3) / 660_000 - 1) <= 0.001


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_another_depth_is_an_error(depth: int) -> None:
    with pytest.raises(ValueError, match="6n"):
        uniform_widths(depth, 3, 660_000)
