"""What each run of the design in `factorial` is asked, and what it answers: cases of the known-answer benchmark.

Two layers under the benchmark's budget, both from size 4, with which the budget is met: so the first layer may grow
where the second shrinks, from sizes 1 and 5 to 5 and 1, and the receptive field may be 5 to 7, what lags 4 and 6 need.
Then on MNIST the effect that true labels have on the sizes, for the readings that made the largest difference here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reproduce.factorial import DEFAULT, FACTORS, Factor, Run, design, readings
from reproduce.known_answers import Case, KnownAnswer, case_id, receptive_field
from reproduce.known_cases import BUDGETS
from reproduce.label_test import Question
from reproduce.size_records import SizeSpec

METHOD, START, STEPS = "effconv", 4, 500
SCALES = (("texture", (1, 4)), ("lag", (4, 6)))  # the ends: for a slope, scales between them add little
SEEDS = range(4)
MNIST_SEEDS, MNIST_STEPS = range(4), 300
FRESH_FROM = 100  # seeds from here on are of MNIST runs that no preset is chosen by
FRESH_SEEDS = range(FRESH_FROM, FRESH_FROM + 5)


@dataclass(frozen=True)
class Response:
    """What is measured of one run at one seed. records: its answers to `run_cases`."""

    name: str
    title: str
    unit: str
    measure: Callable[[Sequence[KnownAnswer]], float]


def slope(records: Iterable[KnownAnswer], task: str, learned: Callable[[KnownAnswer], float]) -> float:
    """Least-squares slope of what was learned against the task's scale (of a lag: the smallest field less one)."""
    chosen = [record for record in records if record.case.task == task]
    return statistics.linear_regression([one.case.scale for one in chosen], list(map(learned, chosen))).slope


def soft(record: KnownAnswer) -> list[float]:
    """The soft sizes that were read out; where none are recorded, as after a divergence, the sizes."""
    return record.notes.get("v_read_out") or list(map(float, record.sizes))


RESPONSES = (
    Response(
        "texture",
        "First layer, soft, against texture scale",
        "size per pixel of scale",
        lambda records: slope(records, "texture", lambda one: soft(one)[0]),
    ),
    Response(
        "texture_whole",
        "First layer, as used, against texture scale",
        "size per pixel of scale",
        lambda records: slope(records, "texture", lambda one: one.sizes[0]),
    ),
    Response(
        "lag",
        "Receptive field, soft, against minimal",
        "pixel per pixel",
        lambda records: slope(records, "lag", lambda one: 1 + sum(size - 1 for size in soft(one))),
    ),
    Response(
        "lag_whole",
        "Receptive field, as used, against minimal",
        "pixel per pixel",
        lambda records: slope(records, "lag", lambda one: receptive_field(one.sizes)),
    ),
    Response(
        "reach",
        "Cases that reach, both tasks",
        "percentage points",
        lambda records: 100 * statistics.fmean(one.reaches for one in records),
    ),
)
CHOOSING = "texture"  # a preset is chosen by this response alone


def run_cases(run: Run, seed: int) -> list[Case]:
    """One run of the design at one seed: every scale of both tasks."""
    return [
        Case(
            task=task,  # type: ignore[arg-type]
            scale=scale,
            layers=2,
            budget=BUDGETS[2],
            start=START,
            method=METHOD,
            seed=seed,
            steps=STEPS,
            readings=readings(run),
        )
        for task, scales in SCALES
        for scale in scales
    ]


def cases(seeds: Iterable[int]) -> list[Case]:
    """The whole screen, seed by seed, so that an early end leaves whole seeds."""
    return [case for seed in seeds for run in design() for case in run_cases(run, seed)]


def responses(records: Iterable[KnownAnswer]) -> dict[str, dict[int, list[float]]]:
    """By response and seed: one value for each run of the design. Seeds of which a case is missing are left out."""
    known = {record.case_id: record for record in records if record.case.readings}
    found: dict[str, dict[int, list[float]]] = {one.name: {} for one in RESPONSES}
    for seed in sorted({record.case.seed for record in known.values()}):
        by_run = [[known.get(case_id(case)) for case in run_cases(run, seed)] for run in design()]
        answered = [[record for record in of_run if record is not None] for of_run in by_run]
        if answered == by_run:
            for one in RESPONSES:
                found[one.name][seed] = [one.measure(of_run) for of_run in answered]
    return found


def changed(*factors: Factor) -> Run:
    """Our readings, but for these factors, which stand at their other level."""
    letters = {factor.letter for factor in factors}
    return {letter: 1 if letter in letters else low for letter, low in DEFAULT.items()}


def under(spec: SizeSpec, run: Run) -> SizeSpec:
    """Size learning on images with the readings of a run."""
    return spec.model_copy(update={"size_learning": spec.size_learning.model_copy(update=readings(run))})


def run_of(spec: SizeSpec) -> Run | None:
    """The inverse; None for a spec with a level that no factor has."""
    levels = {factor.letter: getattr(spec.size_learning, factor.reading) for factor in FACTORS}
    signs = {f.letter: {f.low: -1, f.high: 1}.get(levels[f.letter], 0) for f in FACTORS}
    return None if 0 in signs.values() else signs


def alike_on_mnist(found: Iterable[Question]) -> list[Question]:
    """Those on MNIST, of the stages' length, that differ in the six readings alone; of several sets the largest."""
    sets: dict[tuple[str, int], list[Question]] = {}
    for one in found:
        if one.spec.data.name == "mnist" and one.spec.steps == MNIST_STEPS and run_of(one.spec) is not None:
            sets.setdefault((under(one.spec, DEFAULT).model_dump_json(), one.version), []).append(one)
    return max(sets.values(), key=lambda several: sum(len(one.records) for one in several), default=[])


def label_effects(alike: Iterable[Question], run: Run, *, fresh: bool) -> dict[int, float]:
    """x of the label test by seed: how much farther true labels take the sizes than another shuffle does.

    alike: of `alike_on_mnist`. fresh: of seeds from `FRESH_FROM` on, else of those below.
    """
    verdicts = [one.verdict() for one in alike if run_of(one.spec) == run]
    pairs = [pair for verdict in verdicts for pair in zip(verdict.seeds, verdict.x, strict=True)]
    return {seed: x for seed, x in pairs if (seed >= FRESH_FROM) == fresh}
