"""What `models`, `status` and `data` list: plain values for JSON, and their text for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reproduce import experiments
from reproduce.complexity import complexity
from reproduce.errors import UsageError
from reproduce.experiments import Row
from reproduce.records import RunRecord
from reproduce.specs import PROTOCOL_VERSION, Protocol
from reproduce.store import Store

TABLES = ("table1", "table2", "table3", "table4")
Entry = dict[str, Any]


def models() -> list[Entry]:
    """One entry for each row of Tables 1-4 and for each network that Figure 3 alone shows (its `table` is null).

    Counts are at the initial kernel sizes and null while the model is not built; `budget` is what Eq. 3 is to come to.
    """
    protocol = Protocol(base="paper")
    entries = [_model(row, table) for table in TABLES for row in experiments.rows(table, protocol) if row.paper]
    shown = {entry["name"] for entry in entries if entry["table"] == "table2"}
    figure = (row for row in experiments.rows("figure3", protocol) if row.name not in shown)
    return entries + [_model(row, None) for row in figure]


def _model(row: Row, table: str | None) -> Entry:
    counts = None if row.spec is None else complexity(row.spec.model, row.spec.data.name)
    learning = None if row.spec is None else row.spec.size_learning
    return {
        "name": row.name,
        "table": table,
        "total_params": None if counts is None else counts.total,
        "eq3_params": None if counts is None else counts.eq3,
        "macs": None if counts is None else counts.macs,
        "layers": None if counts is None else counts.layers,
        "paper_size": None if row.paper is None else row.paper.size,
        "budget": None if learning is None else learning.budget,
        "built": row.spec is not None,
    }


def models_text(entries: Iterable[Entry]) -> str:
    """A plain table of `models()`."""
    heads = ("table", "model", "paper's size", "parameters", "Eq. 3", "MACs", "layers")
    keys = ("total_params", "eq3_params", "macs", "layers")
    lines = [heads]
    for entry in entries:
        counts = tuple(f"{entry[key]:,}" for key in keys) if entry["built"] else ("not built yet", "", "", "")
        lines.append((entry["table"] or "figure3", entry["name"], entry["paper_size"] or "", *counts))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(_aligned(line, widths) for line in lines) + "\nCounts are at the initial kernel sizes."


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    cells = zip(line, widths, strict=True)
    return "  ".join(
        cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(cells)
    ).rstrip()


def status(results: Path) -> Entry:
    """What is recorded below `results`: by experiment, protocol and row the seeds; what is unfinished or unreadable."""
    store = Store(results)
    records = store.records()
    resume = results / ".resume"
    return {
        "records": len(records),
        "cells": [cell for name in experiments.EXPERIMENTS for cell in _cells(name, records)],
        "unfinished": sorted(path.name for path in resume.iterdir()) if resume.is_dir() else [],
        "problems": store.problems,
    }


def _cells(experiment: str, records: list[RunRecord]) -> list[Entry]:
    """The cells of one experiment that hold a record, by protocol; records of today's protocol version only."""
    by_cell: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.protocol_version == PROTOCOL_VERSION:
            by_cell.setdefault(record.spec.cell_id, []).append(record)
    found = []
    for protocol in sorted({record.spec.protocol for record in records}):
        for row in _rows(experiment, protocol):
            here = by_cell.get(row.spec.cell_id, []) if row.spec else []
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
    lines += [f"unfinished: {run_id}; the command that started it goes on from there" for run_id in entry["unfinished"]]
    lines += [f"warning: {problem}" for problem in entry["problems"]]
    return "\n".join(lines)


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
