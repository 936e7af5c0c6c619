"""An effect, which is an estimate with its 95 % and 90 % intervals, and Student's t for one. See `inference`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from reproduce.report.statistics import CONFIDENCE, mean, t_quantile

LOWER_CONFIDENCE = 0.9  # two one-sided tests at 5 %, as 'on par' needs
MANY = 1e9  # degrees of freedom of a variance that is known


@dataclass(frozen=True)
class Effect:
    """A difference, ratio, slope or share with its intervals, in the unit of its values."""

    estimate: float
    low: float  # 95 %
    high: float
    low90: float
    high90: float
    p: float | None  # two-sided, against 0 unless the function that made it names another value; None: no test
    n: tuple[int, ...]  # seeds (or pairs, points) of each arm
    method: str  # for people: "Welch over seeds"

    def minus(self, value: float) -> Self:
        """The same finding counted from `value`; p stays what it was a test of."""
        ends = {name: getattr(self, name) - value for name in ("estimate", "low", "high", "low90", "high90")}
        return replace(self, **ends)

    def negated(self) -> Self:
        """The same finding with the sign that a claim of the contrary gives it."""
        return replace(
            self, estimate=-self.estimate, low=-self.high, high=-self.low, low90=-self.high90, high90=-self.low90
        )


def student(estimate: float, parts: Sequence[tuple[float, float]], *, n: tuple[int, ...], method: str) -> Effect:
    """The Student-t intervals of an estimate whose variance is a sum.

    parts: (variance, its degrees of freedom). The degrees of the sum are Welch's and Satterthwaite's,
    (sum v)^2 / sum(v^2 / f). Without any variance the interval is the estimate itself, and there is no test.
    """
    from scipy.special import stdtr

    variance = math.fsum(part for part, _ in parts)
    if variance == 0.0:
        return Effect(estimate, estimate, estimate, estimate, estimate, None, n, f"{method}, no spread")
    weights = math.fsum((part / variance) ** 2 / free for part, free in parts)
    degrees = min(MANY, 1 / weights)
    error = math.sqrt(variance)
    half, half90 = (t_quantile(degrees, level) * error for level in (CONFIDENCE, LOWER_CONFIDENCE))
    p = 2 * float(stdtr(degrees, -abs(estimate) / error))
    return Effect(estimate, estimate - half, estimate + half, estimate - half90, estimate + half90, p, n, method)


def moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample variance; exactly 0 for equal values. Raises `ValueError` below two values or for no number."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread to go by; at least 2 are needed")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is no finite number")
    if min(values) == max(values):
        return values[0], 0.0
    centre = mean(values)
    return centre, math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
