"""Which cases the benchmark of known answers asks, which of the oracle's judge them, what they cost. No torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from itertools import product
from typing import Any, Literal

from reproduce.errors import UsageError
from reproduce.known_answers import MAX_SIZE, ORACLE, TASKS_VERSION, Case, KnownAnswer, case_id, receptive_field

STEPS = 250  # of size learning, and again of training
TAP = 64  # weights of one tap of a layer: 8 x 8 channels, in every layer
TOLERANCE = 0.2  # of the budget: how far learned sizes may miss it
FIXED_TOLERANCE = 0.1  # and the oracle's
WIDEST = 17  # a kernel as wide as this reaches from one border of a picture to the other

EFFCONV = ("effconv", "effconv: soft budget")
OF_BUDGETS = ("effconv: soft budget",)  # without a budget it is `effconv`
OWN_SIZES = ("flexconv", "njet")  # they know no budget
MORE_READINGS = ("effconv: fixed mask",)  # with --full
GROUPS = ("reproduce.size_learners", "reproduce.networks")  # entry points of further methods; the latter: no budget

Layers = Literal[1, 2]
TASKS = ("lag", "texture")
# A single layer of sizes up to 7 sees no lag of 7; nor do two that meet the budget.
SCALES: dict[tuple[str, int], tuple[int, ...]] = {
    ("lag", 1): (2, 3, 4, 7),
    ("lag", 2): (2, 4, 6, 7),
    ("texture", 1): (1, 2, 3, 4),
    ("texture", 2): (1, 2, 3, 4),
}
FULL_SCALES: dict[tuple[str, int], tuple[int, ...]] = {
    ("lag", 1): (2, 3, 4, 5, 7),
    ("lag", 2): (2, 3, 4, 6, 7),
    ("texture", 1): (1, 2, 3, 4, 5),
    ("texture", 2): (1, 2, 3, 4, 5),
}
TEXTURE_STARTS = (2, 4, 6)
# The same for all scales, so that it gives no answer away. Two layers that meet it see from 5 (sizes 1 and 5) to 7
# pixels (4 and 4).
BUDGETS: dict[int, int] = {1: TAP * 5**2, 2: TAP * 2 * 4**2}
ORACLE_SIZES = {1: 9, 2: 7}  # the largest fixed sizes without a budget

# Seconds of one case of one layer on one thread, measured on a 2-core machine and rounded up.
SECONDS = {"effconv": 4.4, "flexconv": 4.2, "njet": 2.5, ORACLE: 0.9}
OTHER_SECONDS = 4.4
SECOND_LAYER = 1.4  # times as long with two layers
LARGE = ("texture", 3, 2.0)  # of this task, from this scale on, the images are larger: so many times as long


def default_cases(seeds: Sequence[int]) -> list[Case]:
    """One layer without a budget, and two with one for the methods that know budgets; 4 scales, 3 starts."""
    settings: tuple[tuple[Layers, int | None], ...] = ((1, None), (2, BUDGETS[2]))
    return [
        case
        for method in (*EFFCONV, *OWN_SIZES, *plugged_in())
        for layers, budget in settings
        if is_asked(method, budget)
        for case in _cases(method, layers, budget, SCALES, seeds)
    ]


def full_cases(seeds: Sequence[int]) -> list[Case]:
    """Every combination of methods, layers and budgets, 5 scales, 3 starts."""
    settings: tuple[tuple[Layers, int | None], ...] = ((1, None), (1, BUDGETS[1]), (2, None), (2, BUDGETS[2]))
    return [
        case
        for method in (*EFFCONV, *MORE_READINGS, *OWN_SIZES, *plugged_in())
        for layers, budget in settings
        if is_asked(method, budget)
        for case in _cases(method, layers, budget, FULL_SCALES, seeds)
    ]


def _cases(
    method: str,
    layers: Layers,
    budget: int | None,
    scales: Mapping[tuple[str, int], Sequence[int]],
    seeds: Sequence[int],
) -> Iterator[Case]:
    for task in TASKS:
        for scale in scales[task, layers]:
            for start, seed in product(starts(task, layers, scale), seeds):
                yield Case(
                    task=task,  # type: ignore[arg-type]
                    scale=scale,
                    layers=layers,
                    budget=budget,
                    start=start,
                    method=method,
                    seed=seed,
                    steps=STEPS,
                )


def starts(task: str, layers: int, scale: int) -> list[int]:
    """Sizes to start from: below, at and above the answer, within 2 to 7."""
    if task == "texture":
        return list(TEXTURE_STARTS)
    answer = -(-(scale + layers) // layers)  # of each layer, when they are equal
    if layers == 2:
        first = max(2, answer - 1)
        return [first, first + 1, first + 2]
    if answer > MAX_SIZE:
        return [3, 5, 7]
    return sorted({max(2, answer - 2), answer, min(MAX_SIZE, answer + 2)})


def plugged_in() -> list[str]:
    """Names of the methods that other packages register."""
    return sorted(name for group in GROUPS for name in registered(group))


def is_asked(method: str, budget: int | None) -> bool:
    """Whether a method is put to cases with this budget, or without one."""
    return method not in OF_BUDGETS if budget is None else knows_budget(method)


def knows_budget(method: str) -> bool:
    return method not in OWN_SIZES and method not in registered(GROUPS[1])


@functools.cache
def registered(group: str) -> frozenset[str]:
    return frozenset(entry_points(group=group).names)


def reachable(case: Case) -> int:
    """The largest receptive field of the sizes that a method may take, within the budget if there is one."""
    if case.budget is None:
        return receptive_field([MAX_SIZE if knows_budget(case.method) else WIDEST] * case.layers)
    every = product(range(1, MAX_SIZE + 1), repeat=case.layers)
    return max(receptive_field(sizes) for sizes in every if weights(sizes) <= case.budget * (1 + TOLERANCE))


def weights(sizes: Iterable[int]) -> int:
    return TAP * sum(size * size for size in sizes)


def oracle_cases(case: Case) -> list[Case]:
    """The networks of fixed sizes whose curve this case is judged by: those that meet its budget, or all equal sizes.

    The same task and seed and as many steps; no budget in the case itself, so that budgets share them.
    """
    if case.budget is None:
        chosen = [(size,) * case.layers for size in range(1, ORACLE_SIZES[case.layers] + 1)]
    else:
        every = product(range(1, MAX_SIZE + 1), repeat=case.layers)
        chosen = [sizes for sizes in every if abs(weights(sizes) / case.budget - 1) <= FIXED_TOLERANCE]
    same: dict[str, Any] = {"method": ORACLE, "budget": None, "readings": {}}
    return [case.model_copy(update={**same, "start": sizes[0], "fixed": sizes}) for sizes in chosen]


def with_oracle(cases: Sequence[Case]) -> list[Case]:
    """These cases, each once, after the oracle's that they are judged by."""
    needed = [one for case in cases if case.method != ORACLE for one in oracle_cases(case)]
    return list({case_id(case): case for case in [*needed, *cases]}.values())


def curve(answers: Iterable[KnownAnswer]) -> dict[int, float]:
    """The oracle's {receptive field: accuracy in %}; of several networks of one receptive field the best."""
    found: dict[int, float] = {}
    for answer in answers:
        size, accuracy = receptive_field(answer.sizes), answer.test_accuracy or 0.0
        found[size] = max(accuracy, found.get(size, 0.0))
    return found


def in_benchmark(case: Case) -> bool:
    """Whether a recorded case belongs to the benchmark as it is today; `readings` records cases of its own."""
    return case.version == TASKS_VERSION and case.steps == STEPS and not case.readings


def select(cases: Sequence[Case], methods: str | None, tasks: str | None) -> list[Case]:
    """The cases whose method and task match comma-separated globs. Raises `UsageError` for one that matches nothing."""
    kept_methods = _matching(list(dict.fromkeys(case.method for case in cases)), methods, "--methods")
    kept_tasks = _matching(list(TASKS), tasks, "--tasks")
    return [case for case in cases if case.method in kept_methods and case.task in kept_tasks]


def _matching(names: Sequence[str], globs: str | None, option: str) -> set[str]:
    kept: set[str] = set()
    for glob in [part.strip() for part in ("*" if globs is None else globs).split(",")]:
        hits = [name for name in names if fnmatchcase(name, glob)]
        if not hits:
            raise UsageError(f"{option}: nothing matches {glob!r}; there are {', '.join(names)}")
        kept.update(hits)
    return kept


def seconds(case: Case) -> float:
    """A rough estimate of one case on one thread."""
    family = case.method.split(":")[0]
    task, scale, larger = LARGE
    times = (SECOND_LAYER if case.layers == 2 else 1.0) * (larger if case.task == task and case.scale >= scale else 1.0)
    return SECONDS.get(family, OTHER_SECONDS) * times * case.steps / STEPS


def describe(case: Case) -> str:
    """`effconv, lag d=4, 2 layers, budget 3,200, from 3, seed 0`."""
    budget = "" if case.budget is None else f", budget {case.budget:,}"
    sizes = f"sizes {' '.join(map(str, case.fixed))}" if case.fixed else f"from {case.start}"
    layers = f"{case.layers} layer{'s' if case.layers > 1 else ''}"
    return f"{case.method}, {case.task} d={case.scale}, {layers}{budget}, {sizes}, seed {case.seed}"
