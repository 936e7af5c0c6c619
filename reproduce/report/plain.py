"""A table as plain values, for `--json`: everything that it says and the runs that it rests on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from reproduce.paper import PaperRow
from reproduce.records import RunRecord
from reproduce.report import ratios, times, words
from reproduce.report.cells import Cell, Seconds, device, last, layer_sizes, own_sizes, seconds
from reproduce.report.columns import others, state
from reproduce.report.shelf import Series, Shelf
from reproduce.report.statistics import Summary
from reproduce.report.table import Table
from reproduce.report.words import NOTHING
from reproduce.timing_store import counts
from reproduce.timings import PairTiming

MEASURES = ("top1", "top5", "precision", "recall", "f1")


def table(one: Table) -> dict[str, Any]:
    """The whole table. A smoke test holds none of the paper's accuracies and no seconds."""
    return {
        "experiment": one.experiment,
        "title": words.heading(one.title, one.smoke),
        "dataset": one.dataset,
        "protocol": one.protocol.name,
        "schedule": words.schedule(one.dataset, one.protocol),
        "smoke_test": one.smoke,
        "rows": [_row(one, cell) for cell in one.cells],
        "controls": [_row(one, cell) for cell in one.controls],
        "time_ratios": _ratios(one.experiment, one.shelf) if one.timed else [],
    }


def _row(one: Table, cell: Cell) -> dict[str, Any]:
    printed = cell.row.paper
    return {
        "name": cell.row.name,
        "state": state(cell),
        "size": printed.size if printed else None,
        "paper": None if printed is None or one.smoke else _printed(printed),
        "ours": None if cell.series is None else _ours(one, cell, cell.series),
        "others": others(cell),
        "timings": times.plain(cell, one.shelf) if one.timed else [],
    }


def _printed(row: PaperRow) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, float) else value for key, value in asdict(row).items()}


def _ours(one: Table, cell: Cell, series: Series) -> dict[str, Any]:
    origin = series.sample.data
    return {
        **{measure: summary(last(cell, measure)) for measure in MEASURES},
        "protocol_version": series.version,
        "threads": series.way.threads,
        "engine": series.way.engine,
        "numeric_precision": series.way.precision,  # `precision` is a measure
        **({} if series.way.world_size == 1 else {"processes": series.way.world_size, "sync_bn": series.way.sync_bn}),
        "data": origin.model_dump(mode="json", exclude={"files"}),
        "seconds_per_epoch": [_seconds(found) for found in seconds(cell)] if one.timed else [],
        "runs": [_run(record) for record in series.finished],
        "unfinished": [
            {"seed": record.seed, "run_id": record.run_id, **record.outcome.model_dump(mode="json")}
            for record in series.unfinished
        ],
    }


def summary(found: Summary | None) -> dict[str, Any] | None:
    return None if found is None else found.as_json()


def _seconds(found: Seconds) -> dict[str, Any]:
    return {
        "machine": found.machine,
        "device": found.device,
        "size_learning": summary(found.size_learning),
        "training": summary(found.training),
        "all_epochs": summary(found.all_epochs),
        "mean_of_stages": summary(found.of_stages),
    }


def _run(record: RunRecord) -> dict[str, Any]:
    metrics = record.metrics
    return {
        "seed": record.seed,
        "run_id": record.run_id,
        "machine": record.machine,
        "device": device(record),
        "params": record.params.model_dump(mode="json"),
        "sizes": layer_sizes(record),
        "kernel_sizes": own_sizes(record),
        "snapped": None if record.snapped is None else record.snapped.model_dump(mode="json"),
        "best": None if metrics is None else metrics.best.model_dump(mode="json"),
        "best_selected_on": None if metrics is None else metrics.best_selected_on,
    }


def _ratios(claim: str, shelf: Shelf) -> list[dict[str, Any]]:
    """Headlines and pairs by bench as plain values."""
    return [
        {
            **asdict(bench),
            "headlines": [_headline(one) for one in ratios.headlines(pairs)],
            "pairs": [_pair(pair) for pair in pairs],
        }
        for bench, pairs in ratios.by_bench(claim, shelf).items()
    ]


def _headline(one: ratios.Headline) -> dict[str, Any]:
    numbers = {"ratio": one.chosen, "level_i": one.plain, "level_i_full_grid": one.plain_full}
    return {
        "pair": one.title,
        "kernel_size": one.kernel_size,
        **{name: None if pair is None else pair.ratio for name, pair in numbers.items()},
        "level": None if one.chosen is None else one.chosen.level,
        "flags": one.flags,
        "both_stages_weighted": None if one.both_stages is None else one.both_stages[0],
        "both_stages_mean": None if one.both_stages is None else one.both_stages[1],
        "paper": None if one.printed == NOTHING else one.printed,
    }


def _pair(pair: PairTiming) -> dict[str, Any]:
    good = counts(pair)
    numbers = {"ratio": pair.ratio, "low": pair.low, "high": pair.high, "control": pair.control_ratio}
    return {
        "pair": ratios.title(pair),
        "level": pair.level,
        "kernel_size": pair.a.kernel_size,
        "full_grid": pair.a.full_grid,
        "method": pair.a.method,
        "method_of_second": pair.b.method,
        "engine": pair.a.spec.engine,
        "precision": pair.a.spec.precision,
        **{name: value if good else None for name, value in numbers.items()},
        "control_ok": not ratios.is_off(pair),
        "pairs": len(pair.ratios),
        "batch_size": pair.batch_size,
        "batch_cut": pair.batch_cut,
        "valid": good,
        "reason": pair.certificate.invalid,
        "timing_id": pair.timing_id,
    }
