"""Timing records on disk: RESULTS/timings/<machine>/..., beside the runs and never among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from reproduce.errors import UserError
from reproduce.specs import RunSpec
from reproduce.store import MEND, Unreadable, read_signed, slug, write_atomically
from reproduce.timings import PairTiming, RowTiming, Timing, row_timing_id

SCHEMA_VERSION = 1  # the newest that this checkout can read
KINDS: dict[str, type[RowTiming] | type[PairTiming]] = {"timing": RowTiming, "timing_pair": PairTiming}

T = TypeVar("T", RowTiming, PairTiming)


class TimingStore:
    """The timings under one results folder. A file that cannot be read costs a line in `problems`."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.problems: list[str] = []

    @property
    def folder(self) -> Path:
        return self.results / "timings"

    def rows(self) -> list[RowTiming]:
        """All readable timings of rows, in order of their paths."""
        return self._all(RowTiming)

    def pairs(self) -> list[PairTiming]:
        """All readable timings of pairs, in order of their paths."""
        return self._all(PairTiming)

    def find_row(self, spec: RunSpec, device: str, machine: str, together: int = 1) -> RowTiming | None:
        """The timing of this spec on this machine."""
        return self._load(self.row_path(spec, device, machine, together), RowTiming)

    def find_pair(self, timing_id: str, machine: str) -> PairTiming | None:
        paths = sorted((self.folder / machine).glob(f"*/*-{timing_id}.json"))
        found = (self._load(path, PairTiming) for path in paths)
        return next((pair for pair in found if pair is not None), None)

    def row_path(self, spec: RunSpec, device: str, machine: str, together: int = 1) -> Path:
        """Rows lie by data set, as one spec may be in several experiments."""
        name = slug(spec) + ("" if together == 1 else f"-{together}-together")
        return self.folder / machine / spec.data.name / f"{name}-{row_timing_id(spec, device, together)}.json"

    def pair_path(self, claim: str, level: str, timing_id: str, machine: str) -> Path:
        """Pairs lie by the experiment whose claim they bear on."""
        return self.folder / machine / claim / f"pair-{level}-{timing_id}.json"

    def path(self, record: Timing) -> Path:
        """Where a record stands."""
        if isinstance(record, RowTiming):
            return self.row_path(record.spec, record.device, record.machine, record.together)
        return self.pair_path(record.claim, record.level, record.timing_id, record.machine)

    def blocked(self, path: Path) -> str | None:
        """The line about an unreadable file that stands where a record would go, if there is one."""
        try:
            if path.exists():
                read_timing(path)
        except Unreadable as fault:
            return f"{self._short(path)}: {fault}"
        return None

    def write(self, record: Timing, *, again: bool = False) -> Path:
        """Write a record atomically, with its digest.

        One that stands there gives way if it is no good (`counts`), or to a good one if `again` says so; else it stays.
        Raises `UserError` if a file that cannot be read stands in the way, unless `again`.
        """
        path = self.path(record)
        problem = self.blocked(path)
        if problem is not None and not again:
            raise UserError(problem)
        if path.exists() and problem is None and not (again and counts(record)) and counts(read_timing(path)):
            return path
        write_atomically(path, record.signed().model_dump(mode="json"))
        return path

    def _all(self, kind: type[T]) -> list[T]:
        found = (self._load(path, kind) for path in sorted(self.folder.rglob("*.json")))
        return [record for record in found if record is not None]

    def _load(self, path: Path, kind: type[T]) -> T | None:
        """One record; None where there is none, or one of the other kind, or one that cannot be read (noted)."""
        if not path.is_file():
            return None
        try:
            found = read_timing(path)
        except Unreadable as fault:
            line = f"{self._short(path)}: {fault}"
            if line not in self.problems:
                self.problems.append(line)
            return None
        return found if isinstance(found, kind) else None

    def _short(self, path: Path) -> str:
        return path.relative_to(self.results).as_posix()


def counts(record: Timing) -> bool:
    """Whether these seconds are a timing, so that nothing need be measured again."""
    failed = isinstance(record, RowTiming) and record.outcome == "failed"
    return not failed and not record.certificate.invalid


def read_timing(path: Path) -> Timing:
    """Read and check one file. Raises `Unreadable` with the fault and the mend."""
    def kind(raw: dict[str, Any]) -> type[RowTiming] | type[PairTiming] | None:
        return KINDS.get(str(raw.get("kind")))

    record: Timing
    _, record = read_signed(path, kind, newest=SCHEMA_VERSION, what="timing", valid="timing")
    if not path.stem.endswith(f"-{record.timing_id}"):
        raise Unreadable(f"its name does not belong to its content; {MEND}")
    return record
