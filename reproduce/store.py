"""Records on disk: written once and atomically, validated on reading; a bad file costs one line, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from reproduce import phases
from reproduce.errors import UserError
from reproduce.naming import millions
from reproduce.records import RunRecord, Signed
from reproduce.specs import PROTOCOL_VERSION, RunSpec, sha256_of

log = logging.getLogger(__name__)
SCHEMA_VERSION = 1  # the newest that this checkout can read
RESUME = ".resume"  # the folder, below the results, of what is unfinished
MEND = "delete it and run again, or restore it from git"
NEWER = "written by a newer version; update this checkout"
# What may differ between two runs of one spec and seed.
INCIDENTAL = frozenset({"clock", "machine", "code", "lineage", "digest"})

MOST_JSON = 64 << 20  # bytes; a record has less than one million
DEEPEST = 100  # lists and objects within each other; a record has less than ten

LIST = re.compile(r"\[\n +([^\[\]{}]*?)\n *\]")  # without a list or object in it; no JSON string holds a line break

S = TypeVar("S", bound=Signed)
_Stamp = tuple[int, int]  # modification time in ns, size: when both stay, the file is not read again


class Unreadable(Exception):
    """A file under RESULTS/runs that is no record of ours; the message says what is wrong and the mend."""


class CutShort(Unreadable):
    """The first part of a record of ours: what a loss of power leaves."""


class Store:
    """The records under one results folder. Reading never changes a file; nothing valid is ever overwritten."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._read: dict[Path, tuple[_Stamp, RunRecord | Unreadable]] = {}

    @property
    def runs(self) -> Path:
        return self.results / "runs"

    @property
    def problems(self) -> list[str]:
        """One line for each unreadable file met so far: its path below the results folder, the fault, the mend."""
        return [str(self._read[path][1]) for path in sorted(self._read) if self._fault(path) is not None]

    def path(self, spec: RunSpec, seed: int) -> Path:
        """Where the record of this spec and seed stands: a function of the two alone."""
        return self.runs / spec.data.name / slug(spec) / spec.protocol / f"{spec.run_id(seed)}.json"

    def weights_path(self, spec: RunSpec, seed: int) -> Path:
        """Where `--keep-weights` puts the state dict: beside the record."""
        return self.path(spec, seed).with_suffix(".pt")

    def resume_dir(self, spec: RunSpec, seed: int) -> Path:
        """Where an unfinished run keeps its state; it goes when the record is written."""
        return self.results / RESUME / spec.run_id(seed)

    def records(self) -> list[RunRecord]:
        """All valid records, in order of their paths. The others add a line to `problems`."""
        paths = sorted(self.runs.rglob("*.json"))
        for gone in self._read.keys() - set(paths):
            del self._read[gone]
        found = [self._load(path) for path in paths]
        return [record for record in found if record is not None]

    def find(self, spec: RunSpec, seed: int) -> RunRecord | None:
        """The record of this spec and seed under today's protocol version, wherever it stands; None if there is none.

        The expected file comes first, then files of that name elsewhere, then all of that seed: a record from before a
        field was added to the spec has another id, but parses to the same spec.
        """
        expected = self.path(spec, seed)
        record = self._load(expected)
        if record is not None and _answers(record, spec, seed):
            return record
        others = sorted(self.runs.rglob(f"*-s{seed}.json"), key=lambda path: (path.name != expected.name, path))
        found = (self._load(path) for path in others)
        return next((record for record in found if record is not None and _answers(record, spec, seed)), None)

    def blocked(self, spec: RunSpec, seed: int) -> str | None:
        """The line about an unreadable file that stands where this run's record would go, if there is one.

        One that was cut short is not in the way: the run is done again, and `write` puts the file aside.
        """
        path = self.path(spec, seed)
        self._load(path)
        fault = self._fault(path)
        return None if fault is None or isinstance(fault, CutShort) else str(fault)

    def write(self, record: RunRecord) -> Path:
        """Write a record once, atomically, with its digest, and return its path.

        The same result again changes nothing. A `failed` record gives way to a later attempt (it is no result), a file
        that was cut short is put aside.
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
        if isinstance(self._fault(path), CutShort):
            log.warning("%s was cut short; it is put aside as %s", self._short(path), put_aside(path).name)
        write_atomically(path, document, phase="rename")
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed writer; who writes holds the run
            left.unlink(missing_ok=True)
        return path

    def write_machine(self, description: dict[str, Any]) -> str:
        """Store a description of hardware and software once; returns its id."""
        own = machine_id(description)
        path = self.results / "machines" / f"{own}.json"
        if not self.machine(own):  # missing, or damaged
            write_atomically(path, description)
        return own

    def machine(self, machine_id: str) -> dict[str, Any]:
        """The description with this id; empty if it is missing or unreadable."""
        try:
            found = parse_json(self.results / "machines" / f"{machine_id}.json")
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
                self._read[path] = (stamp, type(fault)(f"{self._short(path)}: {fault}"))
        found = self._read[path][1]
        return found if isinstance(found, RunRecord) else None

    def _fault(self, path: Path) -> Unreadable | None:
        """What was wrong with a file that was read."""
        found = self._read[path][1] if path in self._read else None
        return found if isinstance(found, Unreadable) else None

    def _short(self, path: Path) -> str:
        return path.relative_to(self.results).as_posix()


def machine_id(description: dict[str, Any]) -> str:
    """12 hex digits: runs of one spec and seed from machines of one id are the same to the bit."""
    return sha256_of(description)[:12]


def slug(spec: RunSpec) -> str:
    """The folder of a network's runs: `effconv-20-0.66M`, `cifar_resnet-44`, `wide_effconv-28-1-0.66M`."""
    family = spec.model.family
    if spec.size_learning is not None:
        family = {"cifar_resnet": "effconv", "wide_resnet": "wide_effconv"}.get(family, f"effconv-{family}")
    values = [_word(value) for _, value in sorted(spec.model.args.items())]  # the order of a record that was read
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


def parse_json(path: Path) -> Any:
    """The content of a JSON file of moderate size and depth: Python's reader stops at neither in a defined way.

    Raises `ValueError` for any other content, and `OSError`.
    """
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"more than {MOST_JSON:,} bytes")
    text = path.read_text(encoding="utf-8")
    brackets = re.findall(r"[][{}]", text)  # those in strings too: none that we write comes near
    if max(accumulate(1 if one in "[{" else -1 for one in brackets), default=0) > DEEPEST:
        raise ValueError(f"lists within lists, more than {DEEPEST} deep")
    return json.loads(text)


def read_signed(
    path: Path, kind: Callable[[dict[str, Any]], type[S] | None], *, newest: int, what: str, valid: str
) -> tuple[dict[str, Any], S]:
    """The content of a record's file, and the record. Raises `Unreadable` with the fault and the mend.

    kind: the model of a content, None if it is none of ours. newest: the schema that this checkout can read. what,
    valid: how messages name a content of another kind, and one that does not fit the model.
    """
    try:
        raw = parse_json(path)
    except (OSError, ValueError) as fault:
        kind_of_fault = CutShort if is_cut(path) else Unreadable
        raise kind_of_fault(f"cannot be read as JSON; {MEND}") from fault
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


def is_cut(path: Path) -> bool:
    """Whether a file that is no JSON begins as a record of ours does, or holds nothing but zeros, or nothing."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content[:3] in (b"{\n ", b"{\n", b"{") or not content.strip(b"\0")


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


def write_atomically(path: Path, document: dict[str, Any], *, phase: str | None = None) -> None:
    """Write JSON so that a reader sees all or nothing. May raise OSError. phase: told before the rename."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    place(path, (LIST.sub(_on_one_line, text) + "\n").encode(), phase=phase)


def _on_one_line(found: re.Match[str]) -> str:
    """A list of numbers or words, such as a point's sizes by layer: a third shorter, and easier to read."""
    return "[" + re.sub(r",\n +", ", ", found[1]) + "]"


def place(path: Path, content: bytes, *, phase: str | None = None) -> None:
    """Write so that a reader sees all or nothing: a file beside it, fsync, then rename. May raise OSError.

    phase: told to those who listen when the file beside it is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of two nodes that share the folder may have the same number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        write_synced(temporary, content)
        if phase is not None:
            phases.phase(phase)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Write and wait until it is on the disk. May raise OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can: a new name may be lost with the power."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def put_aside(path: Path) -> Path:
    """Rename a damaged file: nothing takes it for what it was, and a person may look at it. May raise `OSError`."""
    names = (path.with_name(f"{path.name}.damaged{number}") for number in ("", *range(2, 1000)))
    free = next((name for name in names if not name.exists()), path.with_name(path.name + ".damaged"))
    return path.replace(free)
