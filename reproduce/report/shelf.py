"""Which records may stand in one cell: one source, one protocol version, one number of threads, never mixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from reproduce import paper
from reproduce.records import RunRecord
from reproduce.specs import PROTOCOL_VERSION, RunSpec
from reproduce.store import Store

DIGITS = "digits"
CANONICAL = "canonical"


@dataclass(frozen=True, kw_only=True)
class Series:
    """Records that may stand in one cell together: one for each seed, in order of the seeds."""

    source: str
    version: int  # protocol version
    threads: int
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
    """Records by the question that they answer, so that all tables together read the store once."""

    def __init__(self, records: Iterable[RunRecord], machine: Callable[[str], Mapping[str, Any]]) -> None:
        self.records = tuple(records)
        self.machine = machine  # the description of hardware and software with this id
        self._by_question: dict[str, list[RunRecord]] = defaultdict(list)
        for record in self.records:
            self._by_question[question(record.spec)].append(record)

    @classmethod
    def of(cls, store: Store) -> Self:
        return cls(store.records(), store.machine)

    def answers(self, spec: RunSpec) -> list[RunRecord]:
        """The records of one spec, whatever their source, version and threads."""
        return self._by_question.get(question(spec), [])


def question(spec: RunSpec) -> str:
    """What a cell asks for: the spec, blind to where the images come from and to the number of threads."""
    return spec.model_copy(update={"threads": 1}).cell_id


def series_of(records: Iterable[RunRecord]) -> list[Series]:
    """Records of one question, apart by source, protocol version and threads; in that order."""
    groups: dict[tuple[str, int, int], dict[int, RunRecord]] = defaultdict(dict)
    for record in sorted(records, key=lambda one: (one.clock.finished, one.run_id)):
        seeds = groups[record.spec.data.source, record.protocol_version, record.spec.threads]
        if record.seed not in seeds or not is_finished(seeds[record.seed]):
            seeds[record.seed] = record
    return [_series(*key, [seeds[seed] for seed in sorted(seeds)]) for key, seeds in sorted(groups.items())]


def choose(several: Iterable[Series]) -> Series | None:
    """The series that fills a cell, or None if there are none.

    Of each source (and number of threads) its newest complete protocol version; then canonical files before others,
    then the most seeds. A version is complete with the paper's number of seeds, or with as many as any version has.
    """
    versions: dict[tuple[str, int], list[Series]] = defaultdict(list)
    for one in several:
        versions[one.source, one.threads].append(one)
    return max((_newest_complete(group) for group in versions.values()), key=_rank, default=None)


def common_source(several: Sequence[Series]) -> str:
    """The one source that all points of a figure keep to: canonical if it has any result, else that of most runs."""
    runs = {source: 0 for source in sorted({one.source for one in several})}
    for one in several:
        runs[one.source] += len(one.finished)
    return CANONICAL if runs.get(CANONICAL) else max(runs, key=lambda source: runs[source])


def is_finished(record: RunRecord) -> bool:
    return record.outcome.status == "finished" and record.metrics is not None


def _series(source: str, version: int, threads: int, records: Sequence[RunRecord]) -> Series:
    return Series(
        source=source,
        version=version,
        threads=threads,
        finished=tuple(record for record in records if is_finished(record)),
        unfinished=tuple(record for record in records if not is_finished(record)),
    )


def _newest_complete(versions: Sequence[Series]) -> Series:
    enough = min(int(paper.settings()["seeds"]), max(one.answered for one in versions))
    return max((one for one in versions if one.answered >= enough), key=lambda one: one.version)


def _rank(one: Series) -> tuple[bool, bool, int, int]:
    return one.answered > 0, one.source == CANONICAL, len(one.finished), -one.threads
