"""What `reproduce doctor` finds among the records: files that cannot be read, stale renderings, unfinished runs."""

from __future__ import annotations

from pathlib import Path

from reproduce import traces, underway
from reproduce.findings import Finding
from reproduce.lookup import MACHINES, unreadable
from reproduce.report import rendered
from reproduce.store import Store

SHOWN = 5  # lines of one kind


def findings(results: Path) -> list[Finding]:
    """Of one results folder; a single note where there is none."""
    if not results.is_dir():
        text = f"there is no folder {results}"
        return [Finding(topic="records", state="note", text=text, mend="any command that runs something makes it")]
    store = Store(results)
    bad, stale = unreadable(results), rendered.stale(store, results / "rendered")
    lost = sorted({record.machine for record in store.records()} - {path.stem for path in _machines(results)})
    return [
        *_each("records", bad, f"all of {_count(results)} files can be read, each with the digest that it holds"),
        *_each("records", [f"machines/{one}.json is missing; restore it from git" for one in lost], ""),
        *_each("renderings", stale, "rendered/ says what the records say"),
        *_unfinished(results),
    ]


def _each(topic: str, lines: list[str], good: str) -> list[Finding]:
    """A broken finding for each line `fault; mend`, as the stores write them; else one that is well."""
    found = []
    for line in lines[:SHOWN]:
        text, _, mend = line.partition("; ")
        found.append(Finding(topic=topic, state="broken", text=text, mend=mend))
    if len(lines) > SHOWN:
        found.append(Finding(topic=topic, state="broken", text=f"and {len(lines) - SHOWN} more", mend="likewise"))
    return found if found or not good else [Finding(topic=topic, state="ok", text=good)]


def _count(results: Path) -> int:
    return sum(1 for folder in ("runs", "timings", "sizes", "known_answer") for _ in (results / folder).rglob("*.json"))


def _machines(results: Path) -> list[Path]:
    return list((results / MACHINES).glob("*.json"))


def _unfinished(results: Path) -> list[Finding]:
    names = [folder.name for folder in underway.folders(results) if not traces.is_over(folder)]
    if not names:
        return []
    some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    mend = "the command that began one goes on with it"
    return [Finding(topic="records", state="note", text=f"{len(names)} unfinished: {some}", mend=mend)]
