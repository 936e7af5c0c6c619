"""The two scores of a known answer, and why a case does not reach. Pure functions; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reproduce.known_answers import Case, receptive_field

MARGIN = 2.0  # points of test accuracy

# Why a case does not reach; the first that applies.
DIVERGED = "diverged"
OUT_OF_REACH = "out of reach: no sizes that the method may take see far enough"
OUT_OF_BUDGET = "out of reach: no sizes within the budget see far enough"
DEAD = "dead state: a layer stuck at a size that its gradient cannot leave"
TOO_SMALL = "support too small at the start"
BUDGET_PRESSURE = "budget pressure: the budget was spent on sizes that see too little"
SHRANK = "shrank below the answer without a budget"
NOT_SOLVED = "sees far enough, but stays below the oracle's accuracy"


def within_margin(curve: Mapping[int, float]) -> tuple[float, int]:
    """(best accuracy, smallest receptive field within `MARGIN` of it) of an oracle's curve {receptive field: %}."""
    best = max(curve.values())
    return best, min(size for size, accuracy in curve.items() if accuracy >= best - MARGIN)


def scores(
    case: Case,
    *,
    sizes: Sequence[int],
    effective_sizes: Sequence[int],
    accuracy: float | None,
    curve: Mapping[int, float],
    reachable: int,
    dead: bool,
    started: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The fields of a record from `oracle_accuracy` to `failure`.

    curve: the oracle's {receptive field: accuracy in %}. reachable: the largest receptive field that the sizes allow,
    and the budget if there is one. dead: whether a layer stands where its gradient vanishes. started: the first sizes,
    where they are not the case's start.
    """
    best, enough = within_margin(curve)
    needed = enough if case.minimal is None else case.minimal
    effective = receptive_field(effective_sizes)
    seen = max(effective, receptive_field(sizes))
    first = receptive_field([case.start] * case.layers if started is None else started)
    far = case.minimal is None or seen >= case.minimal
    reaches = accuracy is not None and accuracy >= best - MARGIN and far
    why = failure(case, accuracy, dead, first=first, seen=seen, needed=needed, reachable=reachable)
    priced = accuracy is not None and case.budget is not None and case.minimal is not None
    return {
        "oracle_accuracy": best,
        "oracle_size": enough,
        "minimal": case.minimal,
        "reaches": reaches,
        "excess": effective - (case.minimal or 0) if priced else None,
        "failure": "" if reaches else why,
    }


def failure(
    case: Case, accuracy: float | None, dead: bool, *, first: int, seen: int, needed: int, reachable: int
) -> str:
    """Why a case does not reach. first, seen, needed, reachable: receptive fields."""
    if accuracy is None:
        return DIVERGED
    if needed > reachable:
        return OUT_OF_REACH if case.budget is None else OUT_OF_BUDGET
    if seen >= needed:
        return NOT_SOLVED
    if dead:
        return DEAD
    if first < needed:
        return TOO_SMALL
    return SHRANK if case.budget is None else BUDGET_PRESSURE
