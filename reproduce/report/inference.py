"""What repeated runs say of a difference, a ratio, a share or a trend: effects with intervals. Pure functions.

Methods are compared over seeds, never over the images of two runs. `verdicts` turns an effect into a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reproduce.report.lines import Line, line, relative_slope
from reproduce.report.statistics import CONFIDENCE
from reproduce.report.student import LOWER_CONFIDENCE, MANY, Effect, moments, student

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "Effect", "Line", "against", "against_summary", "bootstrap_over_seeds", "clopper_pearson", "distinct",
    "from_ratios", "holm", "image_variance", "line", "mcnemar", "paired", "relative_slope", "share", "summaries",
    "welch",
]  # fmt: skip

Reading = Literal["sample", "population"]  # what a printed +- is: n - 1 or n in the denominator
FEWEST_RATIOS = 6  # of fewer, not even the least and the greatest enclose the median with 95 %
FEWEST_RESAMPLED = 20


def welch(a: Sequence[float], b: Sequence[float], *, image_variance: float = 0.0) -> Effect:
    """mean(a) - mean(b) over seeds, with variances of their own. Raises `ValueError` below two values an arm.

    image_variance: of the difference over the distribution of images, as the function of that name gives it; taken as
    known, since it comes from thousands of images.
    """
    (mean_a, var_a), (mean_b, var_b) = moments(a), moments(b)
    parts = [(var_a / len(a), len(a) - 1), (var_b / len(b), len(b) - 1), (image_variance, MANY)]
    return student(mean_a - mean_b, parts, n=(len(a), len(b)), method=_with_images("Welch over seeds", image_variance))


def against(a: Sequence[float], value: float, *, image_variance: float = 0.0) -> Effect:
    """mean(a) - value, a number without error of its own. Raises `ValueError` below two values."""
    mean, variance = moments(a)
    parts = [(variance / len(a), len(a) - 1), (image_variance, MANY)]
    return student(mean - value, parts, n=(len(a),), method=_with_images("one-sample t over seeds", image_variance))


def against_summary(a: Sequence[float], mean: float, std: float | None, n: int, *, reading: Reading) -> Effect:
    """mean(a) - a printed mean +- std over n runs, after Welch. Raises `ValueError` for no std: it decides nothing."""
    own, variance = moments(a)
    parts = [(variance / len(a), len(a) - 1), (_printed_variance(std, n, reading) / n, n - 1)]
    return student(own - mean, parts, n=(len(a), n), method=f"Welch against the printed ± as {reading} deviation")


def summaries(
    mean_a: float, std_a: float | None, mean_b: float, std_b: float | None, n: int, *, reading: Reading
) -> Effect:
    """mean_a - mean_b from printed numbers alone, n runs each, after Welch. Raises `ValueError` where a std is None."""
    parts = [(_printed_variance(std, n, reading) / n, n - 1) for std in (std_a, std_b)]
    return student(mean_a - mean_b, parts, n=(n, n), method=f"Welch of printed ± as {reading} deviation")


def paired(a: Sequence[float], b: Sequence[float]) -> Effect:
    """The mean of a - b over pairs: only for arms that share network and starting weights, seed by seed.

    Raises `ValueError` for unequal lengths and below two pairs.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values are no pairs")
    mean, variance = moments([one - other for one, other in zip(a, b, strict=True)])
    return student(mean, [(variance / len(a), len(a) - 1)], n=(len(a),), method="paired t over seeds")


def image_variance(bits_a: ArrayLike, bits_b: ArrayLike) -> float:
    """The variance over images, in squared points, of the mean paired difference of seed-averaged correctness.

    bits_a, bits_b: (seeds, images) booleans over the same images in the same order. What a seed does to single images
    is in here and in the variance over seeds as well, so the sum of both is rather too large than too small.
    """
    import numpy as np

    a, b = (100.0 * np.asarray(bits, dtype=float) for bits in (bits_a, bits_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 2 or not a.size or not b.size:
        raise ValueError(f"bits of shapes {a.shape} and {b.shape} are not (seeds, images) over the same images")
    difference = a.mean(axis=0) - b.mean(axis=0)
    return float(difference.var(ddof=1)) / difference.size


def mcnemar(bits_a: ArrayLike, bits_b: ArrayLike) -> tuple[int, int, float]:
    """(a right and b wrong, b right and a wrong, exact two-sided p) of two named runs, never of two methods.

    bits_a, bits_b: (images,) booleans.
    """
    import numpy as np

    a, b = (np.asarray(bits, dtype=bool) for bits in (bits_a, bits_b))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"bits of shapes {a.shape} and {b.shape} are not two runs over the same images")
    first, second = int((a & ~b).sum()), int((b & ~a).sum())
    return first, second, _sign_p(first, second)


def from_ratios(ratios: Sequence[float]) -> Effect:
    """The median ratio with its order-statistic intervals, of at least the stated confidence; of the ratio itself.

    p is the exact sign test against a ratio of 1. Raises `ValueError` below 6 ratios, which have no such interval.
    """
    values, n = sorted(ratios), len(ratios)
    if n < FEWEST_RATIOS:
        raise ValueError(f"{n} ratios have no 95 % interval of their median; at least {FEWEST_RATIOS} are needed")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError("a ratio is no finite number above 0")
    middle = (values[(n - 1) // 2] + values[n // 2]) / 2
    ranks = [_rank(n, level) for level in (CONFIDENCE, LOWER_CONFIDENCE)]
    (low, high), (low90, high90) = [(values[k - 1], values[n - k]) for k in ranks]
    p = _sign_p(sum(value > 1 for value in values), sum(value < 1 for value in values))
    return Effect(middle, low, high, low90, high90, p, (n,), "median of pair ratios, order statistics")


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a share of which k of n were seen. Raises `ValueError` unless 0 <= k <= n and n >= 1."""
    from scipy.special import betaincinv

    if not 0 <= k <= n or n < 1:
        raise ValueError(f"{k} of {n} is no share")
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    return low, 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))


def share(k: int, n: int) -> Effect:
    """k of n seeds with the Clopper-Pearson intervals; p is exact and two-sided against one half."""
    wide, narrow = clopper_pearson(k, n), clopper_pearson(k, n, LOWER_CONFIDENCE)
    return Effect(k / n, *wide, *narrow, _sign_p(k, n - k), (n,), "Clopper-Pearson over seeds")


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p values of one family, in the order given."""
    adjusted, least = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda one: one[1])):
        least = max(least, min(1.0, (len(p) - rank) * value))
        adjusted[name] = least
    return {name: adjusted[name] for name in p}


def bootstrap_over_seeds(
    values: Sequence[float], statistic: Callable[[Any], float], *, seed: int = 0, draws: int = 10_000
) -> Effect:
    """A statistic of (n,) values with percentile intervals over resampled seeds. Raises `ValueError` under 20 values:
    there its intervals are far too short.
    """
    import numpy as np

    if len(values) < FEWEST_RESAMPLED:
        raise ValueError(f"{len(values)} seeds are too few to resample; at least {FEWEST_RESAMPLED} are needed")
    given = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(given.size, size=(draws, given.size))
    found = [float(statistic(given[pick])) for pick in picks]
    low, low90, high90, high = map(float, np.quantile(found, [0.025, 0.05, 0.95, 0.975]))
    return Effect(float(statistic(given)), low, high, low90, high90, None, (given.size,), "bootstrap over seeds")


def distinct(seeds: Iterable[int]) -> None:
    """Raises `ValueError` for a seed that is there twice: it would count one run as two."""
    given = list(seeds)
    twice = sorted({seed for seed in given if given.count(seed) > 1})
    if twice:
        raise ValueError(f"seed {', '.join(map(str, twice))} is there more than once")


def _printed_variance(std: float | None, n: int, reading: Reading) -> float:
    if std is None:
        raise ValueError("a mean printed without ± decides nothing")
    if n < 2:
        raise ValueError(f"a printed ± needs at least 2 runs, not {n}")
    return std * std * (n / (n - 1) if reading == "population" else 1.0)


def _with_images(method: str, variance: float) -> str:
    if not 0.0 <= variance < math.inf:
        raise ValueError(f"{variance:g} is no variance")
    return f"{method} and images" if variance else method


def _sign_p(ups: int, downs: int) -> float:
    """Exact two-sided p of so many against so many where both are as likely."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(ups, downs), ups + downs, 0.5))) if ups + downs else 1.0


def _rank(n: int, confidence: float) -> int:
    """The largest k whose order statistics k and n + 1 - k enclose the median with at least this confidence."""
    tail, k = 0.0, 0
    while k < n // 2 and 2 * (tail + math.comb(n, k) / 2**n) <= 1 - confidence:
        tail += math.comb(n, k) / 2**n
        k += 1
    return k
