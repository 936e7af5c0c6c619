"""Timing of several ways to do the same thing, side by side in one run: A B B A, medians, and ratios by round."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tabulate import tabulate

Measure = Callable[[], float]  # does the work once and gives its seconds


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds of each contender by round; a round has two measurements of each, as far apart as the others allow."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, other: str) -> list[float]:
        """seconds of `name` over seconds of `other`, round by round."""
        return [a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True)]

    def ratio(self, name: str, other: str) -> float:
        return statistics.median(self.ratios(name, other))


def timed(work: Callable[[], object], *, repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> Measure:
    """A measure of `work`: seconds per call, over `repeats` calls in a row.

    With `clock=time.process_time`, for work of one thread, other programs on the machine disturb less.
    """

    def measure() -> float:
        started = clock()
        for _ in range(repeats):
            work()
        return (clock() - started) / repeats

    return measure


def side_by_side(measures: Mapping[str, Measure], *, rounds: int) -> Comparison:
    """Each round measures all in order and then in reverse, so that a drift of the machine hits all alike.

    One measurement of each before the first round is thrown away.
    """
    names = list(measures)
    for name in names:
        measures[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        found = [(name, measures[name]()) for name in [*names, *reversed(names)]]
        for name in names:
            seconds[name].append(statistics.mean(s for other, s in found if other == name))
    return Comparison(seconds=seconds)


def verdict(value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """`>= 6: yes`, for the last column of a table."""
    if at_least is not None:
        return f">= {at_least:g}: {'yes' if value >= at_least else 'NO'}"
    return f"<= {at_most:g}: {'yes' if at_most is not None and value <= at_most else 'NO'}"


def spread(values: list[float]) -> str:
    """The least and the greatest, for the column beside a median."""
    return f"{min(values):.2f}..{max(values):.2f}"


def warn_if_busy() -> None:
    """Wall time means little beside other work: two threads that wait for each other lose a factor of ten."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: the load average is {load:.1f}; for a ratio that means something, run on an idle machine\n")


def table(title: str, headers: list[str], rows: list[list[object]]) -> None:
    print(f"{title}\n")
    print(tabulate(rows, headers=headers, tablefmt="github", floatfmt=".2f"))
