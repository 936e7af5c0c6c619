"""Runs the tests of faults and writes results/faults.md from what they tell: what was tried, how often, what was lost.

    python -m tools.fault_report --full      # every count; about 20 minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from reproduce.run.recording import code
from tests.faults.recorder import COUNTED, PROMISES, Line

FULL = {"FAULTS": "full", "FOREIGN_INPUTS": "10000"}


def run_tests(lines: Path, *, full: bool) -> int:
    """Every test that tells of faults, in processes of pytest; returns pytest's exit code."""
    elsewhere = dict.fromkeys(f"tests/{name}" for name, *_ in COUNTED)
    environment = {**os.environ, "FAULT_REPORT": str(lines), "OMP_NUM_THREADS": "1", **(FULL if full else {})}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "tests/faults", *elsewhere]
    return subprocess.run(command, env=environment).returncode


def read(path: Path) -> list[Line]:
    """The lines of a file, the last one of each test and case: a test that ran again speaks for itself."""
    found = [Line(**json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines()]
    return list({(line.test, line.fault, line.case): line for line in found}.values())


def page(lines: list[Line], *, full: bool) -> str:
    """The report as markdown."""
    made = code()
    commit = f"commit {made['commit'][:12]}" + (" with changes" if made["dirty"] else "")
    counts = "every count" if full else "reduced counts"
    head = [
        "# What was tried to break it, and what was lost",
        "",
        "Made by the tests themselves (`python -m tools.fault_report --full`): each line tells what was done to it,",
        "how often, and how many runs, records or numbers were lost or wrong afterwards.",
        "",
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, {platform.system()}; {commit}; {counts}.",
        "",
        "| fault | promise | what was tried | times | lost |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    return "\n".join([*head, *rows(lines), "", *remarks(lines)]) + "\n"


def rows(lines: list[Line]) -> list[str]:
    """One for each case; fault and promise stand in the first of theirs. The last row is the sum."""
    told = [line for line in lines if line.fault]
    found = []
    for fault, promise in PROMISES.items():
        cases: dict[str, list[Line]] = defaultdict(list)
        for line in told:
            if line.fault == fault:
                cases[line.case].append(line)
        if not cases:
            found.append(f"| {fault} | {promise} | not tried | 0 | |")
        for index, (case, of_case) in enumerate(cases.items()):
            first = f"| {fault} | {promise} " if index == 0 else "| | "
            notes = "; ".join(dict.fromkeys(line.note for line in of_case if line.note))
            found.append(f"{first}| {case}{f' ({notes})' if notes else ''} | {total(of_case)} |")
    return [*found, f"| **all** | | | {total(told)} |"]


def total(lines: list[Line]) -> str:
    return f"{sum(line.tries for line in lines):,} | {sum(line.lost for line in lines):,}"


def remarks(lines: list[Line]) -> list[str]:
    """Tests that failed or were skipped: what they would have tried stands in no row."""
    found = [f"- {line.test} {line.case}" + (f": {line.note}" if line.note else "") for line in lines if not line.fault]
    return found or ["No test failed, none was skipped."]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="every count [those of the slow tests]")
    parser.add_argument("--lines", type=Path, help="only render what tests wrote there under FAULT_REPORT")
    parser.add_argument("--output", type=Path, default=Path("results/faults.md"), help="[results/faults.md]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = options.lines or Path(folder, "lines")
        exit_code = 0 if options.lines else run_tests(lines, full=options.full)
        options.output.write_text(page(read(lines), full=options.full), encoding="utf-8")
    print(options.output)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
