"""A plan in lines of text: what it rests on, what it fixes, and the commands that run it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reproduce.claims import Claim
from reproduce.report import words
from reproduce.report.plans import Standing
from reproduce.report.power import MOST
from reproduce.specs import DATASETS, Protocol
from reproduce.study_plans import PlannedComparison, PlannedSpread, StudyPlan


def lines(claim: Claim, plan: StudyPlan, before: Iterable[Standing]) -> Iterator[str]:
    """A plan for people, and the plans of the same claim before it."""
    yield f"{claim.id}: {claim.sentence}"
    for spread in plan.spreads:
        yield f"{spread.metric}: {_spread(plan.dataset, spread)}"
    for one in plan.comparisons:
        yield _comparison(one, plan.rule)
    if plan.structure is not None:
        share, k = plan.structure.share, plan.structure.k
        yield f"if {share:.0%} of all seeds show it: {plan.n} seeds, of which at least {k} are to show it"
    runs = "runs" if plan.asked.steps is None else f"runs of size learning alone, {plan.asked.steps:,} steps"
    alone = " for each comparison alone" if len(plan.comparisons) > 1 else ""
    yield (
        f"n = {plan.n} of each of {len(plan.rows)} rows, {words.seed_list(plan.seeds)}: "
        f"{plan.n * len(plan.rows)} {runs}, {plan.asked.protocol}, {plan.asked.source}; power {plan.power:g}{alone}"
    )
    yield from commands(plan)
    for one_before in before:
        yield f"planned before: {one_before.text}"


def spread_line(dataset: str, spread: PlannedSpread, smallest: float, n: int | None) -> str:
    """What a spread asks for at a smallest effect."""
    needed = f"over {MOST}" if n is None else str(n)
    return (
        f"{_spread(dataset, spread)}; for a smallest effect of {smallest:g} points {needed} seeds an arm, "
        "images not counted"
    )


def commands(plan: StudyPlan) -> Iterator[str]:
    """One for each experiment of the plan; of size learning alone, one for each row."""
    parsed, seeds = Protocol.parse(plan.asked.protocol), f"--seeds {plan.seeds[0]}..{plan.seeds[-1]}"
    images = "" if parsed.train_images is None else f" --train-images {parsed.train_images}"
    if plan.asked.steps is not None:
        for row in dict.fromkeys(row.row for row in plan.rows):
            how = f"--labels true --steps {plan.asked.steps}{images} {seeds}"
            yield f"reproduce controls --dataset {plan.dataset} --row '{row}' {how}"
        return
    options = "" if parsed.epochs is None else f" --epochs {parsed.epochs}"
    options += "" if parsed.size_epochs is None else f" --size-epochs {parsed.size_epochs}"
    options += images + ("" if parsed.recipe == "flexconv" else f" --recipe {parsed.recipe}")
    for experiment in dict.fromkeys(row.experiment for row in plan.rows):
        rows = ",".join(row.row for row in plan.rows if row.experiment == experiment)
        yield f"reproduce {experiment} --rows '{rows}' {seeds} --protocol {parsed.base}{options}"


def _spread(dataset: str, spread: PlannedSpread) -> str:
    if spread.std is None:
        return f"a deviation of {spread.upper:.3f} points between seeds, given by hand"
    return (
        f"deviation between seeds {spread.std:.3f} points, upper 80 % limit {spread.upper:.3f} "
        f"({DATASETS[dataset].title}, {spread.protocol}, {spread.source}: {spread.cells} cells, "
        f"{spread.degrees} degrees of freedom)"
    )


def _comparison(one: PlannedComparison, rule: str) -> str:
    images = (one.images_lasting + one.images_by_seed / one.n) ** 0.5
    added = f"{images:.3f} points from the images" if images else "images not counted: no two runs of each kept bits"
    verb = "on par with" if rule == "on_par" else "above"
    return f"{one.a.row} {verb} {one.b.row}, smallest effect {one.smallest:g} points, {added}: {one.n} seeds an arm"
