"""What `models`, `status` and `data` list: plain values for JSON, and their text for people."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from reproduce import experiments, paper, study_plans, underway
from reproduce.complexity import complexity
from reproduce.errors import UsageError
from reproduce.experiments import Row
from reproduce.known_answers import ORACLE, KnownAnswer, KnownStore
from reproduce.layers import DCN_EVALUATIONS
from reproduce.networks import OTHERS
from reproduce.records import RunRecord
from reproduce.report import words
from reproduce.report.shelf import question
from reproduce.size_records import SizeStore
from reproduce.specs import PROTOCOL_VERSION, ModelSpec, Protocol
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import PairTiming, RowTiming, Timing

TABLES = ("table1", "table2", "table3", "table4")
WIDTH = 80
LEGEND = (
    "Counts are at the initial kernel sizes. total: trainable parameters, with the data set's own classes; "
    "Efficient-CapsNet's without its decoder. Eq. 3: weights of the ungrouped convolutions larger than 1 x 1 after the "
    "first, in a ResNet the residual ones; of a generated kernel its own weights. MACs: multiply-adds of one image, "
    f"convolutions done directly; DCN's at {DCN_EVALUATIONS} evaluations of each ODE block. An EffConv row's size in "
    "the paper is its budget, which Eq. 3 meets with the sizes learned."
)
Entry = dict[str, Any]


def models() -> list[Entry]:
    """One entry for each row of Tables 1-4; then, with `table` null, for what Figure 3 alone shows and what no row has.

    Counts are at the initial kernel sizes; `budget` is what Eq. 3 is to come to.
    """
    protocol = Protocol(base="paper")
    tables = [(row, table) for table in TABLES for row in experiments.rows(table, protocol) if row.paper]
    shown = {row.name for row, table in tables if table == "table2"}
    figure = [row for row in experiments.rows("figure3", protocol) if row.name not in shown]
    entries = [_row_entry(row, table) for row, table in tables] + [_row_entry(row, None) for row in figure]
    return entries + [_entry(name, model, dataset) for name, (dataset, model) in OTHERS.items()]


def _row_entry(row: Row, table: str | None) -> Entry:
    """An entry with what the paper prints. Of learned sizes that is the budget, no total to compare."""
    entry = _entry(row.name, row.spec.model, row.spec.data.name)
    learning = row.spec.size_learning
    entry |= {"table": table, "budget": None if learning is None else learning.budget}
    if row.paper is not None:
        entry |= {"paper_size": row.paper.size, "note": row.paper.note or None}
        if learning is None:
            entry["differs"] = differs(entry["total_params"], row.paper.size)
    return entry


def _entry(name: str, model: ModelSpec, dataset: str) -> Entry:
    counts = complexity(model, dataset)
    return {
        "name": name,
        "table": None,
        "dataset": dataset,
        "total_params": counts.total,
        "eq3_params": counts.eq3,
        "macs": counts.macs,
        "layers": counts.layers,
        "paper_size": None,
        "differs": None,
        "note": None,
        "budget": None,
    }


def differs(total: int, size: str) -> str | None:
    """`0.45M, the paper prints 0.44M`; None if `total` comes to `size` at its number of digits, or `size` is "N/A"."""
    match = re.fullmatch(r"\d+(?:\.(\d+))?M", size)
    if match is None:
        return None
    ours = f"{total / 1e6:.{len(match[1] or '')}f}M"
    return None if ours == size else f"{ours}, the paper prints {size}"


def models_text(entries: Iterable[Entry]) -> str:
    """`models()` as a plain table of 80 columns, then the differences from the paper, and how to read all this."""
    listed = list(entries)
    lines = [("", "paper", "total ", "Eq. 3", "MACs", "layers"), *map(_line, listed)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rows = (_aligned(line, widths) for line in lines)
    parts = [head]
    for heading, group in groupby(zip(listed, rows, strict=True), key=lambda pair: _heading(pair[0])):
        parts += [heading, *(row for _, row in group)]
    return "\n".join([*parts, "", *_differences(listed), *textwrap.wrap(LEGEND, WIDTH)])


def _line(entry: Entry) -> tuple[str, ...]:
    name, size = f"  {entry['name']}", entry["paper_size"] or ""
    total = f"{entry['total_params']:,}{'*' if entry['differs'] else ' '}"
    return name, size, total, f"{entry['eq3_params']:,}", _short(entry["macs"]), str(entry["layers"])


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    name, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
    return "  ".join([line[0].ljust(len(name)), *others]).rstrip()


def _heading(entry: Entry) -> str:
    if entry["table"]:
        return paper.tables()[entry["table"]].title
    return "In Figure 3 alone: CIFAR-10" if entry["budget"] else "In no row of the paper"


def _short(count: int) -> str:
    """40,813,184 -> "40.8M"."""
    return f"{count / 1e9:.1f}G" if count >= 1e9 else f"{count / 1e6:.1f}M"


def _differences(entries: Iterable[Entry]) -> list[str]:
    """A line for each flagged row, with the paper's row's note."""
    lines = []
    for entry in entries:
        if entry["differs"]:
            text = f"* {_heading(entry).split(':')[0]}, {entry['name']}: {entry['differs']}. {entry['note'] or ''}"
            lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ")
    return [*lines, ""] if lines else []


def status(results: Path) -> Entry:
    """What is recorded below `results`, by experiment, protocol and row the seeds; which runs are under way, failed,
    cancelled or unfinished; what cannot be read.
    """
    store, timings = Store(results), TimingStore(results)
    records, timed = store.records(), _timings(timings, store)
    sizes, known = SizeStore(results), KnownStore(results)
    runs = underway.runs(results, [record for record in records if record.protocol_version == PROTOCOL_VERSION])
    return {
        "records": len(records),
        "sizes": _sizes(sizes),
        "known_answers": _known(known),
        "cells": [cell for name in experiments.EXPERIMENTS for cell in _cells(name, records)],
        "unfinished": [entry["run_id"] for entry in runs["unfinished"]],
        "runs": runs,
        "timings": timed,
        "plans": [plan.name for plan in study_plans.plans(results)],
        "problems": [
            *store.problems, *timings.problems, *sizes.problems, *known.problems, *study_plans.problems(results)
        ],
    }  # fmt: skip


def _sizes(store: SizeStore) -> list[Entry]:
    """Records of size learning alone, by data set, labels, budget and number of steps."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for record in store.records():
        spec, planted = record.case.spec, record.case.planted
        labels = f"{record.case.arm} {planted:g}" if planted else record.case.arm
        what = (spec.data.name, labels, spec.model.family, spec.size_learning.budget, spec.steps)
        found.setdefault(what, []).append(record.case.seed)
    names = ("dataset", "labels", "family", "budget", "steps")
    return [dict(zip(names, what, strict=True)) | {"seeds": sorted(seeds)} for what, seeds in sorted(found.items())]


def _known(store: KnownStore) -> list[Entry]:
    """Known answers by method; `reached` is None for the oracle, which is not judged."""
    found: dict[str, list[KnownAnswer]] = {}
    for record in store.records():
        found.setdefault(record.case.method, []).append(record)
    return [
        {
            "method": method,
            "cases": len(several),
            "reached": None if method == ORACLE else sum(one.reaches for one in several),
        }
        for method, several in sorted(found.items())
    ]


def _timings(timings: TimingStore, store: Store) -> list[Entry]:
    """Counts of timing records by machine and device."""
    found: dict[tuple[str, str], list[Timing]] = {}
    every: list[Timing] = [*timings.rows(), *timings.pairs()]
    for record in every:
        found.setdefault((record.machine, record.device), []).append(record)
    return [
        {
            "machine": machine,
            "device": device,
            "title": words.machine_title(store.machine(machine), device),
            "rows": sum(isinstance(one, RowTiming) for one in several),
            "pairs": sum(isinstance(one, PairTiming) for one in several),
            "failed": sum(isinstance(one, RowTiming) and one.outcome == "failed" for one in several),
            "invalid": sum(bool(one.certificate.invalid) for one in several),
        }
        for (machine, device), several in sorted(found.items())
    ]


def _cells(experiment: str, records: list[RunRecord]) -> list[Entry]:
    """The cells of one experiment that hold a record, by protocol; records of today's protocol version only."""
    by_question: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.protocol_version == PROTOCOL_VERSION:
            by_question.setdefault(question(record.spec), []).append(record)
    found = []
    for protocol in sorted({record.spec.protocol for record in records}):
        for row in _rows(experiment, protocol):
            here = by_question.get(question(row.spec), [])
            if here:
                seeds = {record.seed: record.outcome.status for record in here}
                found.append({"experiment": experiment, "protocol": protocol, "row": row.name, "seeds": seeds})
    return found


def _rows(experiment: str, protocol: str) -> list[Row]:
    try:
        return experiments.rows(experiment, Protocol.parse(protocol))
    except ValueError:  # a protocol of a newer version
        return []


def status_text(entry: Entry) -> str:
    """One line a cell, then what is unfinished or unreadable."""
    lines = [f"{entry['records']} records"]
    for cell in entry["cells"]:
        seeds = ", ".join(
            str(seed) if state == "finished" else f"{seed} ({state})" for seed, state in sorted(cell["seeds"].items())
        )
        lines.append(f"{cell['experiment']}, {cell['protocol']}: {cell['row']}: seeds {seeds}")
    for one in entry["sizes"]:
        seeds = ", ".join(map(str, one["seeds"]))
        what = f"{one['dataset']}, {one['family']} {one['budget']:,}, {one['steps']:,} steps, {one['labels']} labels"
        lines.append(f"sizes alone: {what}: seeds {seeds}")
    for one in entry["known_answers"]:
        reached = "" if one["reached"] is None else f", {one['reached']} reached"
        lines.append(f"known answers: {one['method']}: {one['cases']} cases{reached}")
    lines += [_timings_line(found) for found in entry["timings"]]
    lines += [f"plan: {name}" for name in entry["plans"]]
    lines += underway.lines(entry["runs"])
    lines += [f"warning: {problem}" for problem in entry["problems"]]
    return "\n".join(lines)


def _timings_line(found: Entry) -> str:
    """`timings on NVIDIA H200, torch 2.9.0 (machine 0123456789ab, cuda): 12 rows, 9 pairs, 1 of them invalid`."""
    bad = "".join(f", {found[kind]} of them {kind}" for kind in ("failed", "invalid") if found[kind])
    where = f"{found['title']} (machine {found['machine']}, {found['device']})"
    return f"timings on {where}: {found['rows']} rows, {found['pairs']} pairs{bad}"


def data(names: tuple[str, ...], data_root: Path, *, cache: Path | None, download: bool) -> list[Entry]:
    """The data sets below `data_root`: all of them as they look, those named checked in full, or fetched and checked.

    Raises `UserError` for a named one that is missing or damaged.
    """
    if download and not names:
        raise UsageError("name the data sets to fetch, for example: reproduce data mnist cifar10 --download")
    from reproduce.run import inventory

    if not names:
        return [asdict(row) for row in inventory.listing(data_root, cache=cache)]
    look = inventory.fetch if download else inventory.check
    return [asdict(look(name, data_root)) for name in names]


def data_text(entries: Iterable[Entry]) -> str:
    """One line a data set."""
    lines = []
    for entry in entries:
        held = f"{entry['train_images']:,} + {entry['test_images']:,} images, " if entry["source"] else ""
        lines.append(f"{entry['name']}: {entry['title']}: {held}{entry['state']}")
    return "\n".join(lines)


def is_damaged(entry: Entry) -> bool:
    """Whether an entry of `data` is of files that are there but cannot be used."""
    return entry["source"] is None and entry["state"] != "not found"
