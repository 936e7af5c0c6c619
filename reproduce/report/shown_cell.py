"""`reproduce show CELL`: all that is recorded of one row, protocol by protocol, and what fills the table's cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce import paper
from reproduce.errors import UsageError
from reproduce.experiments import EXPERIMENTS, Row
from reproduce.findings import clean, columns, labelled
from reproduce.records import RunRecord
from reproduce.report import times, words
from reproduce.report.cells import Cell, cells_of, layer_sizes, rows_of
from reproduce.report.plain import summary
from reproduce.report.rendered import protocols
from reproduce.report.shelf import Series, Shelf, series_of
from reproduce.report.statistics import summarise
from reproduce.specs import Protocol
from reproduce.store import Store


def experiments_with(name: str) -> list[str]:
    """The tables and figures that have a row of this name."""
    full = Protocol(base="paper")
    empty = Shelf([], lambda machine: {})
    return [one for one in EXPERIMENTS if name in (row.name for row in rows_of(one, full, empty))]


def cell(experiment: str, name: str, store: Store) -> dict[str, Any]:
    """All about one row as plain values. Raises `UsageError` for a row that the experiment does not have."""
    shelf = Shelf.of(store)
    names = [row.name for row in rows_of(experiment, Protocol(base="paper"), shelf)]
    if name not in names:
        raise UsageError(f"{experiment} has no row {name!r}; `reproduce {experiment} --list` prints the names")
    found = [(protocol, _row(experiment, protocol, shelf, name)) for protocol in protocols(shelf)]
    filled = [(protocol, row) for protocol, row in found if row is not None and shelf.answers(row.spec)]
    printed = paper.row(experiment, name)
    return {
        "experiment": experiment,
        "title": paper.tables()[experiment].title,
        "row": name,
        "paper": None if printed is None else words.printed(printed.accuracy, printed.accuracy_std),
        "series": [one for protocol, row in filled for one in _series_of(experiment, protocol, row, shelf, store)],
        "timings": _timings(_row(experiment, Protocol(base="paper"), shelf, name), shelf),
        "problems": store.problems,
    }


def runs(entry: dict[str, Any], store: Store) -> list[RunRecord]:
    """The finished runs of the series that has most of them, for the picture."""
    best = max(entry["series"], key=lambda one: len(one["runs"]), default=None)
    wanted = set() if best is None else {run["run_id"] for run in best["runs"] if run["status"] == "finished"}
    return [record for record in store.records() if record.run_id in wanted]


def _row(experiment: str, protocol: Protocol, shelf: Shelf, name: str) -> Row | None:
    return next((row for row in rows_of(experiment, protocol, shelf) if row.name == name), None)


def _series_of(experiment: str, protocol: Protocol, row: Row, shelf: Shelf, store: Store) -> list[dict[str, Any]]:
    """The records of one protocol, apart by source, version and way. A cell is filled by one of them."""
    chosen = next(one for one in cells_of(rows_of(experiment, protocol, shelf), shelf) if one.row.name == row.name)
    return [_plain(one, protocol, one == chosen.series, store) for one in series_of(shelf.answers(row.spec))]


def _plain(one: Series, protocol: Protocol, fills: bool, store: Store) -> dict[str, Any]:
    top1 = [record.metrics.last.top1 for record in one.finished if record.metrics is not None]
    return {
        "protocol": protocol.name,
        "schedule": words.schedule(one.sample.spec.data.name, protocol),
        "data": one.sample.data.title,
        "source": one.source,
        "protocol_version": one.version,
        "computed": one.way.remarks,
        "fills_the_cell": fills,
        "top1": summary(summarise(top1) if top1 else None),
        "runs": [_run(record, store) for record in sorted(one.finished + one.unfinished, key=lambda run: run.seed)],
    }


def _run(record: RunRecord, store: Store) -> dict[str, Any]:
    return {
        "seed": record.seed,
        "run_id": record.run_id,
        "status": record.outcome.status,
        "top1": None if record.metrics is None else record.metrics.last.top1,
        "sizes": layer_sizes(record),
        "eq3": record.params.eq3,
        "machine": record.machine,
        "path": store.path(record.spec, record.seed).as_posix(),
    }


def _timings(row: Row | None, shelf: Shelf) -> list[dict[str, str]]:
    """What the stopwatch found, by machine and way."""
    if row is None:
        return []
    found = times.timings(Cell(row=row, series=None), shelf)
    titles = times.titles(list(found), shelf)
    return [
        {
            "where": titles[place],
            "seconds_per_epoch": times.seconds(record, _aside),
            "record": record.timing_id,
        }
        for place, record in found.items()
    ]


def _aside(note: str) -> str:
    return f" ({note[:1].lower()}{note[1:].rstrip('.')})" if note else ""


def text(entry: dict[str, Any], results: Path) -> str:
    """`cell` in 80 columns."""
    lines = [f"{entry['title']}: {clean(entry['row'])}"]
    if entry["paper"] is not None:
        lines += labelled("paper", f"top-1 {entry['paper']} %; full schedule, canonical files")
    for one in entry["series"]:
        lines += ["", *_block(one)]
    if not entry["series"]:
        run = f"reproduce {entry['experiment']} --rows '{entry['row']}'"
        lines += ["", *labelled("runs", f"none below {results}; this runs it, --dry-run says for how long:")]
        lines += [f"  {run}"]
    for timing in entry["timings"]:
        lines += ["", *labelled("timed", f"{timing['where']}; record {timing['record']}")]
        lines += labelled("", f"s per epoch, {times.AVERAGES}: {timing['seconds_per_epoch']}")
    return "\n".join([*lines, *(line for problem in entry["problems"] for line in labelled("warning", problem))])


def _block(one: dict[str, Any]) -> list[str]:
    """One series: what it is, its mean, and a line for each seed."""
    found, version = one["top1"], one["protocol_version"]
    lines = [f"protocol {one['protocol']}" + ("" if one["fills_the_cell"] else " (others fill this protocol's cell)")]
    lines += labelled("  is", "; ".join([one["schedule"], *one["computed"], f"protocol version {version}"]))
    lines += labelled("  data", one["data"])
    if found is not None:
        spread = "" if found["std"] is None else f" ± {found['std']:.2f}"
        ends = found["interval95"]
        interval = "" if ends is None else f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
        lines += labelled("  top-1", f"{found['mean']:.2f}{spread} % (n = {found['n']}{interval}), last epoch")
    return [*lines, *columns(_lines(one["runs"]))]


def _lines(several: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = [["  run", "seed", "top-1", "Eq. 3", "machine", "state"]]
    for run in several:
        top1 = words.NOTHING if run["top1"] is None else f"{run['top1']:.2f}"
        eq3 = words.counts([run["eq3"]])
        rows.append([f"  {run['run_id']}", str(run["seed"]), top1, eq3, clean(run["machine"])[:12], run["status"]])
    return rows
