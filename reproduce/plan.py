"""What a command would run: which rows and seeds have no record yet, and roughly how long that takes. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduce.complexity import complexity
from reproduce.errors import UsageError
from reproduce.experiments import Row
from reproduce.records import RunRecord
from reproduce.specs import DATASETS, PROTOCOL_VERSION, RunSpec
from reproduce.store import Store

LONG = 600.0  # seconds of estimated work above which a command says so
# Multiply-adds a second, forward and backward together, of one CPU thread and of a GPU; and the least time that a GPU
# takes for one layer of one step. Measured on a small network and rounded: good to a factor of three.
CPU_RATE, GPU_RATE, GPU_LAYER_SECONDS = 35e9, 3e12, 4e-4
SIZE_LEARNING_COST = 1.25  # of a step, against a plain training step
TIMED_WORK, TIMED_STEPS = 20.0, 8  # seconds and steps that an extrapolated timing takes at least, all told


@dataclass(frozen=True)
class Run:
    """One spec with one seed, under the name of its row."""

    name: str
    spec: RunSpec
    seed: int


@dataclass(frozen=True)
class Plan:
    """The runs of a command. `blocked` are lines about unreadable files that stand in the way of a run."""

    todo: list[Run] = field(default_factory=list)
    done: list[Run] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.todo) + len(self.done) + len(self.blocked)


def make_plan(rows: Iterable[Row], seeds: Sequence[int], store: Store, *, any_source: bool = False) -> Plan:
    """Sort rows times seeds into done, to do and blocked.

    `any_source`: a record counts wherever its images came from. It is for a command without images at hand.
    """
    plan = Plan()
    sightless = _finished_cells(store.records()) if any_source else set()
    for row in rows:
        check_budget(row.name, row.spec)
        for seed in seeds:
            blocked = store.blocked(row.spec, seed)
            record = store.find(row.spec, seed)
            done = (record is not None and is_done(record)) or (row.spec.cell_id, seed) in sightless
            if blocked is not None and not done:
                plan.blocked.append(blocked)
            else:
                (plan.done if done else plan.todo).append(Run(row.name, row.spec, seed))
    return plan


def is_done(record: RunRecord) -> bool:
    """A diverged run is a result; a failed one (out of memory, say) is tried again."""
    return record.outcome.status != "failed"


def _finished_cells(records: Iterable[RunRecord]) -> set[tuple[str, int]]:
    today = (record for record in records if record.protocol_version == PROTOCOL_VERSION and is_done(record))
    return {(record.spec.cell_id, record.seed) for record in today}


def check_budget(name: str, spec: RunSpec) -> None:
    """Raises `UsageError` if no sizes from 1 to 7 meet the budget."""
    if spec.size_learning is None:
        return
    low, high = complexity(spec.model, spec.data.name).eq3_range
    tolerance = spec.size_learning.tolerance
    if not low / (1 + tolerance) <= spec.size_learning.budget <= high / (1 - tolerance):
        raise UsageError(f"{name}: the budget is out of reach; sizes 1 to 7 give from {low:,} to {high:,} weights")


def seconds(spec: RunSpec, device: str) -> float:
    """A rough estimate of one run in seconds, of both stages and the evaluations, on "cpu" or "cuda"."""
    facts = DATASETS[spec.data.name]
    counts = complexity(spec.model, spec.data.name)
    images = spec.data.train_images or facts.train_images
    tests = spec.data.test_images or facts.test_images
    learning = spec.size_learning
    growth = 1.0 if learning is None else learning.budget / counts.eq3
    macs = counts.work + (growth - 1.0) * counts.eq3_macs
    seen = learning is not None and learning.source == "data"  # the other controls train no CNN in stage 1
    epochs = spec.training.epochs + (SIZE_LEARNING_COST * learning.epochs if learning and seen else 0.0)
    evaluations = spec.training.epochs / spec.training.evaluate_every
    work = macs * (3 * images * epochs + tests * evaluations)  # a backward pass costs twice a forward pass
    if device == "cpu":
        return work / (CPU_RATE * spec.threads)
    steps = images / spec.training.batch_size * epochs
    return max(work / GPU_RATE, steps * counts.passes * GPU_LAYER_SECONDS)


def timing_seconds(spec: RunSpec, device: str, extrapolate_above: float) -> float:
    """A rough estimate of timing both stages of a row: whole epochs, or steps where one would take too long.

    Of size learning these are two epochs: one while the sizes move and one that stands for those after it.
    """
    one = spec.training.model_copy(update={"epochs": 1, "evaluate_every": 10**6})
    training = seconds(spec.model_copy(update={"training": one, "size_learning": None}), device)

    def stage(epoch: float, times: int) -> float:
        step = epoch * spec.training.batch_size / DATASETS[spec.data.name].train_images
        return times * epoch if epoch <= extrapolate_above else max(TIMED_WORK, TIMED_STEPS * step)

    learning = spec.size_learning
    if learning is None or learning.source != "data":
        return stage(training, 1)
    return stage(training, 1) + stage(SIZE_LEARNING_COST * training, min(2, learning.epochs))


def total_seconds(runs: Iterable[Run], device: str, jobs: int) -> float:
    """The estimate of several runs, `jobs` of them side by side."""
    each = [seconds(run.spec, device) for run in runs]
    return max([sum(each) / jobs, *each]) if each else 0.0


def likely_device(device: str) -> str:
    """For estimates alone: asking torch would cost seconds."""
    if device != "auto":
        return device
    return "cuda" if Path("/dev/nvidia0").exists() else "cpu"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def entries(plan: Plan, store: Store, device: str) -> list[dict[str, Any]]:
    """One plain value for each run, the finished ones first."""
    return [
        {
            "name": run.name,
            "seed": run.seed,
            "protocol": run.spec.protocol,
            "source": run.spec.data.source,
            "finished": finished,
            "record": store.path(run.spec, run.seed).relative_to(store.results).as_posix(),
            "estimated_seconds": round(seconds(run.spec, device)),
        }
        for finished, runs in ((True, plan.done), (False, plan.todo))
        for run in runs
    ]


def lines(plan: Plan, found: Iterable[dict[str, Any]]) -> list[str]:
    """`entries` for people, and the files that stand in the way."""
    runs = [
        f"{entry['name']}, seed {entry['seed']}, {entry['protocol']}: "
        + ("finished" if entry["finished"] else f"to run, about {duration(entry['estimated_seconds'])}")
        + f"; {entry['record']}"
        for entry in found
    ]
    return runs + [f"blocked: {line}" for line in plan.blocked]


def duration(span: float) -> str:
    """90 -> "2 min", 5400 -> "1.5 h", 302400 -> "3.5 days"."""
    if span < 90:
        return f"{max(1, round(span))} s"
    if span < 5400:
        return f"{round(span / 60)} min"
    number, unit = (span / 3600, "h") if span < 172_800 else (span / 86_400, "days")
    return f"{number:.1f} {unit}" if number < 10 else f"{round(number)} {unit}"
