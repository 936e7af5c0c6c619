"""What the equations alone say of a sentence on the mechanism: Eq. 1's range, and the mask of Eqs. 6 and 7.

The verdict is on the equations as printed. The pixel-centred mask, which this repository uses (R-09), stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from reproduce import paper
from reproduce.claims import Claim
from reproduce.report.evidence import Evidence
from reproduce.report.inference import Effect
from reproduce.report.scopes import Finding, Scope, exact
from reproduce.report.verdicts import Verdict, directional

EQUATIONS = Scope(decisive=True, data="no images", protocol="computed from Eqs. 1, 6 and 7 as printed")
MARGIN = 0.1
MIDDLE = 0.9  # 'almost as it is': the middle keeps at least so much
SIZES = range(3, 8)  # with an edge and a middle
CENTRES: dict[str, Callable[[float], float]] = {"printed": lambda v: v / 2, "pixel": lambda v: (v + 1) / 2}

Judged = tuple[Verdict, str, Effect]
Mask = list[list[float]]


def mechanisms(claim: Claim, _: Evidence) -> Iterator[Finding]:
    """The computation that the claim names. Raises `KeyError` for a rule that is none."""
    verdict, text, effect = RULES[claim.rule](claim)
    yield Finding(scope=EQUATIONS, verdict=verdict, text=text, effect=effect, smallest=MARGIN)


def sigma(_: Claim) -> Judged:
    """Eq. 1's squashing at 0 and at both ends."""
    given = paper.settings()["size_learning"]
    k, tau, b = (float(given[name]) for name in ("k", "tau", "b"))
    ends = [k * math.tanh(x / tau + b) + k + 1 for x in (-1e9, 0.0, 1e9)]
    wanted = [float(end) for end in given["sizes"]]
    off = abs(ends[1] / 3.0 - 1.0)
    holds = [math.floor(ends[0] + 0.5), math.floor(ends[2] + 0.5)] == wanted and off < MARGIN
    text = f"soft sizes lie in {ends[0]:.3g} to {ends[2]:.3g} and start at {ends[1]:.3f} where the predictor gives 0"
    return "supported" if holds else "contradicted", text, exact(MARGIN - off)


def mask(v: float, s: int, centre: str) -> Mask:
    """Eq. 6. v: soft size -> (s, s)."""
    c = CENTRES[centre](v)
    places = range(1, s + 1)
    return [[math.exp(-((i - c) ** 2 + (j - c) ** 2) / v**2) for j in places] for i in places]


@cache
def edges(_: Claim) -> Judged:
    """How much less an edge keeps than the middle, on average over its taps, and what the middle keeps, at v = s."""
    least, kept = {}, {}
    for centre in CENTRES:
        nominal = [_edge_and_middle(s, s, centre) for s in SIZES]
        least[centre] = min(1 - edge / middle for edge, middle in nominal)
        kept[centre] = min(middle for _, middle in nominal)
    effect = exact(least["printed"])
    verdict = directional(effect, MARGIN) if kept["printed"] >= MIDDLE else "contradicted"
    text = "; ".join(f"{centre} centre: {_said(centre, least[centre], kept[centre])}" for centre in CENTRES)
    return verdict, f"for v = s = 3..7, on average over edge taps: {text}", effect


def _said(centre: str, least: float, kept: float) -> str:
    between = [_edge_and_middle(v, s, centre) for s, v in _soft_sizes()]
    worst = 100 * min(1 - edge / middle for edge, middle in between), 100 * min(middle for _, middle in between)
    return (
        f"edges keep at least {100 * least:.0f} % less than the middle, and the middle keeps at least "
        f"{100 * kept:.0f} % ({worst[0]:.0f} and {worst[1]:.0f} % at the worst v); {_spared(centre)}"
    )


def _soft_sizes() -> Iterator[tuple[int, float]]:
    """(s, v) for v in steps of 0.05 that round to s (half up)."""
    return ((s, s - 0.5 + step / 20) for s in SIZES for step in range(20))


def _edge_and_middle(v: float, s: int, centre: str) -> tuple[float, float]:
    """Means over the taps of the outermost ring, and over the middle one (odd s) or four."""
    taps = mask(v, s, centre)
    middle = {s // 2, (s - 1) // 2}
    inner = [taps[i][j] for i in middle for j in middle]
    ring = [taps[i][j] for i in range(s) for j in range(s) if {i, j} & {0, s - 1}]
    return sum(ring) / len(ring), sum(inner) / len(inner)


def _spared(centre: str) -> str:
    """Sizes at v = s with an edge tap that keeps as much as a middle one."""
    found = []
    for s in SIZES:
        taps, middle = mask(s, s, centre), {s // 2, (s - 1) // 2}
        ring = max(taps[i][j] for i in range(s) for j in range(s) if {i, j} & {0, s - 1})
        if ring >= min(taps[i][j] for i in middle for j in middle) - 1e-12:
            found.append(str(s))
    sizes = ", ".join(found)
    return f"some edge taps keep as much as a middle one at s = {sizes}" if found else "every edge tap keeps less"


@cache
def gradients(_: Claim) -> Judged:
    """The share of taps whose factor changes with v, under Eq. 6 and under a piecewise linear mask."""
    moving = [_moving(partial(mask, s=s, centre="printed"), v) for s, v in _soft_sizes()]
    linear = [_moving(partial(piecewise, s=s), v) for s, v in _soft_sizes()]
    effect = exact(min(moving) - max(linear))
    verdict: Verdict = "supported" if min(moving) > MIDDLE and max(linear) < 1 else "contradicted"
    text = (
        f"taps that move with v, at soft sizes that round to 3..7: {_range(moving)} under Eq. 6, "
        f"{_range(linear)} under a linear ramp of one tap"
    )
    return verdict, text, effect


def _range(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"


def piecewise(v: float, s: int) -> Mask:
    """Adaptive attention span's ramp around the pixel centre: 1 inside, down to 0 over one tap at distance v / 2."""
    c = (s + 1) / 2

    def factor(i: int) -> float:
        return min(1.0, max(0.0, v / 2 - abs(i - c)))

    return [[factor(i) * factor(j) for j in range(1, s + 1)] for i in range(1, s + 1)]


def _moving(of: Callable[[float], Mask], v: float) -> float:
    """The share of taps with a derivative by v."""
    step = 1e-4
    up, down = ([tap for row in of(v + sign * step) for tap in row] for sign in (1, -1))
    return sum(abs(a - b) > 1e-9 for a, b in zip(up, down, strict=True)) / len(up)


RULES: dict[str, Callable[[Claim], Judged]] = {"sigma": sigma, "mask_edges": edges, "mask_gradient": gradients}
