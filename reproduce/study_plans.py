"""Plans: files that fix what a claim is judged by before its first run, RESULTS/plans/<name>.json. No torch.

A plan is written once and never changed. Its verdict is taken once, over exactly its seeds; more seeds need another
plan, and both are shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from reproduce.errors import UserError
from reproduce.records import Part, Signed
from reproduce.store import Unreadable, read_signed, write_atomically

SCHEMA_VERSION = 1  # the newest that this checkout can read


class Asked(Part):
    """How each seed of each row is run."""

    protocol: str
    source: str  # `DataSpec.source`
    steps: int | None = None  # size learning alone, of so many steps; None: whole runs


class PlannedRow(Part):
    """A row of a table or figure."""

    experiment: str
    row: str


class PlannedSpread(Part):
    """The spread that n rests on: measured over the runs named, or given by hand and then of no runs."""

    metric: str  # "top1", "top5"
    std: float | None  # pooled; None: given by hand
    upper: float  # its upper 80 % limit, or what was given
    degrees: int = 0
    cells: int = 0
    protocol: str = ""
    source: str = ""
    records: tuple[str, ...] = ()  # run ids


class PlannedComparison(Part):
    """a is to exceed b, or to be on par. Squared points: what images add to the variance (`power.Images`)."""

    a: PlannedRow
    b: PlannedRow
    metric: str
    smallest: float
    n: int  # that this comparison alone needs
    images_lasting: float = 0.0
    images_by_seed: float = 0.0


class PlannedShare(Part):
    """Of a structure: the share of seeds assumed to show it, and how many of n decide."""

    share: float
    k: int


class StudyPlan(Signed):
    """What is fixed before the first run."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["plan"] = "plan"
    name: str
    claim: str
    rule: str
    rows: tuple[PlannedRow, ...]
    n: int  # seeds of each row
    seeds: tuple[int, ...]
    dataset: str
    asked: Asked
    power: float
    comparisons: tuple[PlannedComparison, ...] = ()
    spreads: tuple[PlannedSpread, ...] = ()
    structure: PlannedShare | None = None
    written: str  # ISO 8601, UTC


def folder(results: Path) -> Path:
    return results / "plans"


def plans(results: Path) -> list[StudyPlan]:
    """All readable plans, the oldest first."""
    found = [one for one in _read(results) if isinstance(one, StudyPlan)]
    return sorted(found, key=lambda one: (one.written, one.name))


def problems(results: Path) -> list[str]:
    """One line for each plan that cannot be read or was changed after it was written."""
    return [one for one in _read(results) if isinstance(one, str)]


def read_plan(path: Path) -> StudyPlan:
    """Read and check one file. Raises `Unreadable` with the fault and the mend."""

    def kind(raw: dict[str, Any]) -> type[StudyPlan] | None:
        return StudyPlan if raw.get("kind") == "plan" else None

    _, plan = read_signed(path, kind, newest=SCHEMA_VERSION, what="plan", valid="plan")
    if plan.name != path.stem or plan.n != len(set(plan.seeds)) or plan.n != len(plan.seeds):
        raise Unreadable("its name or its seeds do not belong to its content; restore it from git")
    return plan


def write(results: Path, plan: StudyPlan) -> Path:
    """Write a plan once. Raises `UserError` if one of its name stands there."""
    path = folder(results) / f"{plan.name}.json"
    if path.exists():
        raise UserError(f"{path}: a plan is written once; give the new one another name")
    write_atomically(path, plan.signed().model_dump(mode="json"))
    return path


def _read(results: Path) -> list[StudyPlan | str]:
    found: list[StudyPlan | str] = []
    for path in sorted(folder(results).glob("*.json")):
        try:
            found.append(read_plan(path))
        except Unreadable as fault:
            found.append(f"{path.relative_to(results).as_posix()}: {fault}")
    return found
