"""Seconds to write every table, figure and the report of 500 records, and to find out that nothing of them is stale.

The records are made up: Table 2's rows and Figure 3's points under `quick`, with as many seeds as make 500, each filled
up to 64 kB with the course of its training.

    python -m benchmarks.rendering
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

from benchmarks.side_by_side import table, verdict
from reproduce import experiments
from reproduce.records import RunRecord
from reproduce.report import onepage, rendered
from reproduce.report.rendered import stale, write_all
from reproduce.specs import Protocol, RunSpec
from reproduce.store import Store
from tests.reproduce.factory import make_record, store_with

TARGET = 10.0
SIZE = 64_000


def specs() -> list[RunSpec]:
    """Each row's spec once."""
    quick = Protocol(base="quick")
    rows = [row for experiment in ("table2", "figure3") for row in experiments.rows(experiment, quick)]
    return list({row.spec.spec_id: row.spec for row in rows}.values())


def fill(folder: Path, count: int) -> None:
    pairs = ((seed, spec) for seed in itertools.count() for spec in specs())
    records = [make_record(spec, seed, 90 + seed / 100) for seed, spec in itertools.islice(pairs, count)]
    store_with(folder, *map(filled_up, records))


def filled_up(record: RunRecord) -> RunRecord:
    """The same with a history of 100 points, so long that its file has at most SIZE bytes."""
    def with_notes(length: int) -> RunRecord:
        point = {"epoch": 1, "lr": 0.001, "train_loss": 0.123456, "note": "x" * length}
        return record.model_copy(update={"history": {"training": [point] * 100}})

    size = len(json.dumps(with_notes(0).model_dump(mode="json"), indent=1, ensure_ascii=False)) + 1
    return with_notes(max(0, SIZE - size) // 100).signed()


def report_alone(results: Path) -> int:
    """Bytes of the report as HTML, with all that it takes to make it."""
    report = onepage.report_of(rendered.sources(Store(results)))
    return len(onepage.WRITERS[".html"](report, results / "rendered", ".."))


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
        size = report_alone(results)
        last = time.perf_counter()
        largest = max(path.stat().st_size for path in results.rglob("runs/**/*.json"))
    rows: list[list[object]] = [
        [f"write {len(written)} files", middle - started, verdict(middle - started, at_most=TARGET)],
        ["check that they are up to date", ended - middle, verdict(ended - middle, at_most=TARGET)],
        [f"the report alone ({size / 1e6:.1f} MB)", last - ended, verdict(last - ended, at_most=TARGET)],
    ]
    table(f"Rendering {options.records} records of up to {largest / 1e3:.0f} kB", ["work", "s", "target"], rows)


if __name__ == "__main__":
    main()
