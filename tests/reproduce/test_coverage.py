"""How often intervals hold the truth and verdicts are false, over 20,000 draws with a fixed seed.

The standard error of a rate near 95 % is 0.15 points, near 2.5 % 0.11 points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from reproduce.report.inference import against, image_variance, line, relative_slope, share, welch
from reproduce.report.student import Effect
from reproduce.report.verdicts import (
    Verdict,
    directional,
    linear,
    on_par,
    saturation,
    structure,
    trend,
)

DRAWS = 20_000
NOISE = 0.0035  # three standard errors of a rate near 2.5 %
SMALLEST = 1.0


def normal(seed: int, n: int, spread: float = 1.0, centre: float = 0.0) -> list[list[float]]:
    found: list[list[float]] = np.random.default_rng(seed).normal(centre, spread, size=(DRAWS, n)).tolist()
    return found


def coverage(effects: Iterable[Effect], truth: float = 0.0) -> float:
    """The share of intervals that hold the truth."""
    return float(np.mean([found.low <= truth <= found.high for found in effects]))


def rate(verdicts: Iterable[Verdict], *wanted: Verdict) -> float:
    return float(np.mean([verdict in wanted for verdict in verdicts]))


def differences(truth: float, n: int = 3, ratio: float = 1.0) -> list[Effect]:
    """Welch's over `n` seeds an arm, of which one spreads by 0.3, the other `ratio` times as far."""
    a, b = normal(11, n, 0.3, truth), normal(12, n, 0.3 * ratio)
    return [welch(one, other) for one, other in zip(a, b, strict=True)]


def test_one_sample_t_covers_normal_noise_at_three_seeds() -> None:
    assert 0.94 <= coverage(against(values, 0.0) for values in normal(1, 3)) <= 0.96


@pytest.mark.parametrize("ratio", [1.0, 10.0, *(pytest.param(one, marks=pytest.mark.slow) for one in (1.5, 2.0, 4.0))])
def test_welch_covers_normal_noise_of_unequal_spread_at_three_seeds_each(ratio: float) -> None:
    assert 0.935 <= coverage(differences(0.0, ratio=ratio)) <= 0.975


def test_welch_falls_short_where_three_seeds_that_spread_further_meet_ten() -> None:
    # Known, and why a plan has as many seeds in one arm as in the other: 92.9 % here, not 93.5 %.
    a, b = normal(2, 3, 2.0), normal(3, 10)
    assert 0.92 <= coverage(welch(one, other) for one, other in zip(a, b, strict=True)) < 0.935


SKEWED: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "uniform": lambda random, shape: random.uniform(-0.5, 0.5, shape),
    "exponential": lambda random, shape: random.exponential(1.0, shape) - 1.0,
    "lognormal": lambda random, shape: random.lognormal(0.0, 1.0, shape) - np.exp(0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("noise", SKEWED)
def test_noise_of_other_shapes_is_reported_and_not_bounded(noise: str, record_property: Callable[..., None]) -> None:
    # Measured with these draws, one sample and Welch at three seeds: uniform 92.0, 95.8 %; exponential 88.6, 97.7 %;
    # lognormal 83.7, 98.3 %. The one-sample t is the one that skewed noise misleads.
    random = np.random.default_rng(1)
    a, b = (SKEWED[noise](random, (DRAWS, 3)).tolist() for _ in range(2))
    one = coverage(against(values, 0.0) for values in a)
    two = coverage(welch(first, second) for first, second in zip(a, b, strict=True))
    record_property("one_sample_t", one)
    record_property("welch", two)
    print(f"{noise} noise, 3 seeds, {DRAWS} draws: one-sample t covers {one:.1%}, Welch {two:.1%}")
    assert 0.0 < one < 1.0 and 0.0 < two < 1.0


def test_with_the_variance_of_images_the_interval_is_of_the_distribution_of_images() -> None:
    # 3 seeds, 300 images, each with its own chances under both methods: the truth is the mean over all images.
    random = np.random.default_rng(5)
    draws, without, within = 2_000, [], []
    for _ in range(draws):
        chances = random.beta(4.0, 1.0, size=(2, 300))
        bits = random.random((2, 3, 300)) < chances[:, None]
        tops = 100.0 * bits.mean(axis=2)
        without.append(welch(tops[0].tolist(), tops[1].tolist()))
        variance = image_variance(bits[0], bits[1])
        within.append(welch(tops[0].tolist(), tops[1].tolist(), image_variance=variance))
    print(f"over images: seeds alone cover {coverage(without):.1%}, seeds and images {coverage(within):.1%}")
    assert coverage(without) < 0.93
    assert 0.95 <= coverage(within) <= 0.995  # above 95 %: what seeds do to single images counts twice


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_a_directional_claim_is_seldom_falsely_judged(ratio: float) -> None:
    none = [directional(effect, SMALLEST) for effect in differences(0.0, ratio=ratio)]
    assert rate(none, "supported", "supported but small") <= 0.0325 + NOISE  # two-sided coverage from 93.5 %
    real = [directional(effect, SMALLEST) for effect in differences(SMALLEST, ratio=ratio)]
    assert rate(real, "contradicted", "supported but small") <= 0.0325 + NOISE


@pytest.mark.slow
def test_a_directional_claim_against_a_fixed_value_keeps_its_level() -> None:
    effects = [against(values, 0.0) for values in normal(4, 3)]
    assert rate((directional(effect, 9.0) for effect in effects), "supported", "supported but small") <= 0.025 + NOISE


@pytest.mark.slow
def test_a_claim_of_equality_is_seldom_falsely_judged() -> None:
    edge = [on_par(effect, SMALLEST) for effect in differences(SMALLEST, n=5)]
    assert rate(edge, "supported") <= 0.05 + NOISE
    assert rate(edge, "contradicted") <= 0.025 + NOISE
    assert rate((on_par(effect, SMALLEST) for effect in differences(0.0, n=5)), "supported") > 0.95


@pytest.mark.slow
def test_saturation_is_seldom_falsely_judged() -> None:
    rising, flat = differences(3.0, n=5), differences(0.0, n=5)[::-1]
    late, early = differences(SMALLEST, n=5), differences(SMALLEST, n=5)[::-1]
    seen = [saturation(one, two, SMALLEST) for one, two in zip(late, rising, strict=True)]
    assert rate(seen, "supported") <= 0.05 + NOISE  # it rises on, just as much as the margin
    seen = [saturation(one, two, SMALLEST) for one, two in zip(flat, early, strict=True)]
    assert rate(seen, "supported") <= 0.025 + NOISE  # it never rose by more than the margin
    seen = [saturation(one, two, SMALLEST) for one, two in zip(flat, rising, strict=True)]
    assert rate(seen, "contradicted") == 0.0


DEPTHS = [20.0, 26.0, 32.0, 38.0, 44.0, 50.0, 56.0]


def curves(by_depth: Callable[[float], float]) -> list[list[float]]:
    true = np.array([by_depth(depth) for depth in DEPTHS])
    noise = np.random.default_rng(6).normal(0.0, 0.5, size=(DRAWS, len(DEPTHS)))
    found: list[list[float]] = (true + noise).tolist()
    return found


@pytest.mark.slow
def test_a_trend_is_seldom_falsely_judged() -> None:
    effects = [relative_slope(DEPTHS, values, at=20) for values in curves(lambda depth: depth)]
    assert 0.945 <= coverage(effects, 1.0) <= 0.965  # 96.0 %: y(20) shares its noise with the residuals
    found = [trend(effect) for effect in effects]
    assert rate(found, "supported") <= 0.025 + NOISE
    assert rate(found, "contradicted") <= 0.025 + NOISE


@pytest.mark.slow
def test_a_straight_line_is_called_bent_once_in_twenty() -> None:
    bends = [line(DEPTHS, values).quadratic for values in curves(lambda depth: 5 + 0.3 * depth)]
    found = [linear(bend) for bend in bends if bend is not None]
    assert len(found) == DRAWS
    assert 0.04 <= rate(found, "contradicted") <= 0.06


@pytest.mark.parametrize("n", [3, 6, 9, 20])
def test_structure_is_seldom_falsely_judged(n: int) -> None:
    judged = [structure(share(k, n)) for k in range(n + 1)]
    seen = np.random.default_rng(7).binomial(n, 0.5, size=DRAWS)
    assert rate((judged[k] for k in seen), "supported") <= 0.025 + NOISE
    assert rate((judged[k] for k in seen), "contradicted") <= 0.025 + NOISE
