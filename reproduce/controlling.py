"""What `reproduce controls` does: size learning under each label arm that has no record yet, then the label test.

Beside `commands`: it knows both wings, and imports each inside the function that needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import plan, recipes
from reproduce.complexity import complexity
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.label_test import ARMS, FEWEST, MOST
from reproduce.networks import network
from reproduce.size_records import Arm, SizeCase, SizeSpec, SizeStore
from reproduce.specs import DATASETS, Engine, Protocol
from reproduce.store import Store

if TYPE_CHECKING:
    from reproduce.run.context import Context

ROW = "EffConv-20 0.66M"
DEFAULT_ROOT = Path("data")  # where images are looked for unless told otherwise

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ControlsRequest:
    """`reproduce controls`, parsed; each field is the option of its name (`as_json`: `--json`)."""

    dataset: str = "cifar10"  # or mnist
    data_root: Path | None = None
    cache: Path | None = None
    steps: int = 1000
    train_images: int | None = None
    seeds: Sequence[int] = range(FEWEST)
    planted: float | None = None
    row: str = ROW  # whose sizes are learned
    labels: Sequence[Arm] = ARMS
    device: str = "auto"
    engine: Engine = "plain"
    jobs: int = 1
    results: Path = Path("results")
    no_run: bool = False
    as_json: bool = False
    dry_run: bool = False


def command(request: ControlsRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> int:
    """Learn the sizes that have no record yet, then print the page of the label test; the exit code.

    Raises `UserError`, or `Interrupted` with everything saved and what is finished printed.
    """
    check(request)
    store, stopped = SizeStore(request.results), None
    if not request.no_run:
        cases = label_cases(request, source_of(request))
        if request.dry_run:
            show_plan(cases, request, store, out)
            return 0
        before = saved(cases, store)
        try:
            run(cases, request, store, err=err, stop=stop)
        except Interrupted:
            stopped = Interrupted(idle=saved(cases, store) == before)
            if stopped.idle:
                raise stopped from None
    show(request, out=out, err=err)
    if stopped is not None:
        raise stopped
    return 0


def check(request: ControlsRequest) -> None:
    """Raises `UsageError` for what the test cannot take."""
    if request.planted is not None and not 0.0 < request.planted < float("inf"):
        raise UsageError(f"--planted: {request.planted:g} is no size of a gradient; give one above 0, such as 0.001")
    if len(request.seeds) > MOST:
        raise UsageError(f"--seeds: the test takes at most {MOST} seeds, {len(request.seeds)} were given")
    if (unknown := sorted(set(request.labels) - set(ARMS))) or not request.labels:
        raise UsageError(f"--labels: {', '.join(unknown) or 'none'} is none of {', '.join(ARMS)}")
    try:
        found = network(request.row)
    except KeyError:
        raise UsageError(f"--row: no row is named {request.row!r}; an EffConv row is wanted, such as {ROW!r}") from None
    if found.budget is None or found.control is not None:
        raise UsageError(f"--row: {request.row!r} learns no sizes under a budget; EffConv rows do, such as {ROW!r}")


def size_spec(
    dataset: str,
    *,
    steps: int,
    source: str = "canonical",
    train_images: int | None = None,
    engine: Engine = "plain",
    row: str = ROW,
) -> SizeSpec:
    """Stage 1 of a row of the tables under the paper's settings, cut to so many steps."""
    protocol, found = Protocol(base="paper", train_images=train_images), network(row)
    recipe = recipes.training(found, dataset, protocol)
    return SizeSpec(
        model=found.model,
        size_learning=recipes.size_learning(found, dataset, protocol, recipe).model_copy(update={"epochs": 1}),
        data=recipes.data(dataset, protocol, source),
        normalisation=recipe.normalisation,
        steps=steps,
        engine=engine,
    )


def label_cases(request: ControlsRequest, source: str) -> list[SizeCase]:
    """All runs that the test needs, seed by seed, so that an early end leaves whole seeds."""
    spec = size_spec(
        request.dataset,
        steps=request.steps,
        source=source,
        train_images=request.train_images,
        engine=request.engine,
        row=request.row,
    )
    arms: list[tuple[Arm, float]] = [(arm, 0.0) for arm in request.labels]
    arms += [] if request.planted is None else [("planted", request.planted)]
    return [SizeCase(spec=spec, arm=arm, seed=seed, planted=planted) for seed in request.seeds for arm, planted in arms]


def source_of(request: ControlsRequest) -> str:
    """Which images there are, as `DataSpec.source` names them; a dry run without any takes the canonical files."""
    from reproduce.run import datasets, sources

    root = request.data_root or DEFAULT_ROOT
    if request.dry_run and (not root.is_dir() or sources.find(request.dataset, root) is None):
        return "canonical"
    return datasets.identify(request.dataset, root, cache=request.cache)


def seconds(spec: SizeSpec, device: str) -> float:
    """A rough estimate of one run, on "cpu" or "cuda", as `plan.seconds` makes it of whole runs."""
    counts, learning = complexity(spec.model, spec.data.name), spec.size_learning
    macs = counts.work + (learning.budget / counts.eq3 - 1.0) * counts.eq3_macs
    work = 3 * macs * learning.batch_size * spec.steps * plan.SIZE_LEARNING_COST
    if device == "cpu":
        return work / (plan.CPU_RATE * spec.threads)
    return max(work / plan.GPU_RATE, spec.steps * counts.passes * plan.GPU_LAYER_SECONDS * plan.SIZE_LEARNING_COST)


def cost(cases: Sequence[SizeCase], request: ControlsRequest) -> str:
    """`15 runs of 1,000 steps on cpu, about 2.9 h (a rough estimate)`."""
    device = plan.likely_device(request.device)
    each = [seconds(case.spec, device) for case in cases]
    span = max([sum(each) / request.jobs, *each]) if each else 0.0
    return f"{len(cases)} runs of {request.steps:,} steps on {device}, about {plan.duration(span)} (a rough estimate)"


def show_plan(cases: Sequence[SizeCase], request: ControlsRequest, store: SizeStore, out: Say) -> None:
    """`--dry-run`."""
    entries = [
        {
            "arm": case.arm,
            "planted": case.planted,
            "seed": case.seed,
            "finished": store.find(case) is not None,
            "record": store.path(case).relative_to(request.results).as_posix(),
            "estimated_seconds": round(seconds(case.spec, plan.likely_device(request.device))),
        }
        for case in cases
    ]
    if request.as_json:
        out(json.dumps(entries, indent=1))
        return
    for entry in entries:
        out(f"{entry['arm']}, seed {entry['seed']}: {'finished' if entry['finished'] else 'to run'}; {entry['record']}")
    out(f"to run: {cost([case for case in cases if store.find(case) is None], request)}")


def saved(cases: Sequence[SizeCase], store: SizeStore) -> dict[Path, int]:
    """What stands on the disk of these runs, each file with its time: it changes as soon as one step is saved."""
    paths = [path for case in cases for path in (store.path(case), store.resume_dir(case) / "size_learning.pt")]
    return {path: path.stat().st_mtime_ns for path in paths if path.exists()}


def run(
    cases: Sequence[SizeCase], request: ControlsRequest, store: SizeStore, *, err: Say, stop: Callable[[], bool]
) -> None:
    """Carry out what has no record."""
    todo = [case for case in cases if store.find(case) is None]
    if not todo:
        err(f"nothing to run: all {len(cases)} runs are recorded")
        return
    err(f"label test on {DATASETS[request.dataset].title}: {cost(todo, request)}. It may be stopped at any moment.")
    from reproduce.report.words import seed_list
    from reproduce.run import label_runs
    from reproduce.run.progress import Progress

    elsewhere = label_runs.begun_elsewhere(cases, store)
    if elsewhere:
        err(
            f"warning: {seed_list(elsewhere)}: some runs are recorded from another kind of machine, and the test "
            "compares none of them with runs from here; in a --results folder of its own it runs all of them here"
        )
    progress = Progress()
    try:
        label_runs.run_cases(todo, context(request, progress, stop))
    finally:
        progress.close()


def context(request: ControlsRequest, progress: object, stop: Callable[[], bool]) -> Context:
    from reproduce.run.context import Context

    return Context(
        store=Store(request.results),
        data_root=request.data_root or DEFAULT_ROOT,
        cache=request.cache,
        download=False,
        device=request.device,
        keep_weights=False,
        jobs=request.jobs,
        progress=progress,  # type: ignore[arg-type]
        stop=stop,
    )


def show(request: ControlsRequest, *, out: Say, err: Say) -> None:
    """Bring RESULTS/rendered up to date, then print this data set's page, or its values as JSON."""
    from reproduce.report import labels, rendered

    written = rendered.write_all(Store(request.results), request.results / "rendered")
    if request.as_json:
        out(json.dumps(labels.plain(request.results, request.dataset), indent=1))
        return
    path = request.results / "rendered" / labels.page_name(request.dataset)
    if path not in written:
        raise UserError(
            f"no record of size learning on {DATASETS[request.dataset].title} in {request.results}; "
            f"`reproduce controls --dataset {request.dataset}` makes them"
        )
    out(path.read_text(encoding="utf-8").rstrip())
    for problem in labels.problems(request.results):
        err(f"warning: {problem}")
