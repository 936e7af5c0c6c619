"""Records on disk: written once and atomically, validated on reading; a bad file costs one line, never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from reproduce.errors import UserError
from reproduce.naming import millions
from reproduce.records import RunRecord, Signed
from reproduce.specs import PROTOCOL_VERSION, RunSpec, sha256_of

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock, everything else works
    fcntl = None  # type: ignore[assignment]

SCHEMA_VERSION = 1  # the newest that this checkout can read
MEND = "delete it and run again, or restore it from git"
NEWER = "written by a newer version; update this checkout"
# What may differ between two runs of one spec and seed.
INCIDENTAL = frozenset({"clock", "machine", "code", "lineage", "digest"})

S = TypeVar("S", bound=Signed)
_Stamp = tuple[int, int]  # modification time in ns, size: when both stay, the file is not read again


class Unreadable(Exception):
    """A file under RESULTS/runs that is no record of ours; the message says what is wrong and the mend."""


class Store:
    """The records under one results folder. Reading never changes a file; nothing valid is ever overwritten."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._read: dict[Path, tuple[_Stamp, RunRecord | str]] = {}

    @property
    def runs(self) -> Path:
        return self.results / "runs"

    @property
    def problems(self) -> list[str]:
        """One line for each unreadable file met so far: its path below the results folder, the fault, the mend."""
        return [found for _, (_, found) in sorted(self._read.items()) if isinstance(found, str)]

    def path(self, spec: RunSpec, seed: int) -> Path:
        """Where the record of this spec and seed stands: a function of the two alone."""
        return self.runs / spec.data.name / slug(spec) / spec.protocol / f"{spec.run_id(seed)}.json"

    def weights_path(self, spec: RunSpec, seed: int) -> Path:
        """Where `--keep-weights` puts the state dict: beside the record."""
        return self.path(spec, seed).with_suffix(".pt")

    def resume_dir(self, spec: RunSpec, seed: int) -> Path:
        """Where an unfinished run keeps its state; it goes when the record is written."""
        return self.results / ".resume" / spec.run_id(seed)

    def records(self) -> list[RunRecord]:
        """All valid records, in order of their paths. The others add a line to `problems`."""
        paths = sorted(self.runs.rglob("*.json"))
        for gone in self._read.keys() - set(paths):
            del self._read[gone]
        found = [self._load(path) for path in paths]
        return [record for record in found if record is not None]

    def find(self, spec: RunSpec, seed: int) -> RunRecord | None:
        """The record of this spec and seed under today's protocol version, wherever it stands; None if there is none.

        The expected file comes first, then files of that name elsewhere, then all: a record from before a field was
        added to the spec has another id, but parses to the same spec.
        """
        name = self.path(spec, seed).name
        near = [self.path(spec, seed), *sorted(self.runs.rglob(name))]
        for record in (self._load(path) for path in near):
            if record is not None and _answers(record, spec, seed):
                return record
        return next((record for record in self.records() if _answers(record, spec, seed)), None)

    def blocked(self, spec: RunSpec, seed: int) -> str | None:
        """The line about an unreadable file that stands where this run's record would go, if there is one."""
        path = self.path(spec, seed)
        self._load(path)
        found = self._read.get(path)
        return found[1] if found is not None and isinstance(found[1], str) else None

    def write(self, record: RunRecord) -> Path:
        """Write a record once, atomically, with its digest, and return its path.

        The same result again changes nothing. A `failed` record gives way to a later attempt (it is no result).
        Raises `UserError` if an unreadable file or a different result stands there, `ValueError` for a record that
        could not be read back.
        """
        path = self.path(record.spec, record.seed)
        problem = self.blocked(record.spec, record.seed)
        if problem is not None:
            raise UserError(problem)
        old = self._load(path)
        if old is not None and old.outcome.status != "failed":
            if result_of(old) != result_of(record):
                raise UserError(f"{self._short(path)}: holds a different result of the same run; move it away first")
            return path
        document = record.signed().model_dump(mode="json")
        RunRecord.model_validate(document)  # what could not be read again is not written
        write_atomically(path, document)
        return path

    def write_machine(self, description: dict[str, Any]) -> str:
        """Store a description of hardware and software once; returns its id."""
        machine_id = sha256_of(description)[:12]
        path = self.results / "machines" / f"{machine_id}.json"
        if not path.exists():
            write_atomically(path, description)
        return machine_id

    def machine(self, machine_id: str) -> dict[str, Any]:
        """The description with this id; empty if it is missing or unreadable."""
        try:
            found = json.loads((self.results / "machines" / f"{machine_id}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _load(self, path: Path) -> RunRecord | None:
        """One record, or None after noting the problem. A file that has not changed is not read again."""
        try:
            status = path.stat()
        except OSError:
            self._read.pop(path, None)
            return None
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            try:
                self._read[path] = (stamp, read_record(path))
            except Unreadable as fault:
                self._read[path] = (stamp, f"{self._short(path)}: {fault}")
        found = self._read[path][1]
        return None if isinstance(found, str) else found

    def _short(self, path: Path) -> str:
        return path.relative_to(self.results).as_posix()


def slug(spec: RunSpec) -> str:
    """The folder of a network's runs: `effconv-20-0.66M`, `cifar_resnet-44`, `wide_effconv-28-1-0.66M`."""
    family = spec.model.family
    if spec.size_learning is not None:
        family = {"cifar_resnet": "effconv", "wide_resnet": "wide_effconv"}.get(family, f"effconv-{family}")
    values = [_word(value) for value in spec.model.args.values()]
    budget = [] if spec.size_learning is None else [millions(spec.size_learning.budget)]
    return "-".join([family, *values, *budget])


def _word(value: object) -> str:
    text = "x".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in text)


def _answers(record: RunRecord, spec: RunSpec, seed: int) -> bool:
    return record.seed == seed and record.protocol_version == PROTOCOL_VERSION and record.spec == spec


def result_of(record: Signed) -> dict[str, Any]:
    """What two runs of one spec and seed, or of one case, must share."""
    return record.model_dump(mode="json", exclude=set(INCIDENTAL))


def read_signed(
    path: Path, kind: Callable[[dict[str, Any]], type[S] | None], *, newest: int, what: str, valid: str
) -> tuple[dict[str, Any], S]:
    """The content of a record's file, and the record. Raises `Unreadable` with the fault and the mend.

    kind: the model of a content, None if it is none of ours. newest: the schema that this checkout can read. what,
    valid: how messages name a content of another kind, and one that does not fit the model.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise Unreadable(f"cannot be read as JSON; {MEND}") from fault
    model = kind(raw) if isinstance(raw, dict) else None
    if model is None:
        raise Unreadable(f"is no {what}; {MEND}")
    version = raw.get("schema_version")
    if isinstance(version, int) and version > newest:
        raise Unreadable(NEWER)
    try:
        if raw.get("digest") != sha256_of({key: value for key, value in raw.items() if key != "digest"}):
            raise Unreadable(f"its content does not match its digest; {MEND}")
        return raw, model.model_validate(raw)
    except ValidationError as fault:
        where = ".".join(str(part) for part in fault.errors()[0]["loc"])
        raise Unreadable(f"is no valid {valid} (at {where}); {MEND}") from fault
    except ValueError as fault:  # NaN, which no record holds
        raise Unreadable(f"holds a value that no record may hold; {MEND}") from fault


def read_record(path: Path) -> RunRecord:
    """Read and check one file. Raises `Unreadable` with the fault and the mend.

    The digest and the ids are computed from the file as it stands, so records of older schemas keep theirs.
    """
    def kind(raw: dict[str, Any]) -> type[RunRecord] | None:
        return RunRecord if {"spec", "metrics", "schema_version"} <= raw.keys() else None

    raw, record = read_signed(path, kind, newest=SCHEMA_VERSION, what="run record", valid="record")
    spec_id = sha256_of({"spec": raw["spec"], "protocol_version": record.protocol_version})
    if record.spec_id != spec_id or not record.run_id == path.stem == f"{spec_id[:16]}-s{record.seed}":
        raise Unreadable(f"its name or ids do not belong to its spec and seed; {MEND}")
    return record


def write_atomically(path: Path, document: dict[str, Any]) -> None:
    """Write JSON so that a reader sees all or nothing. May raise OSError."""
    place(path, (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode())


def place(path: Path, content: bytes) -> None:
    """Write so that a reader sees all or nothing: a file beside it, fsync, then rename. May raise OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Write and wait until it is on the disk. May raise OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder of an unfinished run and holds it for one process.

    Raises `UserError` if another process is at this run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as busy:
                raise UserError(f"run {folder.name} is under way in another process; wait for it or stop it") from busy
        yield
