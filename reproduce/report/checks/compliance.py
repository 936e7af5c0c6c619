"""Records and specs against what they promise: settings, rows, budgets, sizes, seeds, seconds. Pure functions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from reproduce import experiments, paper
from reproduce.complexity import complexity
from reproduce.experiments import EXPERIMENTS
from reproduce.records import RunRecord
from reproduce.report.origins import rows_of_record
from reproduce.report.shelf import DIGITS, Way, question
from reproduce.specs import Protocol, SizeLearning


def stated_settings() -> tuple[list[str], int]:
    """(settings of size learning that the paper states and a row under `paper` does not have, settings compared)."""
    stated = paper.settings()["size_learning"]
    wrong, compared = [], 0
    for name in EXPERIMENTS:
        dataset = experiments.dataset_of(name)
        for row in experiments.rows(name, Protocol(base="paper")):
            learning = row.spec.size_learning
            if learning is None or row.paper is None:
                continue
            expected = {**stated, "epochs": stated.get(f"epochs_{dataset}", stated["epochs"])}
            agrees = _agrees(learning, expected)
            wrong += [f"{name} {row.name}: {field}" for field, good in agrees.items() if not good]
            compared += len(agrees)
    return wrong, compared


def _agrees(learning: SizeLearning, expected: dict[str, Any]) -> dict[str, bool]:
    """By setting, whether it is as stated. `expected`: the paper's values, by its names."""
    found = {
        "epochs": learning.epochs,
        "lr": learning.lr,
        "kernel_lr": learning.kernel_lr,
        "weight_decay": learning.weight_decay,
        "lambda": learning.lam,
    }
    close = {field: math.isclose(value, float(expected[field])) for field, value in found.items()}
    return close | {"sizes": learning.max_size == int(expected["sizes"][1])}


def has_row(record: RunRecord) -> bool:
    """Whether a row of a table or figure asks for this run. Figure 3's further depths and budgets are no rows."""
    return bool(rows_of_record(record))


def names_its_files(record: RunRecord) -> bool:
    """The bundled digits are part of a package and have no files."""
    files = record.data.files
    return record.data.source == DIGITS or (bool(files) and all(file.sha256 for file in files))


def off_budget(records: Iterable[RunRecord]) -> tuple[list[str], int]:
    """(runs whose sizes miss their budget by more than the tolerance, runs with learned sizes)."""
    learned = [record for record in records if record.spec.size_learning is not None]
    return [record.run_id for record in learned if not _meets(record)], len(learned)


def _meets(record: RunRecord) -> bool:
    learning, eq3 = record.spec.size_learning, record.params.eq3
    return learning is not None and eq3 is not None and abs(eq3 / learning.budget - 1.0) <= learning.tolerance


def other_sizes() -> tuple[list[str], int]:
    """(rows whose network has another size than the paper prints, at its number of digits; rows with a size)."""
    found, compared = [], 0
    for name in EXPERIMENTS:
        for row in experiments.rows(name, Protocol(base="paper")):
            printed = re.fullmatch(r"\d+(?:\.(\d+))?M", row.paper.size) if row.paper is not None else None
            if printed is None or row.spec.size_learning is not None:
                continue
            compared += 1
            ours = f"{complexity(row.spec.model, row.spec.data.name).total / 1e6:.{len(printed[1] or '')}f}M"
            found += [] if ours == printed[0] else [f"{name} {row.name} ({ours}, printed {printed[0]})"]
    return found, compared


def same_seed_twice(records: Sequence[RunRecord]) -> list[str]:
    """Run ids of seeds that occur twice among the records that could stand in one cell."""
    keys = [(question(r.spec), r.spec.data.source, r.protocol_version, Way.of(r.spec), r.seed) for r in records]
    counted = Counter(keys)
    return [record.run_id for record, key in zip(records, keys, strict=True) if counted[key] > 1]


def seconds_spent(records: Iterable[RunRecord]) -> float:
    """Epochs and evaluations of both stages, of all runs whatever their outcome."""
    stages = (stage for record in records for stage in (record.clock.size_learning, record.clock.training))
    return math.fsum(sum(stage.epoch_seconds) + sum(stage.evaluation_seconds) for stage in stages if stage is not None)
