"""Mean, sample standard deviation and 95 % Student-t interval of a few numbers, one for each seed. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """What a cell says of its seeds' values. One value alone has neither deviation nor interval."""

    values: tuple[float, ...]
    mean: float
    std: float | None
    interval: tuple[float, float] | None

    @property
    def n(self) -> int:
        return len(self.values)

    def as_json(self) -> dict[str, Any]:
        """Rounded to 6 places, so that another version of scipy changes no file."""
        return {
            "mean": round(self.mean, 6),
            "std": None if self.std is None else round(self.std, 6),
            "interval95": None if self.interval is None else [round(end, 6) for end in self.interval],
            "n": self.n,
            "values": [round(value, 6) for value in self.values],
        }


def summarise(values: Iterable[float]) -> Summary:
    """Mean, deviation and interval. Raises `ValueError` for no values."""
    kept = tuple(values)
    return Summary(values=kept, mean=mean(kept), std=sample_std(kept), interval=interval95(kept))


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean. Raises `ValueError` for no values."""
    if not values:
        raise ValueError("no values, so no mean")
    return math.fsum(values) / len(values)


def sample_std(values: Sequence[float]) -> float | None:
    """The deviation with n - 1 in the denominator; None for a single value."""
    # the paper's +- is read as the sample deviation.
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def interval95(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % Student-t interval of the mean: mean +- t(0.975, n - 1) std / sqrt(n); None for a single value."""
    std = sample_std(values)
    if std is None:
        return None
    half = t_quantile(len(values) - 1) * std / math.sqrt(len(values))
    centre = mean(values)
    return centre - half, centre + half


def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided point of Student's t, by default of 95 %: 12.706 for 1 degree of freedom, 4.303 for 2."""
    from scipy.special import stdtrit  # here, because its import takes longer than a whole --help

    return float(stdtrit(degrees, 0.5 + confidence / 2))
