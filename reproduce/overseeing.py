"""What `status --watch`, `cancel`, `logs` and `clean` do with runs that others carry out: all through their files."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from reproduce import traces, underway
from reproduce.errors import UserError
from reproduce.store import Store
from reproduce.traces import Stopped

Say = Callable[[str], None]
REFRESH = 2.0  # seconds
FOLLOW = 0.5
CACHED = ("decoded", "checksums")  # what the suite keeps in a folder of decoded images
SLURM = ".slurm"  # scripts and words of jobs


def views(results: Path) -> Iterator[str]:
    """What stands now, again and again; only files that changed are read anew."""
    store = Store(results)
    while True:
        records = store.records()
        found = underway.runs(results, records)
        counts = ", ".join(f"{len(entries)} {state}" for state, entries in found.items())
        yield "\n".join([f"{len(records)} records; {counts}", *underway.lines(found)])


def watch(results: Path, *, out: Say, terminal: bool, pause: Callable[[float], object] = time.sleep) -> None:
    """Show that until Ctrl-C: on a terminal in place, elsewhere whenever it changes."""
    with suppress(KeyboardInterrupt):
        if terminal:
            from rich.live import Live
            from rich.text import Text

            with Live(auto_refresh=False, vertical_overflow="crop") as live:
                for view in views(results):
                    live.update(Text(view, overflow="ellipsis", no_wrap=True), refresh=True)
                    pause(REFRESH)
        before = ""
        for view in views(results):
            if view != before:
                out(view)
            before = view
            pause(REFRESH)


def cancel(results: Path, runs: Sequence[str], *, out: Say, scancel: Callable[[str], object] | None = None) -> None:
    """Mark runs as cancelled. A worker looks for that between steps, saves and ends; a job of one run is ended.

    Raises `UsageError`, before anything is cancelled, for what is no run's id.
    """
    for folder in [underway.find(results, run) for run in runs]:
        at, job, busy = traces.whereabouts(folder), traces.job(folder), traces.holder(folder)
        title = folder.name if at is None else f"{at.name} ({folder.name})"
        if busy is None and job is None and traces.is_over(folder):
            out(f"{title}: has ended already")
            continue
        traces.note_stop(folder, Stopped(why="cancelled"))
        if job is not None and job.runs == 1 and re.fullmatch(r"\d+(_\d+)?", job.job):
            (scancel or _scancel)(job.job)
        out(f"{title}: cancelled" + ("" if busy is None else f"; {busy} saves its state and ends"))


def _scancel(job: str) -> None:
    try:
        subprocess.run(["scancel", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as fault:
        raise UserError(f"job {job} could not be ended: {fault}; its run is marked as cancelled, try again") from fault


def log(results: Path, run: str, *, out: Callable[[str], object], follow: bool) -> None:
    """Print what a run's workers said; `follow`: go on until nobody is at it. Raises `UserError`."""
    folder = underway.find(results, run)
    try:
        file = (folder / traces.LOG).open("r", encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise UserError(f"{folder.name} has no log: it runs inline, or no worker began with it") from None
    with file, suppress(KeyboardInterrupt):
        while True:
            going = follow and traces.held(folder)  # before the last look at the file
            for text in iter(lambda: file.read(1 << 16), ""):
                out(text)
            if not going:
                return
            time.sleep(FOLLOW)


def clean(results: Path, cache: Path | None, *, dry_run: bool, out: Say) -> None:
    """Remove saved state of runs that nobody is at and, in `cache`, decoded images; each with its size.

    No record is touched, and neither is a run under way or one that a job is going to begin.
    """
    freed, word = 0, "would remove" if dry_run else "removed"
    for folder in underway.folders(results):
        busy, job = traces.holder(folder), traces.job(folder)
        if busy is not None:
            out(f"kept: {folder.name}: under way in {busy}")
        elif job is not None and not traces.cancelled(folder):
            out(f"kept: {folder.name}: job {job.job} is to begin it; `reproduce cancel` first")
        else:
            freed += _remove(folder, f"saved state of {folder.name}", word, dry_run, out, locked=True)
    places = [cache / name for name in CACHED] if cache is not None else []
    if not any(traces.job(folder) for folder in underway.folders(results)):
        places.append(results / SLURM)
    for place in places:
        if place.is_dir():
            freed += _remove(place, str(place), word, dry_run, out)
    out(f"{'would free' if dry_run else 'freed'} {_size(freed)}")


def _remove(folder: Path, title: str, word: str, dry_run: bool, out: Say, *, locked: bool = False) -> int:
    """The bytes that were, or would be, freed. locked: only while this process holds the run."""
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not dry_run:
        try:
            if locked:
                with traces.hold(folder, patience=0.0):
                    shutil.rmtree(folder)
            else:
                shutil.rmtree(folder)
        except traces.Busy:
            out(f"kept: {title}: a process has just begun with it")
            return 0
    out(f"{word}: {title}, {_size(size)}")
    return size


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
