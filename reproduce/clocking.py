"""What `reproduce time` does: the rows and pairs that have no timing on this machine yet, then all that were asked for.

Beside `commands`: it knows both wings, and imports each inside the function that needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import experiments, naming, plan
from reproduce.errors import Interrupted, UsageError
from reproduce.experiments import Row
from reproduce.specs import DATASETS, Engine, Precision, Protocol, sha256_of
from reproduce.store import RESUME, Store
from reproduce.timing_store import TimingStore, counts
from reproduce.timings import RANDOM, PairTiming, RowTiming, Timing, epoch_seconds, stages

if TYPE_CHECKING:
    from reproduce.run.timing.ladder import Rung
    from reproduce.run.timing.place import Place

EXPERIMENTS = ("table1", "table2", "table3", "table4", "figure3")
EXTRAPOLATE_ABOVE = {"cpu": 600.0, "cuda": 60.0}  # seconds of an epoch
CLEARLY = 0.9  # of that: an epoch known from steps alone may take somewhat longer
PAIR_STEPS, PAIR_SECONDS = 15, 50.0  # of a pair: steps of the limit's length on the CPU; seconds on CUDA

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TimeRequest:
    """`reproduce time`, parsed."""

    experiments: Sequence[str] = ()  # none: all
    globs: str | None = None
    device: str = "auto"
    engine: Engine = "plain"
    precision: Precision = "float32"
    threads: int = 1
    side_by_side: int = 1  # networks of so many seeds; above 1 training alone is timed, as shared time
    ladder: bool = True
    rows: bool = True
    ceilings: bool = True
    only_ceilings: bool = False
    extrapolate_above: float | None = None  # seconds; None: by the device
    step_limit: float = 20.0
    again: bool = False
    results: Path = Path("results")
    as_json: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Job:
    """Something to be timed, and what stands in the store."""

    name: str
    path: Path
    found: Timing | None
    measure: Callable[[Place], Timing | str]  # a text is the reason why there is none
    seconds: float  # that it may take, roughly
    rough: bool = False  # what stands there comes from steps, and is now asked for in whole epochs

    @property
    def usable(self) -> bool:
        return self.found is not None and counts(self.found)

    @property
    def done(self) -> bool:
        return self.usable and not self.rough


def names(request: TimeRequest) -> list[str]:
    """What `--list` prints: the chosen rows and pairs."""
    rows = [job_name(row, request) for row in chosen_rows(request)]
    return rows + [rung.name for rung in chosen_rungs(request, "cpu")]


def time_command(request: TimeRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> int:
    """Time what has no valid record on this machine, then print what was asked for.

    Returns the exit code. Raises `UserError`, or `Interrupted` with what is measured on disk, and printed.
    """
    check_side_by_side(request)
    chosen_rows(request)  # a bad glob fails before any work
    chosen_rungs(request, "cpu")
    from reproduce.run import machine
    from reproduce.run.timing.place import Place
    from reproduce.run.timing.workloads import RandomData

    device = machine.choose_device(request.device, request.precision)
    store, timings = Store(request.results), TimingStore(request.results)
    description = machine.description()
    above = request.extrapolate_above
    place = Place(
        store=store,
        device=device,
        machine=sha256_of(description)[:12],
        extrapolate_above=EXTRAPOLATE_ABOVE[device.type] if above is None else above,
        step_limit=request.step_limit if device.type == "cpu" else None,
        data=RandomData(device=device),
        stop=stop,
        say=lambda line: err(f"  {line}"),
    )
    if request.only_ceilings:
        show_ceilings(request, place, out)
        return 0
    jobs = all_jobs(request, place, timings)
    if request.dry_run:
        for job in jobs:
            again = " anew in whole epochs" if job.usable else ""
            state = "timed" if job.done else f"to be timed{again}, about {plan.duration(job.seconds)}"
            out(f"{job.name}: {state}; {job.path.relative_to(request.results)}")
        return 0
    store.write_machine(description)
    stopped, failed = None, False
    try:
        failed = measure(jobs, request, place, timings, err)
    except Interrupted as asked:
        stopped = asked
    found = [record for job in all_jobs(request, place, timings) if (record := job.found) is not None]
    if found and request.side_by_side > 1:
        alone = all_jobs(replace(request, side_by_side=1), place, timings)
        found = [*(record for job in alone if (record := job.found) is not None), *found]
    if found:
        show(found, request, place, out)
    for problem in timings.problems:
        err(f"warning: {problem}")
    if stopped is not None:
        raise stopped
    return 1 if failed else 0


def measure(jobs: Sequence[Job], request: TimeRequest, place: Place, timings: TimingStore, err: Say) -> bool:
    """Measure and record what is to be done; returns whether anything failed or stands blocked."""
    todo = [job for job in jobs if request.again or not job.done]
    if not todo:
        err(f"nothing to time: all {len(jobs)} have a record on this machine")
        return False
    warn_if_long(todo, err)
    if request.ceilings:
        err("the machine's ceilings")
        place = replace(place, ceilings=ceilings(request, place))
    failed, written = False, 0
    for number, job in enumerate(todo, start=1):
        problem = None if request.again else timings.blocked(job.path)
        if problem is not None:
            err(f"error: {problem}")
            failed = True
            continue
        err(f"{number} of {len(todo)}: {job.name}")
        try:
            record = job.measure(place)
        except Interrupted:
            begun = any(request.results.glob(f"{RESUME}/timing-*/*.json"))  # the first stage of a row
            raise Interrupted(idle=not written and not begun) from None
        if isinstance(record, str):
            err(f"  failed: {record}")
        else:
            timings.write(record, again=request.again or job.usable)
            written += 1
            err(f"  {summary(record)}")
        failed |= isinstance(record, str) or (isinstance(record, RowTiming) and record.outcome == "failed")
    return failed


def warn_if_long(todo: Sequence[Job], err: Say) -> None:
    span = sum(job.seconds for job in todo)
    if span > plan.LONG:
        err(
            f"{len(todo)} timings, about {plan.duration(span)} (a rough estimate). Cheaper: one experiment, --rows, "
            "--no-ladder, a lower --extrapolate-above or --step-limit; or in parts, --time-budget. Going on."
        )


def ceilings(request: TimeRequest, place: Place) -> dict[str, float]:
    from reproduce.run.machine import settings
    from reproduce.run.timing.ceilings import measure_ceilings

    with settings(request.threads):
        return measure_ceilings(place.device)


def show_ceilings(request: TimeRequest, place: Place, out: Say) -> None:
    """`--ceilings`: nothing but what the device can do at best."""
    from reproduce.report import clocked
    from reproduce.run import machine

    found = ceilings(request, place)
    if request.as_json:
        out(json.dumps(found, indent=1))
    else:
        out(clocked.ceilings_text(found, machine.description(), place.device.type, request.threads))


def all_jobs(request: TimeRequest, place: Place, timings: TimingStore) -> list[Job]:
    """The rows, then the pairs, with what is on disk of them."""
    device, machine, together = place.device.type, place.machine, request.side_by_side

    def of_row(row: Row) -> Job:
        found = timings.find_row(row.spec, device, machine, together)
        return Job(
            name=job_name(row, request),
            path=timings.row_path(row.spec, device, machine, together),
            found=found,
            measure=partial(_time_row, row, together),
            seconds=together * plan.timing_seconds(row.spec, device, place.extrapolate_above),
            rough=found is not None and is_rough(found, CLEARLY * place.extrapolate_above),
        )

    return [of_row(row) for row in chosen_rows(request)] + [
        Job(
            name=rung.name,
            path=timings.pair_path(rung.claim, rung.level, rung.timing_id, machine),
            found=timings.find_pair(rung.timing_id, machine),
            measure=partial(_time_rung, rung, request.step_limit),
            seconds=PAIR_SECONDS if device == "cuda" else PAIR_STEPS * request.step_limit,
        )
        for rung in chosen_rungs(request, device)
    ]


def is_rough(record: RowTiming, limit: float) -> bool:
    """Whether a stage is extrapolated from steps of its own batch, though an epoch takes under `limit` seconds.

    Size learning alone is so where its sizes move for more than an epoch: whole ones of training were asked for.
    """
    rough = {
        name
        for name, stage in stages(record).items()
        if stage.how == "steps" and not stage.batch_cut and stage.images_held is None and stage.seconds < limit
    }
    asked = record.training is not None and record.training.how == "epochs"
    return bool(rough - ({"size_learning"} if asked else set()))


def job_name(row: Row, request: TimeRequest) -> str:
    """`EffConv-20 0.66M, CIFAR-10, 3 side by side`."""
    several = "" if request.side_by_side == 1 else f", {request.side_by_side} side by side"
    return f"{row.name}, {DATASETS[row.spec.data.name].title}{several}"


def check_side_by_side(request: TimeRequest) -> None:
    """Raises `UsageError` for what several networks at once cannot be asked."""
    if request.side_by_side == 1:
        return
    if request.engine != "graph":
        raise UsageError("--side-by-side puts networks into one graph; add --engine graph")
    if request.ladder:
        raise UsageError("--side-by-side is for rows, a ratio needs each network alone; drop --ladder or --ladder-only")


def _time_row(row: Row, together: int, place: Place) -> Timing:
    from reproduce.run.timing import rows

    return rows.time_row(row.name, row.spec, place, together=together)


def _time_rung(rung: Rung, step_limit: float, place: Place) -> Timing | str:
    """The pair, or why it could not be measured: a ratio has no place for an outcome."""
    from reproduce.run.timing import ladder

    return ladder.time_rung_or_reason(rung, place, step_limit=step_limit)


def chosen_rows(request: TimeRequest) -> list[Row]:
    """The rows of all experiments that were asked for, each spec once. Raises `UsageError` for a bad glob.

    A glob is of the row's name in its table, or of the one that `--list` prints here, which ends in the data set.
    """
    if not request.rows:
        return []
    every = [row for experiment in request.experiments or EXPERIMENTS for row in rows_of(experiment, request)]
    listed = dict.fromkeys(name for row in every for name in (row.name, job_name(row, request)))
    chosen = set(naming.select(list(listed), request.globs))
    once: dict[str, Row] = {}
    for row in every:
        if chosen & {row.name, job_name(row, request)}:
            once.setdefault(row.spec.spec_id, row)
    return list(once.values())


def rows_of(experiment: str, request: TimeRequest) -> list[Row]:
    return experiments.rows(
        experiment,
        Protocol(base="paper"),
        source=RANDOM,
        threads=request.threads,
        engine=request.engine,
        precision=request.precision,
    )


def chosen_rungs(request: TimeRequest, device: str) -> list[Rung]:
    """The ladder's pairs of the experiments that have one; without rows the globs are of pairs."""
    if not request.ladder:
        return []
    from reproduce.run.timing.ladder import CLAIMS, rungs

    how = {"engine": request.engine, "precision": request.precision, "threads": request.threads}
    asked = [claim for claim in request.experiments or EXPERIMENTS if claim in CLAIMS]
    every = {rung.name: rung for claim in asked for rung in rungs(claim, device, **how)}  # type: ignore[arg-type]
    globs = None if request.rows else request.globs
    return [every[name] for name in naming.select(list(every), globs, noun="pair")]


def summary(record: Timing) -> str:
    """One line about what was measured."""
    if isinstance(record, PairTiming):
        return f"{record.ratio:.3g} times, control {record.control_ratio:.3f}"
    averages = epoch_seconds(record)
    if record.certificate.invalid:
        return f"no timing: {record.certificate.invalid}"
    if averages is None or record.outcome == "failed":
        return f"failed: {record.reason}"
    shared = "" if record.together == 1 else f" per seed, {record.together} share the device"
    return f"{averages[0]:.4g} s/epoch{shared}"


def show(found: Sequence[Timing], request: TimeRequest, place: Place, out: Say) -> None:
    """The result, for people or machines."""
    from reproduce.report import clocked

    rows = [record for record in found if isinstance(record, RowTiming)]
    pairs = [record for record in found if isinstance(record, PairTiming)]
    if request.as_json:
        out(json.dumps(clocked.plain(rows, pairs), indent=1, ensure_ascii=False))
    else:
        title = place.store.machine(place.machine)
        out(clocked.text(rows, pairs, title, place.device.type))
