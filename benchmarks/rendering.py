"""Seconds to write every table and figure of 500 records, and to find out that nothing of them is stale.

The records are made up: Table 2's rows and Figure 3's points under `quick`, with as many seeds as make 500.

    python -m benchmarks.rendering
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from benchmarks.side_by_side import table, verdict
from reproduce import experiments
from reproduce.report.rendered import stale, write_all
from reproduce.specs import Protocol, RunSpec
from reproduce.store import Store
from tests.reproduce.factory import make_record, store_with

TARGET = 10.0


def specs() -> list[RunSpec]:
    """Each row's spec once."""
    quick = Protocol(base="quick")
    rows = [row for experiment in ("table2", "figure3") for row in experiments.rows(experiment, quick)]
    return list({row.spec.spec_id: row.spec for row in rows}.values())


def fill(folder: Path, count: int) -> None:
    pairs = ((seed, spec) for seed in itertools.count() for spec in specs())
    records = [make_record(spec, seed, 90 + seed / 100) for seed, spec in itertools.islice(pairs, count)]
    store_with(folder, *records)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=500, help="[500]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary)
        fill(results, options.records)
        started = time.perf_counter()
        written = write_all(Store(results), results / "rendered")
        middle = time.perf_counter()
        assert not stale(Store(results), results / "rendered")
        ended = time.perf_counter()
    rows: list[list[object]] = [
        [f"write {len(written)} files", middle - started, verdict(middle - started, at_most=TARGET)],
        ["check that they are up to date", ended - middle, ""],
    ]
    table(f"Rendering {options.records} records", ["work", "s", "target"], rows)


if __name__ == "__main__":
    main()
