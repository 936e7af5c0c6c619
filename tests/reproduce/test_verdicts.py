"""The rules from an effect to a verdict, at and around each boundary."""

from __future__ import annotations

import math

import pytest

from reproduce.report.inference import line, relative_slope, share
from reproduce.report.student import Effect
from reproduce.report.verdicts import (
    VERDICTS,
    Verdict,
    agreed,
    directional,
    linear,
    on_par,
    saturation,
    structure,
    trend,
)


def effect(low: float, high: float, *, inner: float = 0.1) -> Effect:
    """The 95 % interval, and a 90 % one that is `inner` shorter on both sides."""
    return Effect((low + high) / 2, low, high, low + inner, high - inner, None, (3, 3), "by hand")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 3.0, "supported"),
        (2.0, 3.0, "supported"),
        (0.1, 0.9, "supported but small"),
        (-0.5, 0.9, "contradicted"),
        (-3.0, -2.0, "contradicted"),
        (-0.5, 1.5, "undecided"),
        (0.0, 1.5, "undecided"),
        (-0.5, 1.0, "undecided"),
    ],
)
def test_directional(low: float, high: float, verdict: Verdict) -> None:
    assert directional(effect(low, high), 1.0) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.5, 0.5, "supported"),
        (-1.05, 1.05, "supported"),  # the 90 % interval is inside
        (-1.2, 0.0, "undecided"),
        (0.5, 1.5, "undecided"),
        (1.0, 2.0, "undecided"),
        (1.01, 2.0, "contradicted"),
        (-2.0, -1.01, "contradicted"),
    ],
)
def test_on_par(low: float, high: float, verdict: Verdict) -> None:
    assert on_par(effect(low, high), 1.0) == verdict


def test_trend_of_seconds_by_depth() -> None:
    depths = [20.0, 26.0, 32.0, 38.0, 44.0, 50.0, 56.0]
    noise = [0.0, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1]
    below, above, level = (
        [20 + slope * (depth - 20) + off for depth, off in zip(depths, noise, strict=True)] for slope in (0.5, 1.5, 1.0)
    )
    assert trend(relative_slope(depths, below, at=20)) == "supported"
    assert trend(relative_slope(depths, above, at=20)) == "contradicted"
    assert trend(relative_slope(depths, level, at=20)) == "undecided"


@pytest.mark.parametrize(
    ("late", "early", "verdict"),
    [
        (effect(-0.5, 0.5), effect(1.1, 3.0), "supported"),
        (effect(-0.5, 0.5), effect(0.9, 3.0), "undecided"),
        (effect(-0.5, 1.5), effect(1.1, 3.0), "undecided"),
        (effect(1.1, 2.0), effect(1.1, 3.0), "contradicted"),
        (effect(-3.0, -1.1), effect(1.1, 3.0), "contradicted"),
        (effect(-0.5, 0.5), effect(-0.5, 0.9), "contradicted"),
    ],
)
def test_saturation(late: Effect, early: Effect, verdict: Verdict) -> None:
    assert saturation(late, early, 1.0) == verdict


def test_linear() -> None:
    assert linear(effect(-0.1, 0.2)) == "supported"
    assert linear(effect(0.1, 0.2)) == "contradicted"
    x = [0.1, 0.2, 0.3, 0.4, 0.5]
    bent = line(x, [value**2 + off for value, off in zip(x, (0, 0.001, -0.001, 0.001, 0), strict=True)]).quadratic
    assert bent is not None and linear(bent) == "contradicted"


@pytest.mark.parametrize(
    ("k", "n", "verdict"),
    [(3, 3, "undecided"), (5, 5, "undecided"), (6, 6, "supported"), (0, 6, "contradicted"), (8, 9, "supported"),
     (7, 9, "undecided"), (15, 20, "supported"), (14, 20, "undecided")],
)  # fmt: skip
def test_structure_of_k_among_n_seeds(k: int, n: int, verdict: Verdict) -> None:
    # Published lower ends: 5 of 5 0.478, 6 of 6 0.541, 7 of 9 0.400, 8 of 9 0.518, 14 of 20 0.457, 15 of 20 0.509.
    assert structure(share(k, n)) == verdict


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("supported", "supported", "supported"),
        ("supported", "supported but small", "supported"),
        ("contradicted", "supported but small", "contradicted"),
        ("supported", "contradicted", "undecided"),
        ("supported", "undecided", "undecided"),
        ("not run", "supported", "undecided"),
    ],
)
def test_two_readings_decide_what_both_decide(first: Verdict, second: Verdict, verdict: Verdict) -> None:
    assert agreed(first, second) == agreed(second, first) == verdict


def test_what_is_no_number_decides_nothing() -> None:
    with pytest.raises(ValueError, match="no finite number"):
        directional(effect(0.1, math.inf), 1.0)
    with pytest.raises(ValueError, match="no smallest effect"):
        on_par(effect(0.0, 0.1), -1.0)
    assert len(VERDICTS) == 6
