"""`reproduce show RUN`: one record in 80 columns: result, data, settings, course, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reproduce.findings import clean, columns, labelled
from reproduce.lookup import Found
from reproduce.records import RunRecord, StageClock
from reproduce.report import words
from reproduce.report.cells import device, layer_sizes, own_sizes
from reproduce.report.origins import command_lines, command_of, rows_of_record, where
from reproduce.report.parting import short

POINTS = 10  # of a course that are printed
LEAVES = 60  # fields of a record that is no run
# Columns of the two courses: title, field, format.
TRAINING = (
    ("epoch", "epoch", "d"),
    ("rate", "lr", ".3g"),
    ("train loss", "train_loss", ".4f"),
    ("train top-1", "train_top1", ".2f"),
    ("test loss", "test_loss", ".4f"),
    ("test top-1", "top1", ".2f"),
)
SIZES = (
    ("epoch", "epoch", "d"),
    ("step", "step", "d"),
    ("loss", "loss", ".4f"),
    ("against the budget", "budget_error", "+.2%"),
)


def as_json(found: Found) -> dict[str, Any]:
    """The file as it stands, and what was computed about it."""
    entry: dict[str, Any] = {"path": found.path.as_posix(), "record": found.content}
    if found.record is not None:
        entry["machine"] = found.machine
    if found.run is not None:
        rows = rows_of_record(found.run)
        entry["rows"] = [where(row) for row in rows]
        entry["command"] = command_of(found.run, rows[0]) if rows else None
    return entry


def text(found: Found) -> str:
    """All about a file: a run with its course, another record or a machine as its fields."""
    lines = [clean(found.path.as_posix()), ""]  # not wrapped, so that it can be copied
    if found.run is None:
        return "\n".join([*lines, *_leaves(found.content)])
    run = found.run
    lines += [*_result(run), "", *_settings(run), "", *_provenance(found, run)]
    for part in (_sizes(run), _course(run), _size_course(run), _command(run)):
        lines += ["", *part] if part else []
    return "\n".join(lines)


def _result(run: RunRecord) -> list[str]:
    rows = rows_of_record(run)
    lines = labelled("answers", "; ".join(map(where, rows)) or "no row of the paper's tables and figures")
    status = run.outcome.status + (f": {run.outcome.reason}" if run.outcome.reason else "")
    lines += labelled("outcome", f"{status}; seed {run.seed}; protocol version {run.protocol_version}")
    if run.metrics is not None:
        last, best = run.metrics.last, run.metrics.best
        lines += labelled(
            "result",
            f"top-1 {last.top1:.2f} %, top-5 {last.top5:.2f} %, macro F1 {last.f1:.2f} %, test loss {last.loss:.4g}, "
            f"after epoch {last.epoch}, the last, on {run.data.test_images:,} test images",
        )
        lines += labelled("best epoch", f"{best.epoch}: {best.top1:.2f} % (selected on the test set; never the result)")
    printed = next((row.paper for row in rows if row.paper is not None and row.paper.accuracy is not None), None)
    if printed is not None and run.data.source != "digits":
        same = run.data.canonical and run.spec.protocol in ("paper", "paper-sgd")
        remark = "" if same else "; full schedule and canonical files, so no like for like"
        lines += labelled("paper", f"{words.printed(printed.accuracy, printed.accuracy_std)} %{remark}")
    return lines


def _settings(run: RunRecord) -> list[str]:
    spec, learning = run.spec, run.spec.size_learning
    args = ", ".join(f"{key} {value}" for key, value in spec.model.args.items())
    lines = labelled("network", f"{spec.model.family}{f' ({args})' if args else ''}")
    eq3 = "" if run.params.eq3 is None else f"; {run.params.eq3:,} by Eq. 3"
    lines += labelled("parameters", f"{run.params.total:,} in all{eq3}")
    lines += labelled("protocol", spec.protocol)
    if learning is not None:
        budget = f"budget {learning.budget:,}, {words.size_learning(learning)}"
        lines += labelled("size learning", budget)
    lines += labelled("training", words.recipe(spec.training, spec.training.epochs))
    how = f"{spec.engine} engine, {spec.precision}, {spec.threads} CPU thread" + ("s" if spec.threads > 1 else "")
    if spec.processes is not None:
        norm = "batch norm over all" if spec.sync_bn else "batch norm in each"
        how += f"; {spec.world_size} processes, {spec.processes.batch_size} images of a batch in each, {norm}"
    return lines + labelled("computed", how)


def _provenance(found: Found, run: RunRecord) -> list[str]:
    data, code, clock = run.data, run.code, run.clock
    kind = "canonical files" if data.canonical else f"source {data.source}, not canonical"
    lines = labelled("data", f"{data.title}; {kind}; {data.train_images:,} training images")
    for file in data.files:
        lines += labelled("", f"{file.path}: {file.bytes:,} bytes, SHA-256 {file.sha256[:16]}...")
    lines += labelled("machine", f"{run.machine}: {words.machine_title(found.machine, device(run))}")
    shared = ", beside other work: no timing" if clock.shared_device else ""
    resumed = f", resumed {clock.resumed} times" if clock.resumed else ""
    lines += labelled("time", f"{clock.started} to {clock.finished}{shared}{resumed}")
    stages = (("size learning", clock.size_learning), ("training", clock.training))
    lines += labelled("", "; ".join(_seconds(name, stage) for name, stage in stages if stage is not None))
    lines += labelled("code", f"commit {code.get('commit', 'unknown')}{_dirty(code.get('dirty'))}")
    lines += labelled("digest", f"{run.digest} (as computed)")
    return lines


def _dirty(flag: object) -> str:
    return "" if flag is False else ", with changes not committed" if flag is True else ", state unknown"


def _command(run: RunRecord) -> list[str]:
    rows = rows_of_record(run)
    return ["command", *(f"  {line}" for line in command_lines(run, rows[0]))] if rows else []


def _seconds(name: str, stage: StageClock) -> str:
    evaluation = f", evaluation {sum(stage.evaluation_seconds):,.0f} s" if stage.evaluation_seconds else ""
    return f"{name} {sum(stage.epoch_seconds):,.0f} s in {len(stage.epoch_seconds)} epochs{evaluation}"


def _sizes(run: RunRecord) -> list[str]:
    learned, own = layer_sizes(run), own_sizes(run)
    lines = labelled("sizes", " ".join(map(str, learned.values()))) if learned else []
    lines += labelled("own sizes", " ".join(words.kernel(*size) for size in own.values())) if own else []
    if run.snapped is not None:
        one = run.snapped
        lines += labelled(
            "budget",
            f"{words.per_cent(one.error_before)} before snapping, {words.per_cent(one.error_after)} after; "
            f"{sum(map(bool, one.moved))} of {len(one.moved)} layers moved; {one.differs_from_initial} differ from "
            "snapping the initial sizes",
        )
    return lines


def _course(run: RunRecord) -> list[str]:
    """Training: at most ten epochs, evenly spread."""
    return _table("training", run.history.get("training", []), TRAINING)


def _size_course(run: RunRecord) -> list[str]:
    return _table("size learning", run.history.get("size_learning", []), SIZES)


def _table(title: str, points: Sequence[Mapping[str, Any]], fields: Sequence[tuple[str, str, str]]) -> list[str]:
    if not points:
        return []
    count = min(POINTS, len(points))
    chosen = [points[round(i * (len(points) - 1) / max(1, count - 1))] for i in range(count)]
    rows = [["  " + fields[0][0], *(name for name, _, _ in fields[1:])]]
    for point in chosen:
        cells = [_number(point.get(key), form) for _, key, form in fields]
        rows.append([f"{cells[0]:>7}", *cells[1:]])
    return [f"course of {title} ({count} of {len(points)} points recorded)", *columns(rows)]


def _number(value: Any, form: str) -> str:
    try:
        return words.NOTHING if value is None else format(value, form)
    except (TypeError, ValueError):  # what a record holds may be anything
        return short(clean(value), 12)


def _leaves(content: Mapping[str, Any]) -> list[str]:
    """The fields of a record that is no run, or of a machine; the longest lists in short."""
    found = list(_flat(content))
    lines = [line for name, value in found[:LEAVES] for line in labelled(clean(name), value, indent=26)]
    return lines + ([f"and {len(found) - LEAVES} more fields (all with --json)"] if len(found) > LEAVES else [])


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", short(value, 200)
