"""Which records may stand in one cell: one source, one protocol version, computed in one way, never mixed.

Timings stand on the same shelf, by the row that they are of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from reproduce import paper
from reproduce.records import RunRecord
from reproduce.specs import PROTOCOL_VERSION, RunSpec, sha256_of
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import PairTiming, RowTiming

DIGITS = "digits"
CANONICAL = "canonical"


@dataclass(frozen=True, order=True)
class Way:
    """How a run was computed, as far as it may bear on the result."""

    threads: int
    engine: str
    precision: str
    world_size: int = 1
    sync_bn: bool = False

    @classmethod
    def of(cls, spec: RunSpec) -> Self:
        return cls(spec.threads, spec.engine, spec.precision, spec.world_size, spec.sync_bn)

    @property
    def remarks(self) -> list[str]:
        """What a cell must say of it: whatever is not usual."""
        found = [] if self.threads == 1 else [f"{self.threads} threads"]
        found += [] if self.engine == "plain" else [f"{self.engine} engine"]
        found += [] if self.precision == "float32" else [self.precision]
        shared = "batch norm over all" if self.sync_bn else "batch norm in each"
        return found + ([] if self.world_size == 1 else [f"{self.world_size} processes, {shared}"])

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        """The higher, the more usual."""
        return self.world_size == 1, self.engine == "plain", self.precision == "float32", -self.threads


@dataclass(frozen=True, kw_only=True)
class Series:
    """Records that may stand in one cell together: one for each seed, in order of the seeds."""

    source: str
    version: int  # protocol version
    way: Way
    finished: tuple[RunRecord, ...]
    unfinished: tuple[RunRecord, ...]  # diverged or failed

    @property
    def seeds(self) -> list[int]:
        return [record.seed for record in self.finished]

    @property
    def answered(self) -> int:
        """Seeds that need no further run. A diverged run is an answer, a failed one is not."""
        return len(self.finished) + sum(record.outcome.status == "diverged" for record in self.unfinished)

    @property
    def newest(self) -> bool:
        return self.version == PROTOCOL_VERSION

    @property
    def sample(self) -> RunRecord:
        """Any of the records, for what they share: the spec and the origin of the data."""
        return (self.finished + self.unfinished)[0]


class Shelf:
    """Records and timings by the question that they answer, so that all tables together read the stores once."""

    def __init__(
        self,
        records: Iterable[RunRecord],
        machine: Callable[[str], Mapping[str, Any]],
        *,
        rows: Iterable[RowTiming] = (),
        pairs: Iterable[PairTiming] = (),
    ) -> None:
        self.records = tuple(records)
        self.machine = machine  # the description of hardware and software with this id
        self.pairs = tuple(pairs)
        self._by_question: dict[str, list[RunRecord]] = defaultdict(list)
        for record in self.records:
            self._by_question[question(record.spec)].append(record)
        self._by_pace: dict[str, list[RowTiming]] = defaultdict(list)
        for timing in rows:
            if timing.together == 1:  # shared time is no time of a row's own
                self._by_pace[pace(timing.spec)].append(timing)

    @classmethod
    def of(cls, store: Store) -> Self:
        timings = TimingStore(store.results)
        return cls(store.records(), store.machine, rows=timings.rows(), pairs=timings.pairs())

    @property
    def is_timed(self) -> bool:
        return bool(self.pairs or self._by_pace)

    def answers(self, spec: RunSpec) -> list[RunRecord]:
        """The records of one spec, whatever their source and version, and however they were computed."""
        return self._by_question.get(question(spec), [])

    def timings(self, spec: RunSpec) -> list[RowTiming]:
        """The timings of one spec, whatever the protocol, the machine, threads, engine and precision."""
        return self._by_pace.get(pace(spec), [])


def question(spec: RunSpec) -> str:
    """What a cell asks for: the spec, blind to where the images come from and to how it was computed."""
    usual = {"threads": 1, "engine": "plain", "precision": "float32", "processes": None}
    return spec.model_copy(update=usual).cell_id


def pace(spec: RunSpec) -> str:
    """What an epoch's seconds depend on: the spec without the images' origin and count, and without what a protocol
    shortens (`recipes.training`). So a timing under `paper` stands beside the results of every protocol of its recipe.
    """
    schedule = {"epochs", "warmup_epochs", "milestones", "gamma", "drop_last", "evaluate_every"}
    return sha256_of({
        "dataset": spec.data.name,
        "model": spec.model.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json", exclude=schedule),
        "size_learning": spec.size_learning and spec.size_learning.model_dump(mode="json", exclude={"epochs"}),
    })  # fmt: skip


def series_of(records: Iterable[RunRecord]) -> list[Series]:
    """Records of one question, apart by source, protocol version and way; in that order."""
    groups: dict[tuple[str, int, Way], dict[int, RunRecord]] = defaultdict(dict)
    for record in sorted(records, key=lambda one: (one.clock.finished, one.run_id)):
        seeds = groups[record.spec.data.source, record.protocol_version, Way.of(record.spec)]
        if record.seed not in seeds or not is_finished(seeds[record.seed]):
            seeds[record.seed] = record
    return [_series(*key, [seeds[seed] for seed in sorted(seeds)]) for key, seeds in sorted(groups.items())]


def choose(several: Iterable[Series]) -> Series | None:
    """The series that fills a cell, or None if there are none.

    Of each source (and way) its newest complete protocol version; then canonical files before others, then the most
    seeds. A version is complete with the paper's number of seeds, or with as many as any version has.
    """
    versions: dict[tuple[str, Way], list[Series]] = defaultdict(list)
    for one in several:
        versions[one.source, one.way].append(one)
    return max((_newest_complete(group) for group in versions.values()), key=_rank, default=None)


def common_source(several: Sequence[Series]) -> str:
    """The one source that all points of a figure keep to: canonical if it has any result, else that of most runs."""
    runs = {source: 0 for source in sorted({one.source for one in several})}
    for one in several:
        runs[one.source] += len(one.finished)
    return CANONICAL if runs.get(CANONICAL) else max(runs, key=lambda source: runs[source])


def is_finished(record: RunRecord) -> bool:
    return record.outcome.status == "finished" and record.metrics is not None


def _series(source: str, version: int, way: Way, records: Sequence[RunRecord]) -> Series:
    return Series(
        source=source,
        version=version,
        way=way,
        finished=tuple(record for record in records if is_finished(record)),
        unfinished=tuple(record for record in records if not is_finished(record)),
    )


def _newest_complete(versions: Sequence[Series]) -> Series:
    enough = min(int(paper.settings()["seeds"]), max(one.answered for one in versions))
    return max((one for one in versions if one.answered >= enough), key=lambda one: one.version)


def _rank(one: Series) -> tuple[bool, bool, int, tuple[bool, bool, bool, int]]:
    return one.answered > 0, one.source == CANONICAL, len(one.finished), one.way.rank
