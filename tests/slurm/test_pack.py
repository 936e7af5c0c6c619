"""What a job does when it is told to end, without a SLURM."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from reproduce import traces
from reproduce.run import attempt
from reproduce.run.backends import slurm_job, slurm_queue
from reproduce.run.backends.slurm_job import Pack
from reproduce.stopping import Stop
from tests.reproduce.run_samples import context, spec

JOB, NAME = "12_3", "reproduce-0a1b_3"


class Slurm:
    """Says what state the job is in; notes whether it was put back into the queue."""

    def __init__(self, state: str) -> None:
        self.state, self.requeued = state, False

    def state_of(self, *_: object) -> str:
        return self.state

    def requeue(self, job: str) -> None:
        assert job == JOB
        self.requeued = True


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Three runs: one was interrupted, one has not begun (its head knew no id yet), one is over."""
    found = Pack([("CIFARResNet-8", spec(), seed) for seed in range(3)], context(tmp_path), NAME)
    first, second, third = map(found.folder, found.todos)
    traces.note_job(first, traces.Job(job=JOB, runs=3))
    traces.note_stop(first, traces.Stopped(why="interrupted"))
    traces.note_job(second, traces.Job(job=NAME, runs=3))
    assert not third.exists()
    return found


def leave(pack: Pack, state: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the job went back into the queue."""
    cluster = Slurm(state)
    monkeypatch.setattr(slurm_queue, "state_of", cluster.state_of)
    monkeypatch.setattr(slurm_queue, "requeue", cluster.requeue)
    with pytest.raises(SystemExit):
        pack.leave(JOB)
    return cluster.requeued


@pytest.mark.parametrize("state", ["RUNNING", "TIMEOUT", "PREEMPTED", ""])
def test_what_was_not_cancelled_goes_on_by_itself(pack: Pack, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    assert leave(pack, state, monkeypatch)
    folders = [pack.folder(todo) for todo in pack.todos]
    assert [traces.stopped(folder) for folder in folders] == [None] * 3
    assert [pack.holds(folder, JOB) for folder in folders] == [True, True, False]


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED"])
def test_a_job_that_slurm_has_requeued_is_left_alone(pack: Pack, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    assert not leave(pack, state, monkeypatch)


def test_scancel_cancels_all_that_is_unfinished(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not leave(pack, "CANCELLED", monkeypatch)
    folders = [pack.folder(todo) for todo in pack.todos]
    assert [traces.cancelled(folder) for folder in folders] == [True, True, False]
    assert [traces.job(folder) for folder in folders] == [None] * 3
    assert not folders[2].exists()


def test_a_run_that_was_cancelled_alone_is_passed_over(pack: Pack) -> None:
    first, second, _ = map(pack.folder, pack.todos)
    traces.note_stop(first, traces.Stopped(why="cancelled"))
    assert not pack.holds(first, JOB) and pack.holds(second, JOB)


def test_a_run_that_was_cancelled_needs_its_job_no_longer(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reproduce cancel` marked the runs and then ended the job: it may end at once, and so does its head's watch."""
    folders = [pack.folder(todo) for todo in pack.todos]
    for folder in folders[:2]:
        traces.note_stop(folder, traces.Stopped(why="cancelled"))
    monkeypatch.setattr(slurm_queue, "requeue", lambda _: pytest.fail("it goes on"))
    pack.leave(JOB)
    assert [traces.job(folder) for folder in folders] == [None] * 3
    assert [traces.cancelled(folder) for folder in folders] == [True, True, False]


def test_a_job_whose_runs_are_over_just_ends(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Slurm("RUNNING")
    monkeypatch.setattr(slurm_queue, "requeue", cluster.requeue)
    for todo in pack.todos:
        traces.sweep(pack.folder(todo))
    pack.leave(JOB)
    assert not cluster.requeued


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3"),
        ({"SLURM_JOB_ID": "15"}, "15"),
    ],
)
def test_the_id_of_a_job(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert slurm_job.job_id() == job


def test_a_run_that_holds_the_interpreter_is_recorded_as_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread of its process gets a turn, so the job writes the record, and goes on with the next run."""
    begun: list[int] = []

    def hang(_spec: object, seed: int, *_: object, **__: object) -> None:
        ctypes.PyDLL(None).sleep(600)

    def start(todo: tuple[str, object, int], *given: object) -> object:
        begun.append(todo[2])
        return real(todo, *given)  # type: ignore[arg-type]

    real = slurm_job.start
    monkeypatch.setattr(attempt, "carry", hang)
    monkeypatch.setattr(slurm_job, "start", start)
    found = Pack([("CIFARResNet-8", spec(), seed) for seed in range(2)], context(tmp_path, stall_limit=0.5), NAME)
    for folder in map(found.folder, found.todos):
        traces.note_job(folder, traces.Job(job=JOB, runs=2))
    for todo in found.todos:
        found.carry(todo, JOB, Stop())
    assert begun == [0, 1]
    for _, one, seed in found.todos:
        record = found.context.store.find(one, seed)
        assert record is not None and record.outcome.status == "failed"
        assert record.outcome.reason.startswith("hung: no step finished for 0:00")
        assert traces.job(found.context.store.resume_dir(one, seed)) is None
