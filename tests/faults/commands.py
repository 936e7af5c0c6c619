"""The command line in processes of its own, with faults planned for the workers, and what the store says afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce.store import Store, result_of

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).parent / "site"
ROW = "EffConv-20 0.66M"
# One size-learning and one training epoch of two steps each: every phase, in about a second.
LINE = ("table2", "--protocol", "tiny", "--train-images", "32", "--epochs", "1", "--rows", ROW, "--device", "cpu")
LIMIT = 300.0  # seconds that any wait may take


@dataclass
class Place:
    """A results folder, and beside it what the planned faults write."""

    folder: Path
    results: Path
    seeds: int

    def start(self, *options: str, faults: dict[int, str] | None = None) -> Command:
        """The command for all seeds, its workers watched and, where `faults` says so, ended or held."""
        environment = {**os.environ, "FAULTS_AT": json.dumps(faults or {}), "FAULTS_FOLDER": str(self.folder)}
        environment |= {"REPRODUCE_BACKEND": "local", "FAULTS_DISK": str(self.results.parent)}
        environment["PYTHONPATH"] = os.pathsep.join([str(SITE), str(ROOT)])
        words = [*LINE, "--seeds", f"0..{self.seeds - 1}", "--results", str(self.results), *options]
        words += [] if "inline" in options else ["--jobs", "2"]
        files = [self.folder / f"std{name}-{time.monotonic_ns()}" for name in ("out", "err")]
        with files[0].open("wb") as out, files[1].open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "reproduce", *words], cwd=ROOT, env=environment, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        return Command(process, *files)

    def run(self, *options: str, faults: dict[int, str] | None = None) -> Command:
        return self.start(*options, faults=faults).wait()

    def outcomes(self) -> dict[int, Any]:
        """By seed, what its record holds but for clock, machine, lineage and code; damaged ones are missing."""
        return {record.seed: result_of(record) for record in Store(self.results).records()}

    def journal(self) -> list[tuple[int, str, int]]:
        """(seed, phase, process) of every phase of every attempt so far, in order of time."""
        path = self.folder / "journal"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        parts = (line.split() for line in lines)
        return [(int(run.rpartition("-s")[2]), phase, int(pid)) for run, phase, pid in parts]

    def times(self, phase: str) -> Counter[int]:
        """How often each seed came to a phase."""
        return Counter(seed for seed, found, _ in self.journal() if found == phase)

    def at_work(self) -> list[int]:
        """The process numbers of workers that are alive."""
        return sorted(pid for pid in {pid for _, _, pid in self.journal()} if is_alive(pid))

    def left_over(self) -> list[str]:
        """Resume state and half-written files, which a command that has done everything does not leave."""
        odd = [path for path in (self.results / "runs").rglob("*") if path.is_file() and path.suffix != ".json"]
        return [path.name for path in (*odd, *(self.results / ".resume").glob("*"))]

    def wrong(self, expected: dict[int, Any]) -> list[object]:
        """What is lost, differs from an uninterrupted run, or was left lying about."""
        found, store = self.outcomes(), Store(self.results)
        store.records()
        seeds = [seed for seed in range(self.seeds) if found.get(seed) != expected[seed]]
        return [*seeds, *store.problems, *self.left_over()]

    def repeated(self) -> list[tuple[int, int, int]]:
        """Seeds that were not begun and recorded exactly once: (seed, how often begun, how often recorded)."""
        begun, recorded = self.times("data"), self.times("rename")
        times = [(seed, begun[seed], recorded[seed]) for seed in range(self.seeds)]
        return [entry for entry in times if entry[1:] != (1, 1)]


@dataclass
class Command:
    """A head at work, or one that has ended."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait(self) -> Command:
        self.process.wait(LIMIT)
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT)

    @property
    def code(self) -> int:
        assert self.process.returncode is not None
        return self.process.returncode

    @property
    def said(self) -> str:
        return self.err.read_text(encoding="utf-8")

    @property
    def printed(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("error: ")]


def until(true: Callable[[], object], what: str) -> None:
    """Waits for a condition, by name. Raises `AssertionError` once the limit has passed."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"waited {LIMIT:.0f} s in vain: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
