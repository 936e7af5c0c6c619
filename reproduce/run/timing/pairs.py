"""How many times as long one thing takes as another: both in turn in one process, ratio by ratio, with an interval."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from reproduce.errors import Interrupted
from reproduce.naming import clock_time
from reproduce.run.timing.stopwatch import Clock

Step = Callable[[], object]

PAIRS, FEWEST = 9, 3
LONG_PAIR = 300.0  # seconds; a pair that takes longer is measured `FEWEST` times
SLOW_STEP = 5.0  # seconds; a first step that took longer is not tried again
SLOW_BLOCK = 1.0  # seconds; of a block of a that takes longer, the control has `FEWEST` pairs
WARM_UP = 2  # rounds; until then steps of large networks take up to 1.8 times as long, as memory is laid out for them
CONFIDENCE = 0.95
TELL = 120.0  # seconds; of what takes longer it is said how long


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`ratios`: seconds of a step of a over one of b, pair by pair; `control`: of a over a, measured likewise."""

    ratios: list[float]
    control: list[float]
    steps_in_block: tuple[int, int]  # of a and of b
    step_seconds: tuple[float, float]  # medians

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def control_ratio(self) -> float:
        return statistics.median(self.control)

    @property
    def interval(self) -> tuple[float, float]:
        return order_interval(self.ratios)


def measure_pair(
    a: Step,
    b: Step,
    *,
    pairs: int = PAIRS,
    block_seconds: float,
    clock: Clock = time.perf_counter,
    synchronize: Callable[[], object] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = lambda line: None,
) -> Measured:
    """Blocks of a and b in the order A B B A A B B A ..., so that a drift of the machine hits both alike.

    a, b: one step each. A block has as many steps as last `block_seconds`, at least one. Where that is one, two rounds
    before the first do not count. Long pairs have none of those and fewer that count, as has the control of slow steps.
    `synchronize` waits for the device. Raises `Interrupted` between blocks when `stop()` is true. `say` hears how long
    it will take, if that is long.
    """

    def block(step: Step, count: int) -> float:
        """Seconds a step."""
        if stop():
            raise Interrupted
        synchronize()
        began = clock()
        for _ in range(count):
            step()
        synchronize()
        return (clock() - began) / count

    def in_turn(second: Step, n_second: int, rounds: int) -> list[tuple[float, float]]:
        found = []
        for i in range(rounds):
            if i % 2 == 0:
                of_a = block(a, n_a)
                of_second = block(second, n_second)
            else:
                of_second = block(second, n_second)
                of_a = block(a, n_a)
            found.append((of_a, of_second))
        return found

    t_a, t_b = trial(block, a), trial(block, b)
    n_a, n_b = steps_in_block(t_a, block_seconds), steps_in_block(t_b, block_seconds)
    block_a, block_b = t_a * n_a, t_b * n_b
    is_long = block_a + block_b > LONG_PAIR
    rounds = min(pairs, FEWEST) if is_long else pairs
    before = WARM_UP if n_a == 1 and not is_long else 0
    of_control = min(rounds, FEWEST) if block_a > SLOW_BLOCK else rounds
    expected = (before + rounds) * (block_a + block_b) + 2 * of_control * block_a
    if expected > TELL:
        say(f"{rounds} pairs and {of_control} of the control, about {clock_time(expected)}")
    in_turn(b, n_b, before)
    found = in_turn(b, n_b, rounds)
    control = in_turn(a, n_a, of_control)
    return Measured(
        ratios=[one / other for one, other in found],
        control=[one / other for one, other in control],
        steps_in_block=(n_a, n_b),
        step_seconds=(statistics.median(one for one, _ in found), statistics.median(other for _, other in found)),
    )


def trial(block: Callable[[Step, int], float], step: Step) -> float:
    """Roughly the seconds of a step: of the first, or, if that was short, of a later one, as a first one is slow."""
    first = block(step, 1)
    return first if first > SLOW_STEP else min(first, block(step, 1))


def steps_in_block(step_seconds: float, block_seconds: float) -> int:
    """So many that a block lasts `block_seconds` at least."""
    return max(1, math.ceil(block_seconds / step_seconds)) if step_seconds > 0 else 1


def order_interval(values: list[float]) -> tuple[float, float]:
    """Of the median, from the order statistics: the 2nd to the 8th of 9 (96 %); least and greatest under 9."""
    n, ordered = len(values), sorted(values)
    k = order_rank(n) if n >= PAIRS else 1
    return ordered[k - 1], ordered[n - k]


def order_rank(n: int, confidence: float = CONFIDENCE) -> int:
    """The largest k for which the k-th smallest and k-th greatest of n enclose the median with this confidence."""
    k = 1
    while k + 1 <= (n + 1) // 2 and coverage(n, k + 1) >= confidence:
        k += 1
    return k


def coverage(n: int, k: int) -> float:
    """The chance that the true median lies between the k-th smallest and the k-th greatest of n values."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n
