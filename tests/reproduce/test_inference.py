"""Effects and intervals against published examples and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reproduce.report.inference import (
    against,
    against_summary,
    bootstrap_over_seeds,
    clopper_pearson,
    distinct,
    from_ratios,
    holm,
    image_variance,
    line,
    mcnemar,
    paired,
    relative_slope,
    share,
    summaries,
    welch,
)
from reproduce.report.student import Effect

# Extra hours of sleep under two drugs (Cushny and Peebles 1905), the example of R's manual of t.test.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Anscombe (1973): the same line fits both; the second is a parabola.
PLACES = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0]
STRAIGHT = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
BENT = [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74]


def test_welch_of_the_sleep_data() -> None:
    found = welch(FIRST, SECOND)
    assert found.estimate == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert found.n == (10, 10)
    assert found.low < found.low90 < found.high90 < found.high


def test_paired_t_of_the_sleep_data() -> None:
    found = paired(FIRST, SECOND)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    with pytest.raises(ValueError, match="no pairs"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])


def test_one_sample_t_by_hand() -> None:
    # Mean 92, deviation 1, t(0.975, 2) = 4.302653 and t(0.95, 2) = 2.919986.
    found = against([91.0, 92.0, 93.0], 90.0)
    assert found.estimate == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert (found.low90, found.high90) == pytest.approx((2 - 2.919986 / math.sqrt(3), 2 + 2.919986 / math.sqrt(3)))


def test_the_variance_of_images_adds_to_that_of_seeds() -> None:
    # Seeds give 1 / 3 with 2 degrees of freedom, images 1 that is known: (4/3)^2 / ((1/3)^2 / 2) = 32 degrees.
    found = against([91.0, 92.0, 93.0], 92.0, image_variance=1.0)
    assert found.high == pytest.approx(2.036933 * math.sqrt(4 / 3), abs=1e-5)
    assert "images" in found.method
    alone = welch([92.0, 92.0], [91.0, 91.0], image_variance=0.25)  # no spread over seeds: the normal's 1.96
    assert alone.low == pytest.approx(1 - 1.959964 * 0.5, abs=1e-6)
    with pytest.raises(ValueError, match="no variance"):
        welch(FIRST, SECOND, image_variance=math.nan)


def test_equal_values_have_a_point_and_no_test() -> None:
    found = welch([7.0, 7.0, 7.0], [5.0, 5.0])
    assert (found.estimate, found.low, found.high, found.p) == (2.0, 2.0, 2.0, None)
    assert "no spread" in found.method


@pytest.mark.parametrize("values", [[], [92.0], [92.0, math.nan], [92.0, math.inf]])
def test_values_that_decide_nothing_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        against(values, 90.0)
    with pytest.raises(ValueError):
        welch([92.0, 93.0], values)


def test_a_printed_deviation_is_read_in_two_ways() -> None:
    # EffConv-44 93.35 +- 0.17 against FlexNet-16 92.2 +- 0.1, three runs each, by hand: the error is
    # sqrt((0.17^2 + 0.1^2) / 3) = 0.113871; read as population deviations sqrt(3/2) times as much; 3.2355 degrees.
    degrees = (0.0289 + 0.01) ** 2 / ((0.0289**2 + 0.01**2) / 2)
    assert degrees == pytest.approx(3.2361, abs=1e-3)
    sample = summaries(93.35, 0.17, 92.2, 0.1, 3, reading="sample")
    population = summaries(93.35, 0.17, 92.2, 0.1, 3, reading="population")
    assert sample.estimate == population.estimate == pytest.approx(1.15)
    assert sample.high - sample.estimate == pytest.approx(3.0573 * 0.113871, rel=2e-3)
    assert population.high - 1.15 == pytest.approx(math.sqrt(1.5) * (sample.high - 1.15))


def test_our_runs_against_a_printed_mean_agree_with_welch_over_the_runs_behind_it() -> None:
    theirs = [92.10, 92.11, 92.31]
    mean, deviation = sum(theirs) / 3, float(np.std(theirs, ddof=1))
    ours = [92.5, 92.9, 92.6, 92.4]
    found = against_summary(ours, mean, deviation, 3, reading="sample")
    direct = welch(ours, theirs)
    assert (found.low, found.high) == pytest.approx((direct.low, direct.high))
    assert found.n == (4, 3)
    other = against_summary(ours, mean, float(np.std(theirs)), 3, reading="population")
    assert (other.low, other.high) == pytest.approx((direct.low, direct.high))


def test_a_mean_without_deviation_decides_nothing() -> None:
    with pytest.raises(ValueError, match="decides nothing"):
        against_summary([92.0, 93.0], 91.0, None, 3, reading="sample")
    with pytest.raises(ValueError, match="decides nothing"):
        summaries(92.0, 0.1, 91.0, None, 3, reading="sample")
    with pytest.raises(ValueError, match="at least 2 runs"):
        summaries(92.0, 0.1, 91.0, 0.1, 1, reading="population")


def test_image_variance_by_hand() -> None:
    # Seed averages in %: a 100, 50, 0, 100 and b 50, 50, 0, 0; differences 50, 0, 0, 100, mean 37.5,
    # sum of squares 12.5^2 + 2 * 37.5^2 + 62.5^2 = 6875, over 3 and over 4 images.
    a = [[1, 1, 0, 1], [1, 0, 0, 1]]
    b = [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert image_variance(a, b) == pytest.approx(6875 / 3 / 4)
    assert image_variance(a, a) == 0.0
    with pytest.raises(ValueError, match="same images"):
        image_variance(a, [[1, 1, 0]])


def test_mcnemar_is_the_exact_sign_test_of_the_discordant_images() -> None:
    a = [True] * 9 + [False] + [True] * 5 + [False] * 5
    b = [False] * 9 + [True] + [True] * 5 + [False] * 5
    assert mcnemar(a, b) == (9, 1, pytest.approx(2 * 11 / 1024))
    assert mcnemar(a, a) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="same images"):
        mcnemar(a, b[:-1])


@pytest.mark.parametrize(
    ("n", "least", "greatest"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (15, 4, 12), (20, 6, 15), (25, 8, 18)]
)
def test_order_statistics_of_the_published_table(n: int, least: int, greatest: int) -> None:
    found = from_ratios([float(rank) for rank in range(n, 0, -1)])
    assert (found.estimate, found.low, found.high) == ((n + 1) / 2, least, greatest)


def test_ratios_that_decide_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        from_ratios([1.1] * 5)
    with pytest.raises(ValueError, match="above 0"):
        from_ratios([1.1] * 6 + [0.0])
    assert from_ratios([1.1] * 9).p == pytest.approx(2 / 512)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (8, 10, 0.4439, 0.9748), (1, 20, 0.0013, 0.2487),
     (10, 10, 0.6915, 1.0)],
)  # fmt: skip
def test_clopper_and_pearsons_published_intervals(k: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_a_share_has_an_exact_test_against_one_half() -> None:
    found = share(6, 6)
    assert (found.estimate, found.high, found.p) == (1.0, 1.0, pytest.approx(2 / 64))
    assert found.low == pytest.approx(0.025 ** (1 / 6))
    assert found.low90 == pytest.approx(0.05 ** (1 / 6))
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(4, 3)


def test_holms_procedure() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_the_line_through_anscombes_first_points() -> None:
    found = line(PLACES, STRAIGHT)
    assert (found.slope.estimate, found.intercept.estimate) == pytest.approx((0.50009, 3.00009), abs=1e-5)
    assert (found.slope.low, found.slope.high) == pytest.approx((0.23337, 0.76681), abs=1e-5)
    assert found.slope.p == pytest.approx(0.00217, abs=5e-6)
    assert found.intercept.high - found.intercept.estimate == pytest.approx(2.262157 * 1.1247, rel=1e-4)
    assert found.quadratic is not None
    assert found.quadratic.low < 0 < found.quadratic.high


def test_the_bend_of_anscombes_second_points() -> None:
    bend = line(PLACES, BENT).quadratic
    assert bend is not None
    assert bend.estimate == pytest.approx(-0.12671, abs=1e-5)
    assert bend.high < -0.12


def test_a_line_does_not_depend_on_the_unit_of_x() -> None:
    here, there = line(PLACES, BENT), line([1e5 * x for x in PLACES], BENT)
    assert here.quadratic is not None and there.quadratic is not None
    assert there.slope.low * 1e5 == pytest.approx(here.slope.low)
    assert there.quadratic.low * 1e10 == pytest.approx(here.quadratic.low)
    assert there.intercept.high == pytest.approx(here.intercept.high)


def test_points_that_fix_no_line_are_refused() -> None:
    for x, y in ([1.0, 2.0], [1.0, 2.0]), ([1.0] * 3, [1.0] * 3), ([1.0, 2.0, 3.0], [1.0] * 2):
        with pytest.raises(ValueError):
            line(x, y)
    assert line([1.0, 2.0, 2.0, 1.0], [1.0, 2.0, 3.0, 2.0]).quadratic is None


def test_exactly_proportional_seconds_have_a_relative_slope_of_one() -> None:
    depths = [20.0, 26.0, 32.0, 44.0, 56.0]
    found = relative_slope(depths, [0.5 * depth for depth in depths], at=20)
    assert (found.estimate, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    half = relative_slope(depths, [10 + 0.25 * (depth - 20) for depth in depths], at=20)
    assert half.estimate == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no point at 14"):
        relative_slope(depths, depths, at=14)
    with pytest.raises(ValueError, match="told from 0"):
        relative_slope([20.0, 26.0, 32.0, 38.0], [0.1, 3.0, -3.0, 2.0], at=20)


def test_the_bootstrap_needs_twenty_seeds() -> None:
    values = [float(value) for value in np.random.default_rng(3).normal(size=40)]
    found = bootstrap_over_seeds(values, np.mean, draws=2_000)
    usual = against(values, 0.0)
    assert found.estimate == pytest.approx(usual.estimate)
    assert (found.low, found.high) == pytest.approx((usual.low, usual.high), abs=0.05)
    assert bootstrap_over_seeds(values, np.mean, draws=2_000) == found  # the same seed, the same draws
    with pytest.raises(ValueError, match="at least 20"):
        bootstrap_over_seeds(values[:19], np.mean)


def test_a_seed_counts_once() -> None:
    distinct([0, 1, 2])
    with pytest.raises(ValueError, match="seed 1, 4 "):
        distinct([1, 4, 2, 1, 4])


def test_an_effect_from_another_value_or_with_the_other_sign() -> None:
    found = Effect(1.2, 1.0, 1.5, 1.1, 1.4, 0.01, (9,), "m")
    turned = found.minus(1.0).negated()
    ends = (turned.estimate, turned.low, turned.high, turned.low90, turned.high90)
    assert ends == pytest.approx((-0.2, -0.5, 0.0, -0.4, -0.1))
    assert (turned.p, turned.n) == (0.01, (9,))
