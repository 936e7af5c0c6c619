"""Six readings of the paper at two levels each, in 16 runs: the design, its aliases, its effects. Plain arithmetic.

A 2^(6-2) fractional factorial of resolution IV (Box, Hunter and Hunter, Statistics for Experimenters, 1978, chapter
12): every main effect stands clear of all two-factor interactions, while these share their columns in groups. The
letters are dealt so that the interactions one would look for (budget value, lambda and read-out among each other, the
mask's centre with its denominator) share no column with one another.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Level = str | float  # an int is none, so that a value is written to JSON and read back as it was


@dataclass(frozen=True)
class Factor:
    """One reading and its two levels: low is ours, the default of `effconv`; high is the other one."""

    letter: str
    reading: str  # as `known_answers.Case.readings` and `effconv` call it
    title: str
    low: Level
    high: Level
    why: str  # this other level

    def level(self, sign: int) -> Level:
        return self.high if sign > 0 else self.low


FACTORS = (
    #
    Factor("A", "budget_value", "budget loss of soft sizes", "hard", "soft", "free of the kink that causes chatter"),
    #
    Factor("B", "mask_centre", "mask centre as printed", "pixel", "printed", "Eq. 6 to the letter"),
    #
    Factor("C", "kernel_predictor", "constant predictor input", "per_position", "const_z", "Eq. 5 to the letter"),
    Factor("D", "lam", "lambda 0.05", 2.0, 0.05, "the class loss has more to say"),
    #
    Factor("E", "mask_denominator", "narrow mask", "v2", "half_v2", "discourages large kernels, as the text says"),
    #
    Factor("F", "readout", "last sizes, not snapped", "snap_ema", "last", "Algorithm 1, line 9, to the letter"),
)
GENERATORS = {"E": "ABC", "F": "BCD"}  # each letter is the product of these
BASIC = "".join(factor.letter for factor in FACTORS if factor.letter not in GENERATORS)
RUNS = 2 ** len(BASIC)

Run = Mapping[str, int]  # letter -> -1 (low) or +1 (high)
DEFAULT: Run = {factor.letter: -1 for factor in FACTORS}  # ours everywhere, the first run


def design() -> list[Run]:
    """The 16 runs in Yates' order: A changes fastest, E and F follow the generators."""
    runs: list[Run] = []
    for signs in itertools.product((-1, 1), repeat=len(BASIC)):
        run = dict(zip(BASIC, reversed(signs), strict=True))
        runs.append(run | {letter: sign(word, run) for letter, word in GENERATORS.items()})
    return runs


def sign(word: str, run: Run) -> int:
    """-1 or +1: the column of a word such as `AB` at one run."""
    return math.prod(run[letter] for letter in word)


def readings(run: Run) -> dict[str, Level]:
    """What a run sets, by name: all six readings."""
    return {factor.reading: factor.level(run[factor.letter]) for factor in FACTORS}


def times(*words: str) -> str:
    """The product of words; a letter squared is one. `times("ABC", "BCD") == "AD"`; the identity is the empty word."""
    every = "".join(words)
    return "".join(sorted(letter for letter in set(every) if every.count(letter) % 2))


def defining_words() -> list[str]:
    """The words that are constant over the design (I = ABCE = BCDF = ADEF): its shortest has resolution letters."""
    own = [times(letter, word) for letter, word in GENERATORS.items()]
    return [times(*chosen) for count in range(1, len(own) + 1) for chosen in itertools.combinations(own, count)]


def aliases(word: str) -> list[str]:
    """All words that have the same column as this one, the shortest first."""
    return sorted((times(word, other) for other in defining_words()), key=lambda found: (len(found), found))


def interactions() -> list[tuple[str, ...]]:
    """The two-factor interactions, those of one column together: what is estimated is each group's sum."""
    pairs = ["".join(pair) for pair in itertools.combinations((factor.letter for factor in FACTORS), 2)]
    groups = {tuple(sorted({pair, *(found for found in aliases(pair) if len(found) == 2)})) for pair in pairs}
    return sorted(groups)


def columns() -> list[tuple[str, ...]]:
    """What the screen estimates: six main effects, then the groups of interactions, each by its words."""
    return [(factor.letter,) for factor in FACTORS] + interactions()


def effect(word: str, responses: Sequence[float]) -> float:
    """Mean response at the high level less that at the low one. responses: one for each run, in `design()`'s order."""
    total = math.fsum(sign(word, run) * value for run, value in zip(design(), responses, strict=True))
    return total / (RUNS / 2)


def effects(by_seed: Mapping[int, Sequence[float]]) -> dict[tuple[str, ...], list[float]]:
    """Each column's effect at each seed, in order of the seeds; a seed's 16 responses share their start."""
    return {words: [effect(words[0], by_seed[seed]) for seed in sorted(by_seed)] for words in columns()}


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of one effect over the seeds; None for a single one."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def largest(found: Mapping[tuple[str, ...], Sequence[float]], count: int = 3) -> list[Factor]:
    """The factors with the largest mean effects, whatever their sign, the largest first."""
    return sorted(FACTORS, key=lambda factor: -abs(statistics.fmean(found[factor.letter,])))[:count]

