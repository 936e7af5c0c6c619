"""Which runs of a results folder are under way, waiting, failed, cancelled or unfinished, from its files. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reproduce import traces
from reproduce.errors import UsageError
from reproduce.naming import clock_time
from reproduce.records import RunRecord
from reproduce.store import RESUME, slug
from reproduce.traces import Whereabouts

LOG_LINES = 5
Entry = dict[str, Any]


def folders(results: Path) -> list[Path]:
    """Of the runs that left anything, in order of their ids."""
    place = results / RESUME
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def find(results: Path, run: str) -> Path:
    """The folder of a run id or of the beginning of one. Raises `UsageError` unless it is exactly one run's."""
    found = [folder for folder in folders(results) if folder.name.startswith(run)]
    if len(found) == 1 or (found and found[0].name == run):
        return found[0]
    if not found:
        raise UsageError(f"no unfinished or failed run's id begins with {run!r}; `reproduce status` lists them")
    raise UsageError(f"{len(found)} runs' ids begin with {run!r}; give more of it, for example {found[0].name}")


def runs(results: Path, records: Iterable[RunRecord]) -> dict[str, list[Entry]]:
    """By state: `running`, `waiting` (for a job of a queue to begin), `failed`, `cancelled`, `unfinished`.

    Whether a run is under way, its lock decides, whatever its files say.
    """
    failed = {record.run_id: record for record in records if record.outcome.status == "failed"}
    found: dict[str, list[Entry]] = {"running": [], "waiting": [], "failed": [], "cancelled": [], "unfinished": []}
    for folder in folders(results):
        state, entry = _state(folder, folder.name in failed)
        if state is not None:
            found[state].append(entry)
    busy = {entry["run_id"] for state in ("running", "waiting") for entry in found[state]}
    found["failed"] = [_failed(results, record) for run_id, record in sorted(failed.items()) if run_id not in busy]
    return found


def _state(folder: Path, failed: bool) -> tuple[str | None, Entry]:
    at, job, stop = traces.whereabouts(folder), traces.job(folder), traces.stopped(folder)
    entry: Entry = {"run_id": folder.name, "name": None if at is None else at.name}
    if traces.held(folder):
        return "running", entry | _progress(at)
    if stop is not None and stop.why == "cancelled":
        return "cancelled", entry
    if job is not None:
        return "waiting", entry | {"job": job.job}
    if failed or traces.is_over(folder):
        return None, entry
    return "unfinished", entry | {"why": None if stop is None else stop.line or stop.why}


def _progress(at: Whereabouts | None) -> Entry:
    if at is None:
        return {"where": None}
    names = ("where", "phase", "stage", "epoch", "epochs", "step", "steps", "seconds_left", "idle", "when")
    return {name: getattr(at, name) for name in names}


def _failed(results: Path, record: RunRecord) -> Entry:
    folder = results / RESUME / record.run_id
    at = traces.whereabouts(folder)
    return {
        "run_id": record.run_id,
        "name": f"{slug(record.spec)}, {record.spec.protocol}, seed {record.seed}" if at is None else at.name,
        "reason": record.outcome.reason,
        "log": traces.last_lines(folder, LOG_LINES),
    }


def lines(found: dict[str, list[Entry]]) -> list[str]:
    """The same for people."""
    text = [f"running: {_titled(entry)}: {_where(entry)}" for entry in found["running"]]
    text += [f"waiting: {_titled(entry)}: job {entry['job']} has not begun" for entry in found["waiting"]]
    for entry in found["failed"]:
        text.append(f"failed: {_titled(entry)}: {entry['reason']}")
        text += [f"    {line}" for line in entry["log"]]
    again = "the command that started it goes on from there"
    text += [f"cancelled: {_titled(entry)}; {again} when it is given again" for entry in found["cancelled"]]
    return text + [f"unfinished: {_titled(entry)}; {again}" for entry in found["unfinished"]]


def _titled(entry: Entry) -> str:
    return entry["run_id"] if entry["name"] is None else f"{entry['name']} ({entry['run_id']})"


def _where(entry: Entry) -> str:
    """`process 123, training epoch 3 of 350, step 17 of 98, 1:05:00 left`."""
    if entry["where"] is None:
        return "in a process that says no more"
    parts = [entry["where"]]
    if entry["stage"]:
        parts.append(f"{entry['stage']} epoch {entry['epoch']} of {entry['epochs']}")
        parts.append(f"step {entry['step']} of {entry['steps']}")
    elif entry["phase"]:
        parts.append(entry["phase"])
    if entry["seconds_left"] is not None:
        parts.append(f"{clock_time(entry['seconds_left'])} left")
    if entry["idle"] >= 60:
        parts.append(f"no step for {clock_time(entry['idle'])}")
    return ", ".join(parts)
