"""How many seeds a claim needs before its rule can be expected to decide. Pure functions.

Of a difference: the noncentral t with Welch's and Satterthwaite's degrees of freedom, for as many seeds in both arms.
Of a share: the binomial distribution, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reproduce.report.inference import clopper_pearson
from reproduce.report.statistics import CONFIDENCE, t_quantile
from reproduce.report.student import LOWER_CONFIDENCE, moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

POWER = 0.8
LIMIT = 0.8  # one-sided confidence of the upper limit of a pooled deviation
MOST = 1000  # seeds; whoever needs more needs another question
HALF = 0.5


@dataclass(frozen=True)
class Spread:
    """The deviation between seeds, pooled over cells. `upper`: its one-sided 80 % limit, which plans reckon with."""

    std: float
    upper: float
    degrees: int  # of freedom: seeds less cells
    cells: int


@dataclass(frozen=True)
class Images:
    """What images add to the variance of a difference: `lasting` + `by_seed` / n at n seeds an arm, squared points."""

    lasting: float = 0.0
    by_seed: float = 0.0


def pooled(cells: Sequence[Sequence[float]]) -> Spread | None:
    """The spread over the cells that have two seeds or more; None without any, or where all are equal.

    With f degrees of freedom, f std^2 / sigma^2 is chi-square, so sigma is below std sqrt(f / chi2(0.2, f)) with 80 %.
    """
    from scipy.special import chdtri  # by the upper tail

    several = [cell for cell in cells if len(cell) > 1]
    degrees = sum(len(cell) - 1 for cell in several)
    total = math.fsum(moments(cell)[1] * (len(cell) - 1) for cell in several)
    if not total:
        return None
    upper = math.sqrt(total / float(chdtri(degrees, LIMIT)))
    return Spread(std=math.sqrt(total / degrees), upper=upper, degrees=degrees, cells=len(several))


def images_of(bits_a: ArrayLike, bits_b: ArrayLike) -> Images:
    """The two parts of `inference.image_variance`, told apart by what seeds do to single images.

    bits_a, bits_b: (seeds, images) booleans, two seeds or more in each.
    """
    import numpy as np

    a, b = (100.0 * np.asarray(bits, dtype=float) for bits in (bits_a, bits_b))
    number = a.shape[1]
    noise = [arm.var(axis=0, ddof=1).mean() / number for arm in (a, b)]
    whole = (a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / number
    lasting = whole - noise[0] / len(a) - noise[1] / len(b)
    return Images(lasting=max(0.0, float(lasting)), by_seed=float(noise[0] + noise[1]))


def power_above(smallest: float, spread: float, n: int, images: Images = Images()) -> float:
    """The chance that the 95 % interval lies above 0 if the effect is the smallest that counts, at n seeds an arm.

    It is also the chance that the interval lies below the smallest effect if there is none.
    """
    return _exceeds(smallest, spread, n, images, CONFIDENCE)


def power_on_par(margin: float, spread: float, n: int, images: Images = Images()) -> float:
    """At least the chance that the 90 % interval lies inside +- margin if there is no difference (Bonferroni)."""
    return max(0.0, 2 * _exceeds(margin, spread, n, images, LOWER_CONFIDENCE) - 1)


def seeds_for(smallest: float, spread: float, *, on_par: bool = False, images: Images = Images()) -> int | None:
    """The fewest seeds an arm with a power of 0.8; None where `MOST` are not enough."""
    power = power_on_par if on_par else power_above
    return next((n for n in range(2, MOST + 1) if power(smallest, spread, n, images) >= POWER), None)


def seeds_for_share(share: float) -> tuple[int, int] | None:
    """(n, k): the fewest seeds of which, with a power of 0.8, at least the k that decide show what `share` of all show.

    k of n decide if the Clopper-Pearson interval lies above one half. None where `MOST` are not enough.
    """
    from scipy.special import bdtrc

    for n in range(2, MOST + 1):
        k = deciding(n)
        if k is not None and float(bdtrc(k - 1, n, share)) >= POWER:
            return n, k
    return None


def deciding(n: int) -> int | None:
    """The least k of n whose Clopper-Pearson interval lies above one half; None where not even n of n does."""
    return next((k for k in range(n // 2, n + 1) if clopper_pearson(k, n)[0] > HALF), None)


def _exceeds(effect: float, spread: float, n: int, images: Images, confidence: float) -> float:
    """The chance that the lower end of Welch's interval is above 0."""
    from scipy.special import nctdtr

    seeds = 2 * spread * spread / n
    variance = seeds + images.lasting + images.by_seed / n
    degrees = 2 * (n - 1) * (variance / seeds) ** 2
    return 1.0 - float(nctdtr(degrees, effect / math.sqrt(variance), t_quantile(degrees, confidence)))
