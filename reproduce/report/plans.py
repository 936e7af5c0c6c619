"""How far a plan has come by the records: which runs are missing, and which began before it was written.

The plans themselves, their files and their loader are in `reproduce.study_plans`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reproduce import experiments
from reproduce.errors import UserError
from reproduce.report import words
from reproduce.report.shelf import Shelf
from reproduce.size_records import SizeRecord, SizeStore
from reproduce.specs import PROTOCOL_VERSION, Protocol, RunSpec
from reproduce.store import Store
from reproduce.study_plans import Asked, PlannedRow, StudyPlan, plans, problems

__all__ = ["Recorded", "Standing", "plans", "problems", "spec_of", "standing", "standings"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a plan has come."""

    plan: StudyPlan
    missing: tuple[str, ...]  # "EffConv-20 0.66M, seed 4"
    early: tuple[str, ...]  # runs begun before the plan was written

    @property
    def complete(self) -> bool:
        """Whether its verdict may be taken."""
        return not self.missing and not self.early

    @property
    def text(self) -> str:
        """One line for people."""
        plan, total = self.plan, len(self.plan.rows) * self.plan.n
        head = f"plan {plan.name} of {plan.written[:10]}: n = {plan.n} of each row, {words.seed_list(plan.seeds)}"
        if self.early:
            return words.one_line(f"{head}; void, begun before it was written: {'; '.join(self.early)}")
        if self.missing:
            done = total - len(self.missing)
            return words.one_line(f"{head}; {done} of {total} runs have a record, no verdict before all have")
        return words.one_line(f"{head}; all {total} runs have a record")


class Recorded:
    """The runs and the size learning under one results folder, read once."""

    def __init__(self, results: Path) -> None:
        self.shelf = Shelf(Store(results).records(), lambda _: {})
        self.sizes = tuple(SizeStore(results).records())

    def begun(self, row: PlannedRow, asked: Asked) -> dict[int, str]:
        """When the run of each recorded seed of a row began, ISO 8601. A failed run is no record, a diverged one is."""
        spec = spec_of(row, asked)
        if asked.steps is not None:
            return {one.case.seed: one.clock.started for one in self.sizes if _is_sizes_of(one, spec, asked.steps)}
        return {
            one.seed: one.clock.started
            for one in self.shelf.answers(spec)
            if (one.spec.data.source, one.protocol_version) == (asked.source, PROTOCOL_VERSION)
            and one.outcome.status != "failed"
        }


def standing(plan: StudyPlan, recorded: Recorded) -> Standing:
    """How far this plan has come. Raises `UserError` for a plan of rows that this checkout does not have."""
    missing, early = [], []
    for row in plan.rows:
        found = recorded.begun(row, plan.asked)
        for seed in plan.seeds:
            name = f"{row.row}, seed {seed}"
            if seed not in found:
                missing.append(name)
            elif _when(found[seed]) < _when(plan.written):
                early.append(name)
    return Standing(plan=plan, missing=tuple(missing), early=tuple(early))


def standings(results: Path, claim: str | None = None) -> list[Standing]:
    """How far the plans of one claim, or all, have come; the oldest first."""
    found: Iterable[StudyPlan] = [plan for plan in plans(results) if claim in (None, plan.claim)]
    if not found:
        return []
    recorded = Recorded(results)
    return [standing(plan, recorded) for plan in found]


def spec_of(row: PlannedRow, asked: Asked) -> RunSpec:
    """Raises `UserError` for a row or protocol that this checkout does not have."""
    try:
        rows = experiments.rows(row.experiment, Protocol.parse(asked.protocol), source=asked.source)
        return next(one.spec for one in rows if one.name == row.row)
    except (KeyError, ValueError, StopIteration) as fault:
        raise UserError(f"no row {row.row!r} of {row.experiment!r} under {asked.protocol!r} here") from fault


def _is_sizes_of(record: SizeRecord, spec: RunSpec, steps: int) -> bool:
    """Whether this is stage 1 of that run alone, in so many steps, from true labels."""
    case, asked, found = record.case, spec.size_learning, record.case.spec
    if asked is None or record.outcome.status == "failed" or (case.arm, case.planted) != ("true", 0.0):
        return False
    # A record of size learning alone holds one epoch, of `steps` batches, and its arm says what the labels are.
    learning = found.size_learning.model_copy(update={"epochs": asked.epochs, "labels": asked.labels})
    same = (found.model, learning, found.data) == (spec.model, asked, spec.data)
    return same and found.steps == steps and record.protocol_version == PROTOCOL_VERSION


def _when(text: str) -> datetime:
    """What is no time is before all times."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
