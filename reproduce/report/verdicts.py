"""From an effect to a verdict: the rules alone, fixed before any run. Pure functions.

Unadjusted intervals decide. An effect that is no finite number, or a margin below 0, raises `ValueError`.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from reproduce.report.student import Effect

Verdict = Literal["supported", "supported but small", "contradicted", "undecided", "not testable", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
HALF = 0.5


def directional(effect: Effect, smallest: float) -> Verdict:
    """A claim that the effect, signed as the claim says, is above 0 by an amount that matters.

    Supported if the 95 % interval lies above 0, contradicted if it lies below the smallest effect; an interval between
    the two is both: there is an effect, and it is small.
    """
    _check(effect, smallest)
    above, below = effect.low > 0.0, effect.high < smallest
    if above:
        return "supported but small" if below else "supported"
    return "contradicted" if below else "undecided"


def on_par(effect: Effect, margin: float) -> Verdict:
    """A claim that two things are equal within +- margin.

    Supported if the 90 % interval lies inside the margins (two one-sided tests at 5 %), contradicted if the 95 %
    interval lies outside them, on either side.
    """
    _check(effect, margin)
    if -margin < effect.low90 and effect.high90 < margin:
        return "supported"
    return "contradicted" if effect.low > margin or effect.high < -margin else "undecided"


def trend(relative_slope: Effect) -> Verdict:
    """A claim that something grows less than in proportion: its slope over its start value (`inference.relative_slope`)
    is under 1.
    """
    return directional(relative_slope.minus(1.0).negated(), 0.0)


def saturation(late: Effect, early: Effect, margin: float) -> Verdict:
    """A claim that a curve rises and then rises no more.

    Supported if `late` (56 minus 50 layers) is on par and the 95 % interval of `early` (50 minus 20) lies above the
    margin; contradicted if `late` is not on par or that of `early` lies below the margin.
    """
    flat = on_par(late, margin)
    _check(early, margin)
    if flat == "contradicted" or early.high < margin:
        return "contradicted"
    return "supported" if flat == "supported" and early.low > margin else "undecided"


def linear(quadratic: Effect) -> Verdict:
    """A claim that a curve is straight: the 95 % interval of the quadratic term contains 0.

    Few or scattered points support it easily; the width of the interval says how much bend would have been missed.
    """
    _check(quadratic, 0.0)
    return "supported" if quadratic.low <= 0.0 <= quadratic.high else "contradicted"


def structure(share: Effect) -> Verdict:
    """A claim that something is mostly so: the 95 % interval of the share of seeds (`inference.share`) is above 1/2."""
    return directional(share.minus(HALF), 0.0)


def agreed(first: Verdict, second: Verdict) -> Verdict:
    """The verdict of two readings of the same printed numbers: what both of them decide alike, and no more."""
    common = _DECIDES.get(first, frozenset()) & _DECIDES.get(second, frozenset())
    return next(verdict for verdict, what in _DECIDES.items() if what == common)


# Which of the two findings, above 0 and below the smallest effect, each verdict stands for.
_DECIDES: dict[Verdict, frozenset[str]] = {
    "supported": frozenset({"above"}),
    "supported but small": frozenset({"above", "below"}),
    "contradicted": frozenset({"below"}),
    "undecided": frozenset(),
}


def _check(effect: Effect, margin: float) -> None:
    if not all(map(math.isfinite, (effect.estimate, effect.low, effect.high, effect.low90, effect.high90))):
        raise ValueError("an effect that is no finite number decides nothing")
    if not 0.0 <= margin < math.inf:
        raise ValueError(f"{margin:g} is no smallest effect")
