"""What `--backend local` adds: 200 runs of one busy second on 2 workers against the ideal, and the head's memory over
1,000 empty ones.

The runs are made up: everything of a run is there (a process of its own, lock, images, progress, record) but for the
training, in whose place the processor is busy for a second, or nothing is done.

    python -m benchmarks.runner_overhead
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks.side_by_side import table, verdict, warn_if_busy
from reproduce.run.context import Context
from reproduce.run.progress import Silent
from reproduce.run.runner import run_all
from reproduce.store import Store
from tests.reproduce.run_samples import context, spec

STAND_IN = Path(__file__).parent / "stand_in"
OVERHEAD, GROWTH = 15.0, 10.0  # percent over ideal; MB of the head between the first tenth of the runs and the last
JOBS = 2


class Counter(Silent):
    """The head's display: notes its memory whenever a run is done."""

    def __init__(self) -> None:
        self.megabytes: list[float] = []

    def done(self, name: str, line: str) -> None:
        self.megabytes.append(resident())


def resident() -> float:
    """MB, of 10^6 bytes, of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def made_up(runs: int, seconds: float) -> tuple[float, list[float]]:
    """Wall seconds of so many runs of `seconds` of work each, and the head's memory after each of them."""
    counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "seconds").write_text(str(seconds), encoding="utf-8")
        todo = [("made up", spec(), seed) for seed in range(runs)]
        given: Context = context(Path(folder), backend="local", jobs=JOBS, progress=counter)
        started = time.perf_counter()
        records = run_all(todo, given)
        taken = time.perf_counter() - started
        assert len(records) == len(Store(Path(folder)).records()) == runs
    return taken, counter.megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--busy", type=int, default=200, help="runs of one second [200]")
    parser.add_argument("--empty", type=int, default=1000, help="runs of no work [1000]")
    options = parser.parse_args()
    warn_if_busy()
    os.environ["STAND_IN"] = "1"  # for the server that forks the workers
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(STAND_IN), os.environ.get("PYTHONPATH"))))
    rows: list[list[object]] = []
    busy, _ = made_up(options.busy, 1.0)
    ideal = options.busy / JOBS
    over = 100 * (busy / ideal - 1)
    rows.append([f"{options.busy} busy runs", busy, f"{over:.1f} % over {ideal:g} s", verdict(over, at_most=OVERHEAD)])
    empty, memory = made_up(options.empty, 0.0)
    tenth = memory[: max(1, len(memory) // 10)]
    growth = max(memory[-len(tenth) :]) - max(tenth)
    told = f"{growth:+.1f} MB from {max(tenth):.0f} MB"
    rows.append([f"{options.empty} empty runs", empty, told, verdict(growth, at_most=GROWTH)])
    table(f"Runs made up, {JOBS} workers", ["work", "s", "", "target"], rows)


if __name__ == "__main__":
    main()
