"""Runs -> packs, one for each job -> jobs of SLURM. The one place that speaks with submitit."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduce import plan
from reproduce.errors import UsageError, UserError
from reproduce.run.backends.slurm_job import Pack
from reproduce.run.forkserver import importable
from reproduce.specs import RunSpec

if TYPE_CHECKING:
    from reproduce.run.context import Cluster, Context
    from reproduce.run.runner import Todo

MOST = 500  # jobs of one array; SLURM's default allows 1,001
ALL_AT_ONCE = 256  # jobs, without --max-jobs
LEAST_PACK = 600.0  # seconds of estimated work in a job below which its start would weigh
LIMIT = 4 * 3600.0  # seconds that a job may take, without --time
REQUEUES = 10**6  # submitit counts them; there is no limit
SHORTEST = 120.0  # a job is told to save up to a minute early, and has to have begun by then
# Options of sbatch that are chosen here: by which option of ours, or by none.
OURS = ("job-name", "output", "error", "open-mode", "signal", "wrap", "no-requeue", "ntasks", "nodes")
TAKEN = {"partition": "--partition", "time": "--time", "array": "--max-jobs", **dict.fromkeys(OURS, "")}
EXTRA = "pip install 'effconv-reproduction[slurm]', or '.[slurm]' in a checkout"


def library() -> Any:
    """submitit. Raises `UserError` where it is not installed."""
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise UserError(f"--backend slurm needs submitit: {EXTRA}") from error


def check(cluster: Cluster) -> None:
    """Raises `UsageError` for options that no job can have."""
    if cluster.time is not None and cluster.time < SHORTEST:
        raise UsageError("--time: a job needs at least 2m to begin, to be told of its end and to save")
    for key, _ in cluster.sbatch:
        if key in TAKEN:
            instead = f"use {TAKEN[key]}" if TAKEN[key] else "leave it out"
            raise UsageError(f"--sbatch {key}: --backend slurm chooses this itself; {instead}")


def packed(todos: Sequence[Todo], context: Context) -> list[list[Todo]]:
    """The runs of each job: `--pack` many, or as many as fill half of `--time` by estimate, but no fewer jobs than may
    run at once as long as each has ten minutes of work."""
    cluster, device = context.cluster, plan.likely_device(context.device)
    if cluster.pack is not None:
        return [list(todos[first : first + cluster.pack]) for first in range(0, len(todos), cluster.pack)]
    estimates = [plan.seconds(spec, device) for _, spec, _ in todos]
    share = sum(estimates) / (cluster.max_jobs or len(todos))
    return filled(todos, estimates, min(limit(cluster) / 2, max(share, LEAST_PACK)))


def filled(todos: Sequence[Todo], estimates: Sequence[float], most: float) -> list[list[Todo]]:
    """In order, each group of at most `most` seconds; a run of more has a job of its own."""
    packs: list[list[Todo]] = []
    used = most
    for todo, seconds in zip(todos, estimates, strict=True):
        if used + seconds > most or not packs:
            packs.append([])
            used = 0.0
        packs[-1].append(todo)
        used += seconds
    return packs


def submit(packs: Sequence[Sequence[Todo]], names: Sequence[str], context: Context, home: Path) -> list[str]:
    """The ids of one job for each pack: `12_0`, `12_1`, ..., or `12` for one alone.

    Raises `UserError` with what sbatch said if it refuses.
    """
    submitit, bare = library(), context.bare(jobs=1)
    executor = submitit.SlurmExecutor(folder=home, max_num_timeout=REQUEUES)
    parameters = options(context, [spec for pack in packs for _, spec, _ in pack])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        executor.update_parameters(job_name=names[0].split("_")[0], **parameters)
    jobs = []
    try:
        with importable(), executor.batch():
            for pack, name in zip(packs, names, strict=True):
                jobs.append(executor.submit(Pack(list(pack), bare, name)))
    except Exception as error:  # submitit wraps what sbatch prints in errors of several kinds
        raise UserError(f"sbatch refused the jobs: {refusal(error)}; see --partition, --time and --sbatch") from error
    return [job.job_id for job in jobs]


def refusal(error: BaseException) -> str:
    """The line of sbatch in submitit's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line.removeprefix("sbatch: ") for line in lines if line.startswith("sbatch: ")]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return (errors or said or lines or [type(error).__name__])[-1]


def options(context: Context, specs: Sequence[RunSpec]) -> dict[str, Any]:
    """submitit's parameters for jobs of these runs. What `--sbatch` says goes before what is chosen here."""
    cluster = context.cluster
    given: dict[str, Any] = {key: value or True for key, value in cluster.sbatch}
    cpus = given.pop("cpus-per-task", max(spec.threads * spec.world_size for spec in specs))
    found: dict[str, Any] = {
        "time": math.ceil(limit(cluster) / 60),  # minutes
        "array_parallelism": cluster.max_jobs or ALL_AT_ONCE,
        "cpus_per_task": int(cpus),
        "signal_delay_s": warning(limit(cluster)),
        "stderr_to_stdout": True,
        "srun_args": [f"--cpus-per-task={cpus}"],  # since 22.05 srun no longer takes it from the job
        "wckey": None,
        "additional_parameters": {"requeue": True, **given},
    }
    if cluster.partition is not None:
        found["partition"] = cluster.partition
    if context.device == "cuda" and not any(key.startswith(("gres", "gpus")) for key in given):
        found["gpus_per_node"] = max(spec.world_size for spec in specs)
    return found


def limit(cluster: Cluster) -> float:
    """Seconds that a job may take."""
    return LIMIT if cluster.time is None else cluster.time


def warning(limit: float) -> int:
    """Seconds before the time limit at which a job is told to save: a quarter of it, two minutes at most."""
    return int(min(120.0, limit / 4))


def tidy(home: Path, queued: set[str]) -> None:
    """Remove submitit's files of arrays that are not in the queue, but for the logs. queued: ids without an index."""
    for path in sorted(home.glob("[0-9]*_*")):
        if path.name.split("_")[0] not in queued and path.suffix != ".out":
            path.unlink(missing_ok=True)
    for path in home.glob(".submission_file_*.sh"):
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)
