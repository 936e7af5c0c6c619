"""From records to a claim's terms: which runs may be compared with each other, and what they got right."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from reproduce import experiments, study_plans
from reproduce.claims import Term
from reproduce.errors import UserError
from reproduce.records import RunRecord
from reproduce.report import words
from reproduce.report.inference import distinct
from reproduce.report.plans import Recorded, Standing, standing
from reproduce.report.scopes import Scope
from reproduce.report.shelf import CANONICAL, DIGITS, Shelf, Way, is_finished
from reproduce.size_records import SizeRecord, SizeStore
from reproduce.specs import DATASETS, Protocol, RunSpec
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import Timing

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURES = {"accuracy": "top1", "top5": "top5"}  # of `Evaluation`


@dataclass(frozen=True, order=True)
class Setting:
    """What runs must share to be compared."""

    protocol: str
    source: str
    version: int
    way: Way


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one term under one setting, in order of their seeds."""

    finished: tuple[RunRecord, ...]
    diverged: tuple[int, ...]  # their seeds

    @property
    def seeds(self) -> list[int]:
        return [record.seed for record in self.finished]

    def values(self, metric: str) -> list[float]:
        """In percent."""
        return [float(getattr(one.metrics.last, MEASURES[metric])) for one in self.finished if one.metrics is not None]


class Evidence:
    """All readable records of one results folder, by what they bear on."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.store = Store(results)
        self.shelf = Shelf.of(self.store)
        self._arms: dict[Term, dict[Setting, Arm]] = {}
        self._bits: dict[str, NDArray[Any] | None] = {}
        self._seeds: frozenset[int] | None = None  # None: all
        self._bad_plans: list[str] = []

    def limited(self, seeds: Iterable[int]) -> Self:
        """The same records, but runs of these seeds alone: what a plan is judged by."""
        view = copy(self)
        view._arms, view._seeds = {}, frozenset(seeds)
        return view

    @cached_property
    def _size_records(self) -> list[SizeRecord]:
        return SizeStore(self.results).records()

    @property
    def size_records(self) -> list[SizeRecord]:
        return [one for one in self._size_records if self._counts(one.case.seed)]

    @cached_property
    def plans(self) -> list[Standing]:
        """How far each plan has come, the oldest first; those of rows that are not here are among the `problems`."""
        found, written = [], study_plans.plans(self.results)
        recorded = Recorded(self.results) if written else None
        for plan in written:
            try:
                found.append(standing(plan, recorded))  # type: ignore[arg-type]
            except UserError as fault:
                self._bad_plans.append(f"plans/{plan.name}.json: {fault}")
        return found

    def _counts(self, seed: int) -> bool:
        return self._seeds is None or seed in self._seeds

    @cached_property
    def problems(self) -> list[str]:
        """One line for each file that cannot be read, or whose digest fails; none of them is used."""
        timings, sizes = TimingStore(self.results), SizeStore(self.results)
        timings.rows()
        sizes.records()
        _ = self.plans
        plans = [*study_plans.problems(self.results), *self._bad_plans]
        return [*self.store.problems, *timings.problems, *sizes.problems, *plans]

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Where each run stands, by its id: a record of an older schema stands elsewhere than a new one would."""
        found = sorted(self.store.runs.rglob("*.json"))
        return {path.stem: path.relative_to(self.results).as_posix() for path in found}

    @cached_property
    def protocols(self) -> list[Protocol]:
        """Those of the records, without smoke tests."""
        found = []
        for name in sorted({record.spec.protocol for record in self.shelf.records}):
            try:
                found.append(Protocol.parse(name))
            except ValueError:  # of a newer version
                continue
        return [one for one in found if one.base != "tiny"]

    def arms(self, term: Term) -> dict[Setting, Arm]:
        """The runs of a term by setting. Raises `ValueError` for a seed that is there twice."""
        if term not in self._arms:
            self._arms[term] = self._gather(term)
        return self._arms[term]

    def _gather(self, term: Term) -> dict[Setting, Arm]:
        groups: dict[Setting, list[RunRecord]] = defaultdict(list)
        for protocol in self.protocols:
            spec = specs_of(term.experiment, protocol)[term.row]
            for record in self.shelf.answers(spec):
                real = record.spec.data.source != DIGITS and record.outcome.status != "failed"
                if real and self._counts(record.seed):
                    groups[setting_of(record)].append(record)
        return {setting: arm_of(records, term.row) for setting, records in groups.items()}

    def shared(self, terms: Iterable[Term], *, every: bool = True) -> list[Setting]:
        """The settings of all terms (or of any), the newest protocol version first."""
        settings = [set(self.arms(term)) for term in terms]
        found = (set.intersection if every else set.union)(*settings) if settings else set()
        return sorted(found, key=lambda one: (-one.version, one.way.rank, one))

    def scope(self, setting: Setting, arms: Iterable[Arm], dataset: str) -> Scope:
        """The scope of runs that share a setting."""
        records = [record for arm in arms for record in arm.finished]
        canonical = all(record.data.canonical for record in records) and setting.source == CANONICAL
        titles = sorted({record.data.title for record in records}) or [DATASETS[dataset].title]
        images = sorted({record.data.train_images for record in records})
        remarks = [*setting.way.remarks, *([] if setting.version == 1 else [f"protocol v{setting.version}"])]
        schedule = words.schedule(dataset, Protocol.parse(setting.protocol))
        name = ", ".join([f"{setting.protocol} ({schedule})", *remarks])
        return Scope(
            decisive=canonical and setting.protocol == "paper",
            data=f"{'; '.join(titles)}, {' or '.join(f'{one:,}' for one in images)} training images",
            protocol=name,
            source=setting.source,
            asked=setting.protocol,
        )

    def paths(self, arms: Iterable[Arm]) -> tuple[str, ...]:
        stems = [record.run_id for arm in arms for record in arm.finished]
        return tuple(dict.fromkeys(self._paths[stem] for stem in stems))

    def timing_path(self, record: Timing) -> str:
        return TimingStore(self.results).path(record).relative_to(self.results).as_posix()

    def size_path(self, record: SizeRecord) -> str:
        return SizeStore(self.results).path(record.case).relative_to(self.results).as_posix()

    @property
    def effconv_runs(self) -> list[RunRecord]:
        """Finished runs with sizes learned from data, whatever the row; no smoke tests, no controls."""
        names = {protocol.name for protocol in self.protocols}
        return [
            record
            for record in self.shelf.records
            if is_finished(record) and record.snapped is not None and record.spec.protocol in names
            if self._counts(record.seed)
            if record.spec.data.source != DIGITS and record.spec.size_learning is not None
            if record.spec.size_learning.source == "data" and record.spec.size_learning.labels == "true"
        ]

    def bits(self, arm: Arm) -> NDArray[Any] | None:
        """(seeds, images) booleans: which test images each run got right; None where any run lacks them."""
        import numpy as np

        rows = []
        for record in arm.finished:
            if record.run_id not in self._bits:
                self._bits[record.run_id] = decoded(record)
            rows.append(self._bits[record.run_id])
        known = [row for row in rows if row is not None]
        whole = len(known) == len(rows) and len({row.size for row in known}) == 1
        return np.stack(known) if whole else None


@cache
def specs_of(experiment: str, protocol: Protocol) -> dict[str, RunSpec]:
    """The specs of all rows of an experiment, by name."""
    return {row.name: row.spec for row in experiments.rows(experiment, protocol)}


def setting_of(record: RunRecord) -> Setting:
    return Setting(record.spec.protocol, record.spec.data.source, record.protocol_version, Way.of(record.spec))


def arm_of(records: Sequence[RunRecord], name: str) -> Arm:
    """Raises `ValueError` for a seed that is there twice."""
    ordered = sorted(records, key=lambda one: one.seed)
    try:
        distinct(record.seed for record in ordered)
    except ValueError as fault:
        raise ValueError(f"refused: {name}: {fault}; move one of these records away") from None
    return Arm(
        finished=tuple(one for one in ordered if is_finished(one)),
        diverged=tuple(one.seed for one in ordered if one.outcome.status == "diverged"),
    )


def decoded(record: RunRecord) -> NDArray[Any] | None:
    """(images,) booleans of a record's `correct_bits`; None where it has none, or too few for its test images."""
    import numpy as np

    try:
        packed = np.frombuffer(base64.b64decode(record.correct_bits or "", validate=True), dtype=np.uint8)
    except ValueError:
        return None
    images = record.data.test_images
    return np.unpackbits(packed)[:images].astype(bool) if 0 < images <= 8 * packed.size else None


def seeds_of(arms: Iterable[Arm]) -> str:
    """`seeds 0..2`; apart where they differ."""
    found = list(dict.fromkeys(words.seed_list(arm.seeds) for arm in arms if arm.seeds))
    lost = sorted({seed for arm in arms for seed in arm.diverged})
    return " / ".join(found) + (f"; diverged: {words.seed_list(lost)}" if lost else "")
