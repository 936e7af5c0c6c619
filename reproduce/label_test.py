"""The label test: whether labels have a say in the sizes, from size learning alone.

At each seed sizes are learned three times from the same start and the same batches: with true labels (T), with shuffled
ones (S), and with another, independent shuffle (S'). With d the distance between two vectors of soft sizes,

    x_i = d(T_i, S_i) - d(S'_i, S_i).

Where labels have no say T_i and S'_i may be exchanged, so x_i is as likely -x_i, whatever the start does and however
chaotic the course: a one-sided sign-flip test of the mean of x is exact. That takes one kind of machine for all three:
another rounding alone moves sizes by as much as another shuffle may. Pure functions; no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproduce.size_records import Arm, SizeRecord, SizeSpec

ARMS: tuple[Arm, ...] = ("true", "shuffled", "reshuffled")
LEVEL = 0.05
FEWEST, MOST = 5, 20  # seeds: below, no p-value reaches the level; above, 2^n are too many


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Mean absolute difference by layer, in kernel sizes.

    The test takes it of the soft sizes that are read out (v*): rounding and snapping hide small moves and turn others
    into whole steps. Each layer counts alike, whatever its weights: the question is about sizes, not about parameters.
    """
    return math.fsum(abs(one - other) for one, other in zip(a, b, strict=True)) / len(a)


def sign_flip_p(x: Sequence[float]) -> float:
    """One-sided p: the share of the 2^n sign flips whose mean is at least that of x. Raises `ValueError` for n > 20.

    Flipping a subset lowers the sum by twice the subset's, so a flip is as large where its subset's sum is not above 0.
    A sum within rounding of 0 is a tie and counts.
    """
    tie = 1e-12 * max(map(abs, x))
    return sum(total <= tie for total, _ in _subsets(x)) / 2 ** len(x)


def detectable_shift(x: Sequence[float], level: float = LEVEL) -> float | None:
    """The shift of all x that the test would have seen with this scatter about the mean; None if n is too small.

    With e = x - mean(x) and a shift c a subset S counts against it where c <= -mean(e over S). The test allows for
    level 2^n - 1 such subsets besides the empty one, so c must exceed the next largest of these values.
    """
    allowed = math.floor(level * 2 ** len(x) + 1e-9) - 1
    if allowed < 0:
        return None
    centre = math.fsum(x) / len(x)
    needed = sorted((-total / n for total, n in _subsets([value - centre for value in x]) if n), reverse=True)
    return max(0.0, needed[allowed])


def _subsets(x: Sequence[float]) -> list[tuple[float, int]]:
    """Sum and number of the members of each of the 2^n subsets, the empty one first."""
    if len(x) > MOST:
        raise ValueError(f"{len(x)} values have too many sign flips; at most {MOST} are taken")
    found = [(0.0, 0)]
    for value in x:
        found += [(total + value, n + 1) for total, n in found]
    return found


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The test on one kind of sizes. By seed, in order: d(T, S), d(S', S) and x, their difference."""

    seeds: tuple[int, ...]
    to_true: tuple[float, ...]
    to_reshuffled: tuple[float, ...]

    @property
    def x(self) -> tuple[float, ...]:
        return tuple(a - b for a, b in zip(self.to_true, self.to_reshuffled, strict=True))

    @property
    def p(self) -> float | None:
        """None below `FEWEST` seeds."""
        return sign_flip_p(self.x) if len(self.seeds) >= FEWEST else None

    @property
    def detected(self) -> bool:
        return self.p is not None and self.p <= LEVEL


@dataclass(frozen=True, kw_only=True)
class Question:
    """All finished records that differ in seed, labels and planted gradient alone: never two specs or versions."""

    spec: SizeSpec
    version: int
    records: tuple[SizeRecord, ...]

    def runs(self, arm: Arm, planted: float = 0.0) -> dict[int, SizeRecord]:
        """By seed, in order."""
        chosen = [one for one in self.records if (one.case.arm, one.case.planted) == (arm, planted)]
        return {one.case.seed: one for one in sorted(chosen, key=lambda one: one.case.seed)}

    @property
    def planted(self) -> list[float]:
        return sorted({one.case.planted for one in self.records if one.case.arm == "planted"})

    def verdict(self, arm: Arm = "true", planted: float = 0.0, *, whole: bool = False) -> Verdict:
        """The test of an arm in the place of T, over the first `MOST` seeds that have all three, from one machine.

        whole: on the integer sizes instead of the soft ones.
        """
        here = {seed: runs for seed, runs in self.threes(arm, planted).items() if not differ(runs)}
        seeds = tuple(here)[:MOST]
        vectors = [[vector(run, whole) for run in here[seed]] for seed in seeds]
        return Verdict(
            seeds=seeds,
            to_true=tuple(distance(true, first) for true, first, _ in vectors),
            to_reshuffled=tuple(distance(second, first) for _, first, second in vectors),
        )

    def apart(self, arm: Arm = "true", planted: float = 0.0) -> list[int]:
        """Seeds whose three runs came from machines that may round differently (their ids differ): not comparable."""
        return [seed for seed, runs in self.threes(arm, planted).items() if differ(runs)]

    def threes(self, arm: Arm, planted: float) -> dict[int, tuple[SizeRecord, SizeRecord, SizeRecord]]:
        """By seed, in order, where all are there: the run of this arm (T), of a shuffle (S), and of the other (S')."""
        true, first, second = self.runs(arm, planted), self.runs("shuffled"), self.runs("reshuffled")
        seeds = [seed for seed in true if seed in first and seed in second]
        return {seed: (true[seed], first[seed], second[seed]) for seed in seeds}

    def seed_spread(self, *, whole: bool = False) -> float | None:
        """The mean distance between the sizes of two seeds, both with true labels; None below two seeds."""
        vectors = [vector(record, whole) for record in self.runs("true").values()]
        between = [distance(a, b) for a, b in itertools.combinations(vectors, 2)]
        return math.fsum(between) / len(between) if between else None

    def detectable_gradient(self) -> float | None:
        """The smallest planted gradient that the test has seen; None if it has seen none."""
        return next((size for size in self.planted if self.verdict("planted", size).detected), None)


def questions(records: Iterable[SizeRecord]) -> list[Question]:
    """Finished records by spec and protocol version, in order of their first record."""
    found: dict[tuple[str, int], list[SizeRecord]] = {}
    for record in records:
        if record.outcome.status == "finished":
            found.setdefault((record.case.spec.model_dump_json(), record.protocol_version), []).append(record)
    return [
        Question(spec=same[0].case.spec, version=version, records=tuple(same)) for (_, version), same in found.items()
    ]


def differ(runs: Iterable[SizeRecord]) -> bool:
    """Whether they came from several kinds of machine."""
    return len({run.machine for run in runs}) > 1


def vector(record: SizeRecord, whole: bool) -> list[float]:
    """(L,) what was read out: the sizes on budget, or the soft sizes that they come from."""
    assert record.sizes is not None and record.snapped is not None
    return list(map(float, record.sizes.values())) if whole else record.snapped.soft


@dataclass(frozen=True)
class GradientRatio:
    """The class gradient on v against that of the budget (lambda L_param), from a record's history.

    batch: rms over points and layers of the one over that of the other. lasting: what the class gradient has in common
    over the course, the mean over layers of |its mean over points|, over the budget gradient's mean size. Noise alone
    leaves about 0.8 / sqrt(points) of an rms in the numerator. class_rms: the first rms itself.
    """

    batch: float
    lasting: float
    class_rms: float


def gradient_ratio(history: Sequence[Mapping[str, Any]]) -> GradientRatio | None:
    """None where no gradient was recorded, or the budget has none."""
    points = [point for point in history if "class_grad" in point]
    says = [value for point in points for value in point["class_grad"]]
    budget = [value for point in points for value in point["budget_grad"]]
    if not any(budget):
        return None
    layers = list(zip(*(point["class_grad"] for point in points), strict=True))
    lasting = math.fsum(abs(math.fsum(layer)) for layer in layers) / len(says)
    size = math.fsum(map(abs, budget)) / len(budget)
    return GradientRatio(batch=rms(says) / rms(budget), lasting=lasting / size, class_rms=rms(says))


def rms(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))
