"""What an experiment's command does: plan the runs, hand them to the computing wing, print what the other wing renders.

Only this module and `cli` know both wings; each is imported inside the function that needs it, so that reading records
never loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import experiments, naming, paper, plan, traces
from reproduce.errors import Interrupted, UserError
from reproduce.experiments import Row
from reproduce.plan import Plan
from reproduce.records import RunRecord
from reproduce.specs import Engine, Precision, Protocol
from reproduce.store import Store

if TYPE_CHECKING:
    from reproduce.run.runner import Context

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """An experiment's command, parsed. Paths may be relative to the working directory."""

    experiment: str
    protocol: Protocol
    seeds: Sequence[int]
    globs: str | None = None
    depths: Sequence[int] | None = None
    budgets: Sequence[int] | None = None
    data_root: Path | None = None  # None: the default folder, or the bundled digits under tiny
    download: bool = False
    cache: Path | None = None
    device: str = "auto"
    results: Path = Path("results")
    dry_run: bool = False
    no_run: bool = False
    keep_weights: bool = False
    backend: str = "inline"  # inline, local or slurm
    jobs: int | None = None  # runs side by side; None: one for each core or GPU, inline one
    stall_limit: float = 900.0  # seconds without a step after which a run counts as hung
    partition: str | None = None  # of SLURM, like the next four
    job_time: float | None = None  # seconds
    max_jobs: int | None = None
    pack: int | None = None
    sbatch: Sequence[tuple[str, str]] = ()
    engine: Engine = "plain"
    precision: Precision = "float32"
    gpus_per_run: int = 1
    sync_bn: bool = False
    as_json: bool = False
    terminal: bool = False  # a person reads the output

    @cached_property  # it may ask nvidia-smi
    def side_by_side(self) -> int:
        """How many runs go at once: on GPUs one on each, on the CPU one on each core that this process may use."""
        if self.jobs is not None:
            return self.jobs
        if self.backend == "inline":
            return 1
        if plan.likely_device(self.device) == "cuda":
            from reproduce.run import gpus

            return max(1, len(gpus.usable()) // self.gpus_per_run)
        return plan.cores()


DEFAULT_DATA_ROOT = Path("data")


def names(request: Request) -> list[str]:
    """The rows that `--list` prints: all of them, or those that `--rows` selects."""
    found = [row.name for row in _all_rows(request, None)]
    return found if request.globs is None else naming.select(found, request.globs)


def experiment(request: Request, *, out: Say, err: Say, stop: Callable[[], bool]) -> int:
    """Run what is missing, render, and print the result through `out`; progress and remarks go through `err`.

    Returns the exit code. Raises `UserError`, or `Interrupted` with everything saved and what is finished printed.
    """
    store = Store(request.results)
    code = 0
    stopped: Interrupted | None = None
    naming.select([row.name for row in _all_rows(request, None)], request.globs)  # a bad glob fails before any work
    if not request.no_run:
        source = _source(request)
        chosen = _chosen_rows(request, source)
        todo = plan.make_plan(chosen, request.seeds, store, any_source=source is None)
        if request.dry_run:
            _print_plan(todo, request, store, out)
            return 0
        before = _saved(todo, store)
        try:
            code = _run(todo, request, store, source, err=err, stop=stop)
        except Interrupted as asked:
            stopped = Interrupted(str(asked), idle=request.backend != "slurm" and _saved(todo, store) == before)
            if stopped.idle:
                raise stopped from None
    _render(request, store, out=out, err=err)
    for problem in store.problems:
        err(f"warning: {problem}")
    if stopped is not None:
        raise stopped
    return code


def _saved(todo: Plan, store: Store) -> dict[Path, int]:
    """What stands on the disk of the runs to do, each file with its time: it changes as soon as one step is saved."""
    states = [traces.saved(store.resume_dir(run.spec, run.seed)) for run in todo.todo]
    records = [store.path(run.spec, run.seed) for run in todo.todo]
    written = {path: path.stat().st_mtime_ns for path in records if path.exists()}
    return written | {path: when for state in states for path, when in state.items()}


def _all_rows(request: Request, source: str | None) -> list[Row]:
    return experiments.rows(
        request.experiment,
        request.protocol,
        source=source,
        depths=request.depths,
        budgets=request.budgets,
        engine=request.engine,
        precision=request.precision,
        gpus_per_run=request.gpus_per_run,
        sync_bn=request.sync_bn,
    )


def _chosen_rows(request: Request, source: str | None) -> list[Row]:
    every = _all_rows(request, source)
    chosen = set(naming.select([row.name for row in every], request.globs))
    return [row for row in every if row.name in chosen]


def _data_root(request: Request) -> Path | None:
    """Where the images are looked for; None means the bundled digits."""
    if request.data_root is None and request.protocol.base == "tiny":
        return None
    return request.data_root or DEFAULT_DATA_ROOT


def _source(request: Request) -> str | None:
    """Which images there are, as `DataSpec.source` names them; None if there are none and none were asked for.

    Raises `UserError` if the folder that the user names holds no such images.
    """
    root = _data_root(request)
    if root is None:
        return "digits"
    optional = request.data_root is None and not request.download
    if optional and not root.is_dir():
        return None
    from reproduce.run import datasets, sources

    name = experiments.dataset_of(request.experiment)
    if (optional or request.dry_run) and sources.find(name, root) is None:
        return None
    return datasets.identify(name, root, cache=request.cache, download=request.download)


def _run(todo: Plan, request: Request, store: Store, source: str | None, *, err: Say, stop: Callable[[], bool]) -> int:
    """Do the missing runs; returns 1 if any of them failed or stands blocked, else 0."""
    for line in todo.blocked:
        err(f"error: {line}")
    if not todo.todo:
        err(f"nothing to run: {len(todo.done)} of {todo.total} runs are finished")
        return 1 if todo.blocked else 0
    if source is None:
        raise UserError(_no_images(request))
    _warn_if_long(todo, request, err)
    if request.backend == "local":
        from reproduce.run import forkserver

        forkserver.start()  # it loads torch while this process does so too
    with _context(request, store, stop) as context:
        from reproduce.run import runner

        records = runner.run_all([(run.name, run.spec, run.seed) for run in todo.todo], context)
    missing = len(records) < len(todo.todo)  # killed or cancelled, as was said
    return max(_outcome(records, err), 1 if todo.blocked or missing else 0)


def _no_images(request: Request) -> str:
    dataset = experiments.dataset_of(request.experiment)
    return (
        f"no images of {dataset}: name their folder with --data-root, or fetch them with "
        f"`reproduce data {dataset} --download`; --protocol tiny needs none"
    )


@contextmanager
def _context(request: Request, store: Store, stop: Callable[[], bool]) -> Iterator[Context]:
    """What the runner needs, with a progress display that is closed whatever happens."""
    from reproduce.run.context import Cluster
    from reproduce.run.progress import Progress
    from reproduce.run.runner import Context

    progress = Progress()
    progress.table(f"{paper.tables()[request.experiment].title}, protocol {request.protocol.name}")
    try:
        yield Context(
            store=store,
            data_root=_data_root(request),
            cache=request.cache,
            download=request.download,
            device=request.device,
            keep_weights=request.keep_weights,
            jobs=request.side_by_side,
            progress=progress,
            stop=stop,
            retry=True,  # a failed run is on the list only to be tried again
            backend=request.backend,
            stall_limit=request.stall_limit,
            cluster=Cluster(
                partition=request.partition,
                time=request.job_time,
                max_jobs=request.max_jobs,
                pack=request.pack,
                sbatch=tuple(request.sbatch),
            ),
        )
    finally:
        progress.close()


def _outcome(records: Sequence[RunRecord], err: Say) -> int:
    """One line for each run without a usable result; 1 if a run failed. A diverged run is a result."""
    bad = [record for record in records if record.outcome.status != "finished"]
    for record in bad:
        err(f"{record.outcome.status}: {record.run_id}: {record.outcome.reason}")
    return 1 if any(record.outcome.status == "failed" for record in bad) else 0


def _warn_if_long(todo: Plan, request: Request, err: Say) -> None:
    device = plan.likely_device(request.device)
    span = plan.total_seconds(todo.todo, device, request.side_by_side)
    if span <= plan.LONG:
        return
    where = "a GPU" if device == "cuda" else "the CPU"
    err(
        f"{len(todo.todo)} runs on {where}, about {plan.duration(span)} (a rough estimate). "
        f"Cheaper: {_cheaper(todo, request, device)}. Going on."
    )


def _cheaper(todo: Plan, request: Request, device: str) -> str:
    """What costs less, for a person: "--protocol quick (about 3 h), --protocol tiny (...), ..."."""
    others = "--protocol tiny (a smoke test in minutes), --epochs, --train-images, fewer --seeds"
    if request.protocol.base != "paper" or request.protocol.epochs is not None:
        return others
    quick = replace(request, protocol=request.protocol.model_copy(update={"base": "quick"}))
    shorter = {row.name: row.spec for row in _all_rows(quick, None)}
    runs = [plan.Run(run.name, shorter[run.name], run.seed) for run in todo.todo]
    return f"--protocol quick (about {plan.duration(plan.total_seconds(runs, device, request.side_by_side))}), {others}"


def _print_plan(todo: Plan, request: Request, store: Store, out: Say) -> None:
    """`--dry-run`: one line, or one JSON object, for each run."""
    device = plan.likely_device(request.device)
    entries = plan.entries(todo, store, device)
    if request.as_json:
        out(json.dumps(entries, indent=1))
        return
    for line in plan.lines(todo, entries):
        out(line)
    span = plan.duration(plan.total_seconds(todo.todo, device, request.side_by_side)) if todo.todo else "no time"
    out(f"{len(todo.done)} of {todo.total} runs are finished; the rest takes about {span} on {device}")


def _render(request: Request, store: Store, *, out: Say, err: Say) -> None:
    """Bring RESULTS/rendered up to date, then print this experiment's table, or the paths of its figure."""
    from reproduce.report import rendered

    folder = request.results / "rendered"
    written = rendered.write_all(store, folder) if store.records() else []
    name = f"{request.experiment}.{request.protocol.name}"
    if request.experiment.startswith("table"):
        _print_table(request, store, out)
        return
    if folder / f"{name}.json" not in written:
        err(f"{name}: nothing to draw yet, no run of it is finished")
    elif request.as_json:
        out((folder / f"{name}.json").read_text(encoding="utf-8").rstrip())
    else:
        out("\n".join(str(folder / f"{name}.{kind}") for kind in ("png", "svg")))


def _print_table(request: Request, store: Store, out: Say) -> None:
    """The table: short on a terminal, otherwise as the markdown that stands in RESULTS/rendered; or its JSON."""
    from reproduce.report import tables

    if request.as_json:
        out(json.dumps(tables.table_json(request.experiment, request.protocol, store), indent=1, ensure_ascii=False))
        return
    shown = tables.terminal_table if request.terminal else tables.render_table
    out(shown(request.experiment, request.protocol, store).rstrip())
    dataset = experiments.dataset_of(request.experiment)
    for figure in (name for name in experiments.EXPERIMENTS if name.startswith("figure")):
        path = request.results / "rendered" / f"{figure}.{request.protocol.name}.png"
        if experiments.dataset_of(figure) == dataset and path.exists():
            out(f"\n{paper.tables()[figure].title.split(':')[0]}: {path}")
