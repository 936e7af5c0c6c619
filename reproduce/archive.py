"""Records, timings, machine files and resume state of a results folder as one archive, and such an archive merged in.

The archive is a zip file. Its first entry, `FORMAT`, holds the line `reproduce-archive 1`; all others are named as they
stand below the results folder, in order of their names. The entries of resume state carry the time (UTC) of their file;
the others a fixed one, so that equal records make equal archives.
"""

from __future__ import annotations

import calendar
import io
import os
import re
import shutil
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from reproduce import study_plans
from reproduce.errors import UserError
from reproduce.known_answers import KnownAnswer, KnownStore, read_known
from reproduce.records import RunRecord
from reproduce.size_records import SizeRecord, SizeStore, read_size_record
from reproduce.specs import sha256_of
from reproduce.store import MEND, RESUME, Store, Unreadable, parse_json, place, read_record, result_of, slug
from reproduce.study_plans import read_plan
from reproduce.timing_store import TimingStore, counts, read_timing
from reproduce.traces import TRACES, hold

FORMAT, HEAD, VERSION = "FORMAT", "reproduce-archive", 1
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file knows
# No part of a name is `..`.
TOPS = ("runs", "timings", "known_answer", "sizes", "plans", "machines", RESUME)
NAME = re.compile(rf"(?:{'|'.join(map(re.escape, TOPS))})(?:/[A-Za-z0-9][\w.+-]*)+", re.ASCII)
# Folders of unfinished runs, timings and size learning.
STATE = re.compile(r"[0-9a-f]{16}-s\d+|timing-[0-9a-f]+-[0-9a-f]{16}|sizes-[0-9a-f]{16}-s\d+")
LONGEST = 200  # letters of one part of a name
DEFLATED = 100  # times smaller than it was, and more, no archive of records gets, but for a small one
SMALL = 64 << 20  # bytes
DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, TypeError, ValueError, ArithmeticError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
KINDS = {
    "runs": "record",
    "timings": "timing record",
    "known_answer": "known answer",
    "sizes": "size record",
    "plans": "plan",
    "machines": "machine file",
    RESUME: "unfinished run",
}

Say = Callable[[str], None]


@dataclass
class Tally:
    """What became of the entries of an archive; the files of one unfinished run count as one."""

    added: int = 0
    same: int = 0
    refused: list[str] = field(default_factory=list)  # a line each

    def __str__(self) -> str:
        return f"{self.added} added, {self.same} same, {len(self.refused)} refused"


def export(file: Path, results: Path, *, err: Say) -> str:
    """Pack what stands in `results` and return a line about it. Unreadable records stay out, with a line to `err`.

    Raises `UserError` if there is nothing to pack, or if `file` is there and is something else.
    """
    if file.exists() and not zipfile.is_zipfile(file):
        raise UserError(f"{file} is there and is no archive; choose another name")
    names = sorted([*_records(results, err), *_resume_files(results)])
    if not names:
        raise UserError(f"nothing to export: no record and no unfinished run in {results}")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(FORMAT, EPOCH), f"{HEAD} {VERSION}\n")
        for name in names:
            _pack(archive, name, results / name)
    place(file, packed.getvalue())
    # An unfinished run is a folder of files.
    found = Counter(name.split("/")[0] for name in {_item(name) for name in names})
    parts = [f"{found[top]} {kind}{'' if found[top] == 1 else 's'}" for top, kind in KINDS.items() if found[top]]
    return f"{file}: {', '.join(parts)}; {len(packed.getvalue()) / 1e6:.1f} MB"


def merge(file: Path, results: Path, *, err: Say) -> Tally:
    """Add to `results` what an archive holds and what is not there yet; each file appears whole or not at all.

    Of a run that is recorded here with another result, the archive's record is refused; so is whatever is damaged.
    Resume state is taken if there is none here for that run, or if the archive's was saved later (to two seconds, by
    the clocks of the machines that saved it); never where a run is recorded or under way here. Raises `UserError`,
    with nothing changed, for a file that is no archive, is damaged, of a newer version, or reaches out of `results`.
    """
    with _unpacked(file) as folder:
        merging = _Merge(folder, results, err)
        for top, take in merging.takers.items():
            for path in sorted((folder / top).rglob("*.json")):
                try:
                    take(path)
                except Unreadable as fault:
                    merging.refuse(path, str(fault))
                except (ValueError, ArithmeticError):  # such as a budget that is no finite number
                    merging.refuse(path, f"holds a value that no record may hold; {MEND}")
        for state in sorted((folder / RESUME).glob("*")):
            merging.resume(state)
        return merging.tally


class _Merge:
    """One archive, unpacked into `folder`, on its way into `results`."""

    def __init__(self, folder: Path, results: Path, err: Say) -> None:
        self.folder, self.results, self.err, self.tally = folder, results, err, Tally()
        self.timings = TimingStore(results)
        self.takers: dict[str, Callable[[Path], None]] = {
            "machines": self.machine,
            "runs": self.run,
            "timings": self.timing,
            "known_answer": self.known_answer,
            "sizes": self.sizes,
            "plans": self.plan,
        }
        self.records = {_key(record): record for record in Store(results).records()}

    def finished(self) -> set[str]:
        """Names that the state of what is recorded here would have."""
        runs = {record.run_id for record in self.records.values() if record.outcome.status != "failed"}
        sizes = {f"sizes-{record.case.case_id}" for record in SizeStore(self.results).records()}
        timings = {f"timing-{row.machine}-{row.timing_id}" for row in self.timings.rows() if counts(row)}
        return runs | sizes | timings

    def machine(self, path: Path) -> None:
        read_machine(path)
        target = self.place("machines", path.name)
        if not target.exists():
            self.add(path, target)
        elif _json(target) == _json(path):
            self.tally.same += 1
        else:
            raise Unreadable("another description stands there under this id; move it away first")

    def run(self, path: Path) -> None:
        record = read_record(path)
        folders = (record.spec.data.name, slug(record.spec), record.spec.protocol)
        target = self.place("runs", *folders, f"{record.run_id}.json")
        old = self.records.get(_key(record))
        if old is None and target.exists():
            read_record(target)  # unreadable: says so
            raise Unreadable("another record stands in its place; move it away first")
        if old is None or (old.outcome.status == "failed" and record.outcome.status != "failed"):
            self.add(path, target)
            self.records[_key(record)] = record
        elif record.outcome.status == "failed" or result_of(old) == result_of(record):
            self.tally.same += 1
        else:
            raise Unreadable("conflicts with the record here, which holds a different result of the same run")

    def timing(self, path: Path) -> None:
        """A measurement that is none (failed, or disturbed) gives way to one, as in `TimingStore.write`."""
        record = read_timing(path)
        target = self.checked(self.timings.path(record))
        old = read_timing(target) if target.exists() else None
        if old is None or (counts(record) and not counts(old)):
            self.add(path, target)
        elif old.digest == record.digest or not counts(record):
            self.tally.same += 1
        else:
            raise Unreadable("conflicts with the record here, another measurement of the same on that machine")

    def known_answer(self, path: Path) -> None:
        record = read_known(path)
        self.case(path, record, self.checked(KnownStore(self.results).path(record.case)), read_known)

    def sizes(self, path: Path) -> None:
        record = read_size_record(path)
        self.case(path, record, self.checked(SizeStore(self.results).path(record.case)), read_size_record)

    def plan(self, path: Path) -> None:
        plan = read_plan(path)
        target = self.checked(study_plans.folder(self.results) / path.name)
        if not target.exists():
            self.add(path, target)
        elif read_plan(target).digest == plan.digest:
            self.tally.same += 1
        else:
            raise Unreadable("another plan of this name stands here, and a plan is never changed")

    def case(
        self,
        path: Path,
        record: KnownAnswer | SizeRecord,
        target: Path,
        read: Callable[[Path], KnownAnswer | SizeRecord],
    ) -> None:
        """A record whose place follows from its case alone."""
        if not target.exists():
            self.add(path, target)
        elif result_of(read(target)) == result_of(record):
            self.tally.same += 1
        else:
            raise Unreadable("conflicts with the record here, which holds a different result of the same case")

    def resume(self, state: Path) -> None:
        target, here = self.results / RESUME / state.name, Path(RESUME, state.name).as_posix()
        if not (STATE.fullmatch(state.name) and state.is_dir() and all(path.is_file() for path in state.iterdir())):
            self.tally.refused.append(f"{here}: is no state of a run")
        elif state.name in self.finished() or _contents(target) == _contents(state):
            self.tally.same += 1
        elif _saved_at(target) >= _saved_at(state):
            self.tally.same += 1
            self.err(f"kept: {here}: the state here was saved later")
        else:
            self.replace_state(state, target)

    def replace_state(self, state: Path, target: Path) -> None:
        """The old files go first, so that no mixture is ever there; the newest comes last, so that it can be redone."""
        try:
            with hold(target):
                for path in _state_files(target):
                    path.unlink()
                for path in sorted(_state_files(state), key=lambda one: one.stat().st_mtime):
                    self.copy(path, target / path.name)
        except UserError as busy:
            self.tally.refused.append(str(busy))
        else:
            self.tally.added += 1

    def place(self, *parts: str) -> Path:
        return self.checked(self.results.joinpath(*parts))

    def checked(self, target: Path) -> Path:
        """Where a record belongs follows from its content, which may hold anything."""
        if not target.is_relative_to(self.results) or not placed(target.relative_to(self.results).as_posix()):
            raise Unreadable("has no place below a results folder")
        return target

    def add(self, path: Path, target: Path) -> None:
        self.copy(path, target)
        self.tally.added += 1

    def copy(self, path: Path, target: Path) -> None:
        place(target, path.read_bytes())
        os.utime(target, (path.stat().st_atime, path.stat().st_mtime))

    def refuse(self, path: Path, why: str) -> None:
        self.tally.refused.append(f"{path.relative_to(self.folder).as_posix()}: {why}")


def placed(name: str) -> bool:
    """Whether a name may stand below a results folder."""
    return bool(NAME.fullmatch(name)) and all(len(part) <= LONGEST for part in name.split("/")) and len(name) <= 1000


def read_machine(path: Path) -> dict[str, Any]:
    """A description of hardware and software. Raises `Unreadable` if its name is not its content's."""
    found = _json(path)
    try:
        whole = isinstance(found, dict) and sha256_of(found)[:12] == path.stem
    except ValueError:  # NaN
        whole = False
    if not whole:
        raise Unreadable(f"is no machine file, or was altered; {MEND}")
    described: dict[str, Any] = found
    return described


READERS: dict[str, Callable[[Path], object]] = {
    "runs": read_record,
    "timings": read_timing,
    "known_answer": read_known,
    "sizes": read_size_record,
    "plans": read_plan,
    "machines": read_machine,
}


def _records(results: Path, err: Say) -> Iterator[str]:
    """Names below `results` of all files that can be read."""
    for top, read in READERS.items():
        for path in sorted((results / top).rglob("*.json")):
            name = path.relative_to(results).as_posix()
            try:
                read(path)
            except Unreadable as fault:
                err(f"left out: {name}: {fault}")
            else:
                yield name


def _resume_files(results: Path) -> Iterator[str]:
    for folder in sorted((results / RESUME).glob("*")):
        if STATE.fullmatch(folder.name):
            yield from (path.relative_to(results).as_posix() for path in _state_files(folder))


def _state_files(folder: Path) -> list[Path]:
    """What a run goes on from: neither its lock and log nor half-written or damaged files, nor the version before of
    one that is there.
    """
    spare = re.compile(r".*\.(?:tmp|partial|damaged\d*)")
    found = [path for path in sorted(folder.glob("*")) if path.name not in TRACES and not spare.fullmatch(path.name)]
    return [path for path in found if path.suffix != ".previous" or path.with_suffix("") not in found]


def _pack(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    try:
        content, saved = path.read_bytes(), path.stat().st_mtime
    except FileNotFoundError:  # of a run that ends just now
        return
    when = max(EPOCH, time.gmtime(saved)[:6]) if name.startswith(RESUME) else EPOCH
    entry = zipfile.ZipInfo(name, when)
    entry.external_attr = 0o644 << 16
    weights = zipfile.ZIP_STORED  # do not get smaller
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else weights
    archive.writestr(entry, content)


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """The entries of an archive in a temporary folder, all checksums verified."""
    with TemporaryDirectory() as folder:
        try:
            content = file.read_bytes()
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                _check_sizes(archive.infolist(), len(content))
                for entry in _entries(archive, file):
                    path = Path(folder, entry.filename)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as source, path.open("wb") as unpacked:
                        shutil.copyfileobj(source, unpacked)
                    saved = calendar.timegm(entry.date_time)
                    os.utime(path, (saved, saved))
        except DAMAGED as fault:
            raise UserError(f"{file}: is damaged or no archive of `reproduce export`; export it again") from fault
        yield Path(folder)


def _check_sizes(entries: list[zipfile.ZipInfo], present: int) -> None:
    """Raises `ValueError` unless what the entries declare can come from the bytes present."""
    if sum(entry.compress_size for entry in entries) > present:
        raise ValueError("more bytes than are there")
    if sum(entry.file_size for entry in entries) > SMALL + DEFLATED * present:
        raise ValueError("entries that unpack to more than any records")
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED
        if not stored and entry.compress_type != zipfile.ZIP_DEFLATED:  # others may ask for any amount of memory
            raise ValueError("an entry that `reproduce export` does not write")
        if entry.file_size > (entry.compress_size if stored else SMALL + DEFLATED * entry.compress_size):
            raise ValueError("an entry of more bytes than are there")
        if entry.filename == FORMAT and entry.file_size > 100:
            raise ValueError("no such archive")


def _entries(archive: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive but for `FORMAT`. Raises `UserError`, or an error of `DAMAGED`."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    names = [entry.filename for entry in entries]
    known = set(names)
    if len(known) != len(names) or FORMAT not in known:
        raise ValueError("no such archive")
    head, version = archive.read(FORMAT).decode().split()
    if head != HEAD or int(version) < 1:
        raise ValueError("no such archive")
    if int(version) > VERSION:
        raise UserError(f"{file}: written by a newer version; update this checkout")
    for name in names:
        inside = any(parent.as_posix() in known for parent in PurePosixPath(name).parents)  # of another file
        if name != FORMAT and (inside or not placed(name)):
            raise UserError(f"{file}: holds {name!r}, which has no place below a results folder; nothing was taken")
    return [entry for entry in entries if entry.filename != FORMAT]


def _key(record: RunRecord) -> tuple[str, int, int]:
    """Which run a record is of, wherever it stands and whatever its schema."""
    return sha256_of(record.spec.model_dump(mode="json")), record.seed, record.protocol_version


def _item(name: str) -> str:
    return name.rsplit("/", 1)[0] if name.startswith(RESUME) else name


def _json(path: Path) -> Any:
    try:
        return parse_json(path)
    except (OSError, ValueError):
        return None


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _state_files(folder)}


def _saved_at(folder: Path) -> int:
    """When the newest file was written, to the two seconds of a zip file; 0 if there is none."""
    return max((int(path.stat().st_mtime) // 2 for path in _state_files(folder)), default=0)
