"""A straight line through points, its bend, and its slope in units of a start value, each with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reproduce.report.statistics import CONFIDENCE, t_quantile
from reproduce.report.student import LOWER_CONFIDENCE, Effect, student

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

METHOD = "least squares"


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x by ordinary least squares; `quadratic` is the x^2 term of a parabola through the same."""

    slope: Effect
    intercept: Effect
    quadratic: Effect | None  # None below three places of x or four points


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit (x, y) points; seeds are repeats of an x, each a point.

    Raises `ValueError` below three points or two places of x, and for unequal lengths.
    """
    x, y = checked(x, y)
    straight = _terms(x, y, 1)
    parabola = _terms(x, y, 2) if len(set(x)) > 2 and len(x) > 3 else None
    return Line(slope=straight[1], intercept=straight[0], quadratic=None if parabola is None else parabola[2])


def relative_slope(x: Sequence[float], y: Sequence[float], *, at: float) -> Effect:
    """The slope in units of y(at) / at: seconds that a layer adds over the average seconds of a layer of the start.

    y(at): the mean of y at x = `at`. The interval is Fieller's for the ratio of two sums over the same y, with the
    residual variance about the line; a little too wide (96 % in simulation), since y(at) has its noise in both. p is
    two-sided against 1. Raises `ValueError` as `line` does, without a point at `at`, and where y(at) cannot be told
    from 0.
    """
    import numpy as np

    x, y = checked(x, y)
    if at not in x:
        raise ValueError(f"no point at {at:g}, which the slope is measured by")
    design, values, there = _design(x, 1), np.array(y), np.array([one == at for one in x])
    top = np.linalg.pinv(design)[1]  # the slope as a sum over y
    bottom = there / there.sum() / at
    residual, free = _residual(design, values)
    a, b = float(top @ values), float(bottom @ values)
    moments = residual * float(top @ top), residual * float(top @ bottom), residual * float(bottom @ bottom)
    ends = [_fieller(a, b, *moments, t_quantile(free, level)) for level in (CONFIDENCE, LOWER_CONFIDENCE)]
    variance = moments[0] - 2 * moments[1] + moments[2]  # of a - b, for the test of a / b = 1
    p = student(a - b, [(variance, free)], n=(len(x),), method=METHOD).p
    return Effect(a / b, *ends[0], *ends[1], p, (len(x),), f"{METHOD}, Fieller's interval")


def checked(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Both as lists. Raises `ValueError` for points that no line goes through in one way."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} places but {len(y)} values")
    if len(x) < 3 or len(set(x)) < 2:
        raise ValueError(f"{len(x)} points at {len(set(x))} places; a line needs 3 points at 2 places")
    if not all(map(math.isfinite, [*x, *y])):
        raise ValueError("a point holds no finite number")
    return [float(one) for one in x], [float(one) for one in y]


def _terms(x: list[float], y: list[float], degree: int) -> list[Effect]:
    """The coefficients of 1, x, x^2 ... as effects."""
    import numpy as np

    scale = max(map(abs, x))  # powers of budgets in weights would swamp the ones
    design, values = _design([one / scale for one in x], degree), np.array(y)
    powers = scale ** np.arange(degree + 1)
    inverse = np.linalg.pinv(design) / powers[:, None]  # (degree + 1, points): each coefficient as a sum over y
    residual, free = _residual(design, values)
    names = ("intercept", "slope", "quadratic term")
    return [
        student(float(row @ values), [(residual * float(row @ row), free)], n=(len(x),), method=f"{METHOD}, {name}")
        for row, name in zip(inverse, names, strict=False)
    ]


def _design(x: list[float], degree: int) -> Array:
    """(points, degree + 1): powers of x."""
    import numpy as np

    return np.vander(np.array(x), degree + 1, increasing=True)


def _residual(design: Array, values: Array) -> tuple[float, int]:
    """Residual variance and its degrees of freedom. Residuals of the size of rounding are none."""
    import numpy as np

    off = values - design @ (np.linalg.pinv(design) @ values)
    if float(np.abs(off).max()) <= 1e-12 * float(np.abs(values).max()):
        off = np.zeros_like(off)
    free = design.shape[0] - design.shape[1]
    return float(off @ off) / free, free


def _fieller(a: float, b: float, aa: float, ab: float, bb: float, t: float) -> tuple[float, float]:
    """All r with (a - r b)^2 <= t^2 var(a - r b), from the variances and the covariance of a and b."""
    square = b * b - t * t * bb
    if square <= 0:
        raise ValueError("the start value cannot be told from 0, so nothing can be measured by it")
    middle = (a * b - t * t * ab) / square
    half = math.sqrt(max(0.0, middle * middle - (a * a - t * t * aa) / square))
    return middle - half, middle + half
