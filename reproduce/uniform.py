"""The control with one kernel size everywhere: a CIFAR ResNet made wide enough, instead, to meet a budget of Eq. 3."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

RATIO = (1, 2, 4)  # He et al.'s widths 16, 32, 64
REACHES = (1.02, 1.2, math.inf)  # how far from 1:2:4 to look, in this order

Widths = tuple[int, int, int]


@lru_cache
def uniform_widths(depth: int, size: int, budget: int, *, tolerance: float = 0.01) -> Widths:
    """The widths nearest to 1:2:4 whose count of Eq. 3, every size being `size`, is within `tolerance` of the budget.

    Nearest: the least `distance`, which looks at the ratio alone; among equals the count nearest to the budget, then
    the smallest widths. Raises `ValueError` for another depth than 6n + 2 and for a budget that no widths meet.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"the depth of a CIFAR ResNet is 6n + 2 (8, 14, 20, ...); got {depth}")
    area = size * size
    least, most = math.ceil(budget * (1 - tolerance) / area), math.floor(budget * (1 + tolerance) / area)
    # the paper has no such control; 'nearest' is ours.
    found = None
    for reach in REACHES:
        found = min(
            within(blocks, least, most, reach),
            key=lambda widths: (distance(widths), abs(area * pairs(widths, blocks) - budget), widths),
            default=None,
        )
        if found is not None and distance(found) <= math.log(reach) ** 2 / 2:
            break  # whatever is out of reach is farther than that
    if found is None:
        raise ValueError(
            f"no widths give a ResNet-{depth} of {size} x {size} kernels {budget:,} weights within {tolerance:.2%}; "
            f"the fewest are {area * pairs((1, 1, 1), blocks):,}"
        )
    return found


def distance(widths: Widths) -> float:
    """How far widths are from 1:2:4: the sum of squared deviations of log(w_i / r_i) from their mean.

    It is 0 for every multiple of 1:2:4, and a width that is x times too large weighs as one x times too small.
    """
    logs = [math.log(width / part) for width, part in zip(widths, RATIO, strict=True)]
    mean = math.fsum(logs) / len(logs)
    return round(math.fsum((value - mean) ** 2 for value in logs), 12)  # rounded, so that equals are equal


def pairs(widths: Widths, blocks: int) -> int:
    """Pairs of channels that the residual convolutions join: Eq. 3 with every size 1."""
    a, b, c = widths
    later = 2 * blocks - 1  # convolutions of a stage after its first
    return (a + later * a) * a + (a + later * b) * b + (b + later * c) * c


def within(blocks: int, least: int, most: int, reach: float) -> Iterator[Widths]:
    """All widths a <= b <= c with `least` <= `pairs` <= `most` and both b / 2a and c / 2b in 1 / reach .. reach."""
    later = 2 * blocks - 1
    for a in range(1, math.isqrt(most) + 1):
        for b in range(max(a, math.ceil(2 * a / reach)), math.isqrt(most) + 1):
            if b > 2 * a * reach or pairs((a, b, b), blocks) > most:
                break
            rest = most - pairs((a, b, 0), blocks)
            c = (math.isqrt(b * b + 4 * later * rest) - b) // (2 * later)  # the largest with later c^2 + b c <= rest
            while c >= max(b, 2 * b / reach) and pairs((a, b, c), blocks) >= least:
                if c <= 2 * b * reach:
                    yield a, b, c
                c -= 1
