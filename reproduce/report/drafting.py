"""What a claim's plan must fix: the spread between seeds from recorded runs, n for each row, and fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reproduce.claims import Claim, Comparison, Term
from reproduce.errors import UsageError, UserError
from reproduce.report.plans import Recorded, spec_of
from reproduce.report.power import MOST, POWER, Images, seeds_for, seeds_for_share
from reproduce.report.shelf import Shelf
from reproduce.report.spreads import images_between, pilots, spread_of
from reproduce.study_plans import Asked, PlannedComparison, PlannedRow, PlannedShare, PlannedSpread, StudyPlan

MEASURES = {"accuracy": "top1", "top5": "top5"}  # of `Evaluation`, by a term's metric
PLANNED = (("accuracy", "higher"), ("accuracy", "on_par"))  # kind and rule, beside all of structure


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the plan is to be of."""

    asked: Asked
    pilot: Asked  # the runs that the spread is taken from
    spread: float | None = None  # points, in place of the pilot's
    share: float = 0.9  # of seeds, that a structure is assumed to have
    first_seed: int | None = None  # None: the first after all recorded ones
    name: str = "-"
    written: str = ""


def draft(claim: Claim, wanted: Wanted, recorded: Recorded, *, before: Sequence[StudyPlan] = ()) -> StudyPlan:
    """The plan for one claim. Raises `UserError` where there is nothing to go by or no number of seeds is enough.

    before: the plans that the claim has already; their seeds are theirs.
    """
    check(claim, wanted)
    rows = tuple(dict.fromkeys(_row(term) for term in claim.every_term))
    structure: PlannedShare | None = None
    comparisons: tuple[PlannedComparison, ...] = ()
    spreads: tuple[PlannedSpread, ...] = ()
    if claim.kind == "structure":
        n, structure = _structure(wanted.share)
    else:
        metrics = dict.fromkeys(MEASURES[one.a.metric] for one in claim.compare)
        spreads = tuple(_spread(claim, metric, wanted, recorded.shelf) for metric in metrics)
        upper = {one.metric: one.upper for one in spreads}
        comparisons = tuple(_comparison(claim, one, upper, wanted, recorded.shelf) for one in claim.compare)
        n = max(one.n for one in comparisons)
    taken = _taken(rows, wanted.asked, recorded, before)
    first = _first_seed(taken, n, wanted.first_seed)
    return StudyPlan(
        name=wanted.name,
        claim=claim.id,
        rule=claim.rule,
        rows=rows,
        n=n,
        seeds=tuple(range(first, first + n)),
        dataset=claim.every_term[0].dataset,
        asked=wanted.asked,
        power=POWER,
        comparisons=comparisons,
        spreads=spreads,
        structure=structure,
        written=wanted.written,
    )


def check(claim: Claim, wanted: Wanted) -> None:
    """Raises `UsageError` for a claim that no number of seeds settles."""
    if claim.rule == "all_of":
        raise UsageError(f"{claim.id} sums up other claims; plan each of {', '.join(claim.of)}")
    if claim.kind != "structure" and (claim.kind, claim.rule) not in PLANNED:
        what = f"of kind {claim.kind} ({claim.rule})"
        raise UsageError(f"{claim.id} is {what}; plans are for differences of accuracy and for structure")
    if wanted.asked.steps is None:
        return
    if claim.kind != "structure":
        raise UsageError(f"--steps: size learning alone has no accuracy, and {claim.id} is about accuracy")
    for term in claim.terms:
        if spec_of(_row(term), wanted.asked).size_learning is None:
            raise UsageError(f"--steps: {term.row} learns its sizes while it is trained, not before; leave it out")


def _spread(claim: Claim, metric: str, wanted: Wanted, shelf: Shelf) -> PlannedSpread:
    if wanted.spread is not None:
        return PlannedSpread(metric=metric, std=None, upper=wanted.spread)
    dataset = claim.every_term[0].dataset
    found = spread_of(shelf, dataset, wanted.pilot, metric)
    if found is None:
        others = [f"{one.protocol}@{one.source}" for _, one in pilots(shelf, dataset) if spread_of(shelf, dataset, one)]
        mend = f"give --spread-from {' or '.join(others)}, or" if others else "run two seeds of a row, or give"
        raise UserError(
            f"no cell of {dataset} under {wanted.pilot.protocol} ({wanted.pilot.source}) has two seeds that differ; "
            f"{mend} --spread POINTS"
        )
    return found


def _comparison(
    claim: Claim, one: Comparison, upper: dict[str, float], wanted: Wanted, shelf: Shelf
) -> PlannedComparison:
    metric = MEASURES[one.a.metric]
    images = images_between(one, wanted.pilot, shelf) if metric == "top1" else Images()
    n = seeds_for(one.smallest, upper[metric], on_par=claim.rule == "on_par", images=images)
    if n is None:
        among = f", of which the images alone make {images.lasting**0.5:.2f}" if images.lasting else ""
        raise UserError(
            f"{claim.id}: {one.a.row} against {one.b.row}: {MOST} seeds an arm do not settle {one.smallest:g} points "
            f"at a spread of {upper[metric]:.2f}{among}; no plan was made"
        )
    return PlannedComparison(
        a=_row(one.a), b=_row(one.b), metric=metric, smallest=one.smallest, n=n,
        images_lasting=images.lasting, images_by_seed=images.by_seed,
    )  # fmt: skip


def _structure(share: float) -> tuple[int, PlannedShare]:
    found = seeds_for_share(share)
    if found is None:
        raise UserError(f"--share {share:g}: {MOST} seeds do not tell it from one half; give one further from it")
    return found[0], PlannedShare(share=share, k=found[1])


def _taken(rows: Sequence[PlannedRow], asked: Asked, recorded: Recorded, before: Sequence[StudyPlan]) -> dict[int, str]:
    """By what each seed is taken: a record, since a plan stands before its first run, or another plan of the claim."""
    taken = {seed: f"plan {plan.name}" for plan in before if plan.asked == asked for seed in plan.seeds}
    return taken | {seed: f"a record of {row.row}" for row in rows for seed in recorded.begun(row, asked)}


def _first_seed(taken: Mapping[int, str], n: int, wanted: int | None) -> int:
    """The first of n seeds in a row. Raises `UserError` if one of those wanted is taken."""
    if wanted is None:
        return 1 + max(taken, default=-1)
    clash = next((seed for seed in range(wanted, wanted + n) if seed in taken), None)
    if clash is not None:
        raise UserError(f"--first-seed {wanted}: seed {clash} is taken by {taken[clash]}; leave the option out")
    return wanted


def _row(term: Term) -> PlannedRow:
    return PlannedRow(experiment=term.experiment, row=term.row)
