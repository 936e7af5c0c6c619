"""Means, deviations and intervals against numbers worked out by hand and Student's published table."""

from __future__ import annotations

import math

import pytest

from reproduce.report.statistics import interval95, mean, sample_std, summarise, t_quantile


def test_three_seeds_by_hand() -> None:
    # Mean 92, deviations -1, 0, 1, so the sample variance is 2 / 2 = 1; t(0.975, 2) = 4.302653.
    found = summarise([91.0, 92.0, 93.0])
    assert found.mean == 92.0
    assert found.std == pytest.approx(1.0, abs=1e-12)
    assert found.interval is not None
    half = 4.302653 / math.sqrt(3)
    assert found.interval == pytest.approx((92 - half, 92 + half), abs=1e-5)
    assert found.n == 3


def test_the_deviation_is_the_samples_not_the_populations() -> None:
    # FlexConv's sheet: .9210 .9211 .9231 is given as 92.17 +- 0.12; the population's would be 0.097.
    values = [92.10, 92.11, 92.31]
    assert mean(values) == pytest.approx(92.1733333)
    assert sample_std(values) == pytest.approx(0.11846, abs=1e-5)


def test_one_seed_has_neither_deviation_nor_interval() -> None:
    found = summarise([90.5])
    assert (found.mean, found.std, found.interval, found.n) == (90.5, None, None, 1)
    assert found.as_json() == {"mean": 90.5, "std": None, "interval95": None, "n": 1, "values": [90.5]}


def test_no_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarise([])


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423)])
def test_quantiles_of_students_table(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-5)


def test_two_seeds_have_a_wide_interval() -> None:
    # Deviation sqrt(2) * 0.5, half width 12.7062 * 0.7071 * 0.7071 * ... = 12.7062 * 0.5.
    assert interval95([90.0, 91.0]) == pytest.approx((90.5 - 6.3531, 90.5 + 6.3531), abs=1e-4)


def test_equal_values_have_no_width() -> None:
    found = summarise([12.5, 12.5, 12.5])
    assert found.std == 0.0
    assert found.interval == (12.5, 12.5)
