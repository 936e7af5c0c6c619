"""The worth test: accuracy of EffConv's sizes against sizes that the data had no say in, after the same training."""

from __future__ import annotations

from collections.abc import Sequence

from reproduce import experiments
from reproduce.experiments import CONTROL_BUDGETS, EXPERIMENTS, dataset_of, effconv_name
from reproduce.networks import CONTROL_RESNET20, DEPTH, control_names
from reproduce.records import RunRecord
from reproduce.report import words
from reproduce.report.sections import grid
from reproduce.report.statistics import summarise
from reproduce.specs import PROTOCOL_VERSION, Engine, Precision, Protocol

SEEDS = 8  # of each row, under `paper`
Way = tuple[str, Engine, Precision, int]  # source of the images, engine, precision, threads


def worth_section(dataset: str, records: Sequence[RunRecord]) -> list[str]:
    """The section's heading and text."""
    table = next(name for name in EXPERIMENTS if dataset_of(name) == dataset)
    budget = CONTROL_BUDGETS[table]
    names = [effconv_name(DEPTH, budget)] + [name for name in control_names(budget) if name != CONTROL_RESNET20]
    full = [one for one in records if one.spec.data.name == dataset and one.spec.protocol == "paper"]
    ways = sorted({(one.spec.data.source, one.spec.engine, one.spec.precision, one.spec.threads) for one in full})
    found = [top1(table, names, way, full) for way in ways]
    none: dict[str, dict[int, float]] = {name: {} for name in names}
    best = max(found, key=fewest, default=none)
    title = "## Worth test: accuracy of these sizes against others at the same budget, protocol paper"
    if fewest(best) < SEEDS:
        held = ", ".join(f"{name}: {len(best[name])}" for name in names)
        return [title, f"Not run: it needs {SEEDS} seeds of each row under `paper`. Recorded are {held}."]
    ours = best[names[0]]
    rows = [[name, *accuracy(best[name]), *([words.NOTHING] * 2 if name == names[0] else against(ours, best[name]))]
            for name in names]  # fmt: skip
    headers = ["sizes", "top-1", "seeds", f"{names[0]} minus these, seed by seed", "95 % interval"]
    return [title, grid(headers, rows)]


def top1(table: str, names: Sequence[str], way: Way, records: Sequence[RunRecord]) -> dict[str, dict[int, float]]:
    """By row and seed, the last epoch's top-1 in percent, of runs that were computed in one way, on the same images."""
    source, engine, precision, threads = way
    rows = experiments.rows(
        table, Protocol(base="paper"), source=source, engine=engine, precision=precision, threads=threads
    )
    specs = {row.name: row.spec for row in rows if row.name in names}
    return {
        name: {
            one.seed: one.metrics.last.top1
            for one in records
            if one.metrics is not None and one.protocol_version == PROTOCOL_VERSION and one.spec == specs[name]
        }
        for name in names
    }


def fewest(found: dict[str, dict[int, float]]) -> int:
    return min(map(len, found.values()))


def accuracy(by_seed: dict[int, float]) -> list[str]:
    return [words.measured(summarise(by_seed.values())), words.number_list(sorted(by_seed))]


def against(ours: dict[int, float], theirs: dict[int, float]) -> list[str]:
    """The mean difference over the seeds that both have, and its interval."""
    both = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    summary = summarise(both) if both else None
    return [words.measured(summary), words.interval(summary)]
