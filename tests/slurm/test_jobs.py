"""Which runs share a job, what submitit is told, and who holds a run: without a SLURM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from reproduce import traces
from reproduce.errors import UsageError, UserError
from reproduce.run.backends import heads, slurm, slurm_submit
from reproduce.run.backends.slurm_queue import Queue
from reproduce.run.context import Cluster, Context
from tests.reproduce.run_samples import Quiet, context, spec

Todo = tuple[str, Any, int]
WHERE = ["job 1_0", "job 1_0", "job 1_1", "job 1_1", "job 1_2"]  # five runs, two to a job
TODOS: list[Todo] = [("CIFARResNet-8", spec(), seed) for seed in range(5)]


def sizes(packs: Sequence[Sequence[object]]) -> list[int]:
    return [len(pack) for pack in packs]


def test_packs_of_a_given_number(tmp_path: Path) -> None:
    packs = slurm_submit.packed(TODOS, replace(context(tmp_path), cluster=Cluster(pack=2)))
    assert sizes(packs) == [2, 2, 1]
    assert [todo for pack in packs for todo in pack] == TODOS


@pytest.mark.parametrize(
    ("estimates", "most", "expected"),
    [
        ([100, 100, 100, 100, 100], 250, [2, 2, 1]),
        ([900, 10, 10, 10, 900], 250, [1, 3, 1]),
        ([900] * 5, 250, [1] * 5),
        ([1] * 5, 250, [5]),
    ],
)
def test_jobs_are_filled_by_estimate(estimates: list[float], most: float, expected: list[int]) -> None:
    assert sizes(slurm_submit.filled(TODOS, estimates, most)) == expected


@pytest.mark.parametrize(
    ("seconds", "cluster", "expected"),
    [
        (1.0, Cluster(time=3600), [5]),  # less than ten minutes: one job
        (400.0, Cluster(time=3600), [1] * 5),  # no more than half of the time, and as many jobs as may run at once
        (400.0, Cluster(time=3600, max_jobs=2), [2, 2, 1]),
        (400.0, Cluster(time=900, max_jobs=1), [1] * 5),  # half of the time is less than two of them
        (400.0, Cluster(max_jobs=1), [5]),
    ],
)
def test_short_runs_share_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, cluster: Cluster, expected: list[int]
) -> None:
    monkeypatch.setattr(slurm_submit.plan, "seconds", lambda *_: seconds)
    assert sizes(slurm_submit.packed(TODOS, replace(context(tmp_path), cluster=cluster))) == expected


def options(tmp_path: Path, device: str = "cpu", **given: Any) -> dict[str, Any]:
    here = replace(context(tmp_path), device=device, cluster=Cluster(**given))
    return slurm_submit.options(here, [spec()])


def test_what_submitit_is_told(tmp_path: Path) -> None:
    found = options(tmp_path, partition="long", time=5400.0, max_jobs=3, sbatch=(("account", "us"), ("exclusive", "")))
    assert found["partition"] == "long" and found["time"] == 90 and found["array_parallelism"] == 3
    assert found["additional_parameters"] == {"requeue": True, "account": "us", "exclusive": True}
    assert "partition" not in options(tmp_path)


def test_a_gpu_is_asked_for_where_the_device_is_one(tmp_path: Path) -> None:
    assert options(tmp_path, "cuda")["gpus_per_node"] == 1
    assert "gpus_per_node" not in options(tmp_path, "cpu")
    assert "gpus_per_node" not in options(tmp_path, "cuda", sbatch=(("gres", "gpu:a100:1"),))


def test_a_step_gets_the_cores_of_its_job(tmp_path: Path) -> None:
    found = options(tmp_path, sbatch=(("cpus-per-task", "4"),))
    assert found["cpus_per_task"] == 4 and found["srun_args"] == ["--cpus-per-task=4"]
    assert "cpus-per-task" not in found["additional_parameters"]


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        (Cluster(time=119.0), "--time: a job needs at least 2m"),
        (Cluster(sbatch=(("account", "us"), ("time", "4:00"))), "--sbatch time: .* use --time"),
        (Cluster(sbatch=(("array", "0-3"),)), "use --max-jobs"),
        (Cluster(sbatch=(("output", "x"),)), "leave it out"),
    ],
)
def test_options_that_no_job_can_have(cluster: Cluster, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        slurm_submit.check(cluster)
    slurm_submit.check(Cluster(time=120.0, sbatch=(("account", "us"),)))


@pytest.mark.parametrize(("limit", "seconds"), [(120.0, 30), (3600.0, 120), (100_000.0, 120)])
def test_a_job_is_told_in_time(limit: float, seconds: int) -> None:
    assert slurm_submit.warning(limit) == seconds


def test_what_sbatch_says_is_what_the_user_reads() -> None:
    said = "sbatch: warning: slow\nsbatch: error: Batch job submission failed: Invalid partition name specified"
    told = slurm_submit.refusal(RuntimeError(f"Command failed\n{said}\n"))
    assert told == "Batch job submission failed: Invalid partition name specified"
    assert slurm_submit.refusal(RuntimeError()) == "RuntimeError"


def test_without_submitit_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'effconv-reproduction\[slurm\]'"):
        slurm_submit.library()


class Fake:
    """A SLURM that takes every job and runs none."""

    def __init__(self) -> None:
        self.queued: dict[str, str] = {}  # id: name
        self.ended: dict[str, str] = {}  # id: state
        self.arrays = 0

    def __call__(self, words: list[str]) -> str:
        if words[0] == "squeue":
            return "".join(f"{job}|PENDING|{name}|Priority\n" for job, name in self.queued.items())
        state = self.ended.get(words[-1]) if words[0] == "scontrol" else None
        return "" if state is None else f"JobId=1 JobState={state} Reason=None"

    def submit(self, packs: Sequence[object], names: Sequence[str], *_: object) -> list[str]:
        self.arrays += 1
        jobs = [f"{self.arrays}_{index}" for index in range(len(packs))]
        self.queued |= {job: name.split("_")[0] for job, name in zip(jobs, names, strict=True)}
        return jobs

    def end(self, job: str, state: str) -> None:
        del self.queued[job]
        self.ended[job] = state


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    found = Fake()
    monkeypatch.setattr(slurm, "submit", found.submit)
    monkeypatch.setattr(slurm, "GONE_FOR", 0.0)
    return found


def head(fake: Fake, results: Path) -> slurm.Slurm:
    here: Context = replace(context(results), cluster=Cluster(pack=2))
    return slurm.Slurm(here, Queue(fake, every=0.0))


def started(backend: slurm.Slurm, todos: list[Todo]) -> list[slurm.JobWorker]:
    return cast(list[slurm.JobWorker], backend.start(todos))


def folders(backend: slurm.Slurm) -> list[Path]:
    found = [backend.folder(todo) for todo in TODOS]
    for folder in found:
        traces.begin(folder)
    return found


def test_a_run_notes_its_job(fake: Fake, tmp_path: Path) -> None:
    backend = head(fake, tmp_path)
    noted = folders(backend)
    workers = started(backend, TODOS)
    assert [worker.where for worker in workers] == WHERE
    claims = [traces.job(folder) for folder in noted]
    assert [(claim.job, claim.runs) for claim in claims if claim] == [
        ("1_0", 2), ("1_0", 2), ("1_1", 2), ("1_1", 2), ("1_2", 1),
    ]  # fmt: skip
    assert all(worker.alive() for worker in workers)


def test_a_second_head_finds_the_jobs_of_the_first(fake: Fake, tmp_path: Path) -> None:
    noted = folders(head(fake, tmp_path))
    head(fake, tmp_path).start(TODOS)
    second = head(fake, tmp_path)
    assert [second.claimed(folder) for folder in noted[1:3]] == ["job 1_0", "job 1_1"]
    assert [worker.where for worker in started(second, TODOS)] == WHERE
    assert fake.arrays == 1


def test_a_head_that_was_killed_before_it_knew_the_ids(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs' names were noted before they were submitted, and are found in the queue."""
    first = head(fake, tmp_path)
    noted = folders(first)

    class Killed(BaseException):
        pass

    def submit(*given: Any) -> list[str]:
        fake.submit(*given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(slurm, "submit", submit)
        with pytest.raises(Killed):
            first.start(TODOS)
    second = head(fake, tmp_path)
    assert [second.claimed(folder) for folder in noted] == WHERE
    second.start(TODOS)
    assert fake.arrays == 1


def test_jobs_that_sbatch_refuses_claim_nothing(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[str]:
        raise UserError("sbatch refused the jobs")

    monkeypatch.setattr(slurm, "submit", refuse)
    backend = head(fake, tmp_path)
    noted = folders(backend)
    with pytest.raises(UserError, match="refused"):
        backend.start(TODOS)
    assert [traces.job(folder) for folder in noted] == [None] * len(TODOS)


@pytest.mark.parametrize(("state", "cancelled"), [("CANCELLED", True), ("NODE_FAIL", False), ("", False)])
def test_only_scancel_cancels(fake: Fake, tmp_path: Path, state: str, cancelled: bool) -> None:
    """A job that went for another reason is a killed worker: no note says why the run has no record."""
    backend = head(fake, tmp_path)
    noted = folders(backend)
    workers = backend.start(TODOS)
    fake.end("1_1", state)
    assert [worker.alive() for worker in workers] == [True, True, False, False, True]
    assert [traces.cancelled(folder) for folder in noted] == [False, False, cancelled, cancelled, False]


def test_an_error_in_one_job_ends_the_head_and_no_other_job(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head leaves four jobs in the queue; a second one watches them instead of submitting them."""
    monkeypatch.setattr(slurm, "POLL", 0.0)
    monkeypatch.setattr(heads, "POLL", 0.0)
    quiet = Quiet()
    backend = slurm.Slurm(replace(context(tmp_path, progress=quiet), cluster=Cluster(pack=1)), Queue(fake, every=0.0))
    folder = backend.folder(TODOS[1])

    def fails(*_: object) -> None:
        traces.note_stop(folder, traces.Stopped(why="error", line="no images in data/"))
        traces.forget_job(folder)
        fake.queued.pop("1_1", None)

    monkeypatch.setattr(backend, "wait", fails)
    with pytest.raises(UserError, match="no images in data/"):
        heads.oversee(TODOS, backend.context, backend)
    backend.close()
    assert quiet.notes == [
        "submitted jobs 1_0 to 1_4, 5 runs",
        "done CIFARResNet-8 seed 1: no images in data/",
        f"other runs in their jobs: 4; they go on, {heads.AGAIN}",
    ]
    second = head(fake, tmp_path)
    found = [second.claimed(second.folder(todo)) for todo in TODOS]
    assert found == ["job 1_0", None, "job 1_2", "job 1_3", "job 1_4"]
    assert not any(traces.stopped(second.folder(todo)) for todo in TODOS if todo != TODOS[1])


def test_a_run_that_is_over_no_longer_needs_its_job(fake: Fake, tmp_path: Path) -> None:
    backend = head(fake, tmp_path)
    noted = folders(backend)
    first, second, *_ = backend.start(TODOS)
    traces.sweep(noted[0])  # what a worker does once the record is written
    assert not first.alive() and second.alive()
    assert backend.claimed(noted[0]) is None


def test_a_job_that_went_leaves_its_runs_free(fake: Fake, tmp_path: Path) -> None:
    noted = folders(head(fake, tmp_path))
    head(fake, tmp_path).start(TODOS)
    second = head(fake, tmp_path)
    assert second.claimed(noted[4]) == "job 1_2"
    fake.end("1_2", "NODE_FAIL")
    assert second.claimed(noted[4]) is None
    (worker,) = started(second, TODOS[4:])
    assert worker.where == "job 2_0" and fake.arrays == 2


def test_what_submitit_left_goes_but_the_logs_stay(tmp_path: Path) -> None:
    for name in ("12_0_submitted.pkl", "12_0_0_result.pkl", "12_0_0_log.out", "12_submission.sh", "13_submitted.pkl"):
        (tmp_path / name).touch()
    (tmp_path / ".submission_file_ab.sh").symlink_to(tmp_path / "12_submission.sh")
    slurm_submit.tidy(tmp_path, {"13"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["12_0_0_log.out", "13_submitted.pkl"]


def test_what_the_user_reads_of_a_submission() -> None:
    assert slurm.said(["12"], 1, 4) == "submitted job 12, 1 run"
    assert slurm.said(["12_0", "12_1", "12_2"], 17, 2) == (
        "submitted jobs 12_0 to 12_2, 17 runs, at most 2 jobs at once"
    )
