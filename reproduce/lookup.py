"""What a user names: a record or a machine by its id, the beginning of it, or the path of its file. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce.errors import UsageError, UserError
from reproduce.known_answers import read_known
from reproduce.records import RunRecord, Signed
from reproduce.size_records import read_size_record
from reproduce.store import Store, Unreadable, read_record
from reproduce.timing_store import read_timing

# The folders of RESULTS that hold signed records, and what reads them.
FOLDERS: dict[str, Callable[[Path], Signed]] = {
    "runs": read_record,
    "timings": read_timing,
    "sizes": read_size_record,
    "known_answer": read_known,
}
MACHINES = "machines"
LEAST = 4  # letters of an id that follows a name, as in `flexnet-7-24-841fb9646b20c0b2`
SHOWN = 5  # of several that match


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that was named. `results` is the folder that it belongs to, for its machine and its neighbours."""

    path: Path
    results: Path
    content: dict[str, Any]  # as it stands in the file
    record: Signed | None  # None: a machine

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def run(self) -> RunRecord | None:
        """The record if it is of a training run."""
        return self.record if isinstance(self.record, RunRecord) else None

    @property
    def machine(self) -> dict[str, Any]:
        """The hardware and software that it ran on, or is; empty if that is not known."""
        if self.record is None:
            return self.content
        return Store(self.results).machine(str(self.content.get("machine", "")))


def find(text: str, results: Path) -> Found:
    """The one record or machine of this name. Raises `UserError` if there is none, or several, or it is unreadable."""
    path = Path(text)
    if path.suffix == ".json" or path.is_file():
        if not path.is_file():
            raise UserError(f"there is no file {text}; give a run id, the beginning of one, or a path")
        return _read(path, _home(path, results))
    paths = named(text, results)
    if not paths:
        raise UserError(
            f"no record or machine below {results} is named {text!r}; give an id, its first letters, or a path "
            "(`reproduce show EXPERIMENT ROW` lists the ids of a cell)"
        )
    if len(paths) > 1:
        some = ", ".join(one.stem for one in paths[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")
        raise UsageError(f"{text!r} names {len(paths)} records ({some}); give more letters")
    return _read(paths[0], results)


def named(text: str, results: Path) -> list[Path]:
    """All files whose name is `text` or begins with it; of names with an id at their end, that id may begin with it."""
    files = [path for folder in (*FOLDERS, MACHINES) for path in sorted((results / folder).rglob("*.json"))]
    whole = [path for path in files if path.stem == text]
    return whole or [path for path in files if text and _begins(path.stem, text)]


def _begins(stem: str, text: str) -> bool:
    return stem.startswith(text) or (len(text) >= LEAST and stem.rpartition("-")[2].startswith(text))


def _home(path: Path, results: Path) -> Path:
    """The results folder around a file: the one above `runs`, `timings`, ...; else the one that was given."""
    for folder in path.absolute().parents:
        if folder.name in (*FOLDERS, MACHINES):
            return folder.parent
    return results


def _read(path: Path, results: Path) -> Found:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} cannot be read as JSON; name a record, or restore it from git") from fault
    if not isinstance(content, dict):
        raise UserError(f"{path} is no record; give the path of a file below runs, timings, sizes or machines")
    if "digest" not in content:
        if "spec" in content or "kind" in content:
            raise UserError(f"{path} has no digest, so it is no record of ours; restore it from git")
        return Found(path=path, results=results, content=content, record=None)
    kinds = {"timing": "timings", "timing_pair": "timings", "size_learning": "sizes", "known_answer": "known_answer"}
    try:
        record = FOLDERS[kinds.get(str(content.get("kind")), "runs")](path)
    except Unreadable as fault:
        raise UserError(f"{path}: {fault}") from fault
    return Found(path=path, results=results, content=content, record=record)


def unreadable(results: Path) -> list[str]:
    """One line for each file among the records that cannot be read: its path, the fault, the mend."""
    lines = []
    for folder, read in FOLDERS.items():
        for path in sorted((results / folder).rglob("*.json")):
            try:
                read(path)
            except Unreadable as fault:
                lines.append(f"{path.relative_to(results).as_posix()}: {fault}")
    return lines
