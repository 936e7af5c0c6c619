"""status, cancel, logs and clean: what they make of a run's files, and what they leave alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reproduce import overseeing, traces, underway
from reproduce.cli import main
from reproduce.errors import UsageError
from reproduce.store import Store
from reproduce.traces import Job, Stopped, Whereabouts
from tests.reproduce.hall_samples import record_of, spec_of

SPEC = spec_of()


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def at(**changes: Any) -> Whereabouts:
    values: dict[str, Any] = {"name": "EffConv-20 0.66M seed 0", "where": "process 12", "pid": 12, "machine": "here"}
    return Whereabouts(**(values | changes))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Of five runs: 0 running, 1 failed, 2 cancelled, 3 a job that has not begun, 4 interrupted; 5 is finished."""
    store = Store(tmp_path)
    folders = [store.resume_dir(SPEC, seed) for seed in range(5)]
    for folder in folders:
        with traces.hold(folder):
            (folder / "training.pt").write_bytes(b"weights" * 1000)
    place = {"stage": "training", "epoch": 3, "epochs": 350, "step": 17, "steps": 98}
    traces.tell(folders[0], at(**place, seconds_left=3900.0, idle=70.0))
    store.write(record_of(SPEC, 1, status="failed"))
    (folders[1] / traces.LOG).write_text("".join(f"line {number}\n" for number in range(20)))
    traces.sweep(folders[1], keep=(traces.LOG,))
    traces.note_stop(folders[2], Stopped(why="cancelled"))
    traces.note_job(folders[3], Job(job="123_4"))
    traces.note_stop(folders[4], Stopped(why="interrupted"))
    store.write(record_of(SPEC, 5))
    return tmp_path


def folder(results: Path, seed: int) -> Path:
    return Store(results).resume_dir(SPEC, seed)


def test_status_says_where_each_run_stands(results: Path) -> None:
    with traces.hold(folder(results, 0)):
        entry = json.loads(reproduce("status", "--results", str(results), "--json").stdout)
        text = reproduce("status", "--results", str(results)).stdout
    found = {state: [one["run_id"][-2:] for one in entries] for state, entries in entry["runs"].items()}
    assert found == {
        "running": ["s0"], "failed": ["s1"], "cancelled": ["s2"], "waiting": ["s3"], "unfinished": ["s4"],
    }  # fmt: skip
    assert entry["unfinished"] == [SPEC.run_id(4)]
    assert entry["runs"]["running"][0]["seconds_left"] == 3900.0
    where = "process 12, training epoch 3 of 350, step 17 of 98, 1:05:00 left, no step for 1:10"
    assert f"running: EffConv-20 0.66M seed 0 ({SPEC.run_id(0)}): {where}" in text
    assert f"waiting: {SPEC.run_id(3)}: job 123_4 has not begun" in text
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("failed: "))
    assert lines[start].endswith(f"({SPEC.run_id(1)}): made up") or "made up" in lines[start]
    assert lines[start + 1 : start + 6] == [f"    line {number}" for number in range(15, 20)]


def test_the_lock_decides_and_no_time_stamp(results: Path) -> None:
    assert not underway.runs(results, [])["running"]
    with traces.hold(folder(results, 4)):
        (running,) = underway.runs(results, [])["running"]
    assert running["run_id"] == SPEC.run_id(4) and running["where"] is None


def test_a_failed_run_that_is_tried_again_is_running(results: Path) -> None:
    with traces.hold(folder(results, 1)):
        found = underway.runs(results, Store(results).records())
    assert [one["run_id"] for one in found["running"]] == [SPEC.run_id(1)] and found["failed"] == []


def test_watch_shows_what_changes_until_ctrl_c(results: Path) -> None:
    said: list[str] = []
    waits = iter([lambda: None, lambda: Store(results).write(record_of(SPEC, 6))])

    def pause(_seconds: float) -> None:
        then = next(waits, None)
        if then is None:
            raise KeyboardInterrupt
        then()

    overseeing.watch(results, out=said.append, terminal=False, pause=pause)
    assert [view.splitlines()[0] for view in said] == [
        "2 records; 0 running, 1 waiting, 1 failed, 1 cancelled, 2 unfinished",
        "3 records; 0 running, 1 waiting, 1 failed, 1 cancelled, 2 unfinished",
    ]
    overseeing.watch(results, out=pytest.fail, terminal=True, pause=lambda _: pause(0.0))


def test_cancel_marks_the_run_and_ends_a_job_of_its_own(results: Path) -> None:
    ended: list[str] = []
    said: list[str] = []
    traces.note_job(folder(results, 4), Job(job="125_0", runs=3))
    with traces.hold(folder(results, 0)):
        ids = [SPEC.run_id(seed) for seed in (0, 1, 3, 4)]
        overseeing.cancel(results, ids, out=said.append, scancel=ended.append)
    assert ended == ["123_4"]  # the other job holds more runs
    assert [traces.cancelled(folder(results, seed)) for seed in range(5)] == [True, False, True, True, True]
    assert "process 12 saves its state and ends" in said[0] and said[1].endswith("has ended already")


def test_a_beginning_of_an_id_is_enough_if_it_is_one_runs(results: Path) -> None:
    assert underway.find(results, SPEC.run_id(2)) == folder(results, 2)
    with pytest.raises(UsageError, match="5 runs' ids begin with"):
        underway.find(results, SPEC.run_id(0)[:8])
    other = folder(results, 0).with_name("ffff000011112222-s0")
    other.mkdir()
    assert underway.find(results, "ffff") == other
    result = reproduce("cancel", "0123nothing", "--results", str(results))
    assert result.exit_code == 2 and "`reproduce status` lists them" in result.stderr
    assert not traces.cancelled(folder(results, 0))


def test_logs(results: Path) -> None:
    shown = reproduce("logs", SPEC.run_id(1), "--follow", "--results", str(results))
    assert shown.stdout.splitlines() == [f"line {number}" for number in range(20)] and shown.exit_code == 0
    missing = reproduce("logs", SPEC.run_id(4), "--results", str(results))
    assert missing.exit_code == 1 and "has no log" in missing.stderr


def test_logs_follow_until_nobody_is_at_the_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, said = folder(results, 1), list[str]()
    hold = traces.hold(place)
    hold.__enter__()

    def sleep(_seconds: float) -> None:
        with (place / traces.LOG).open("a") as file:
            file.write("the end\n")
        hold.__exit__(None, None, None)

    monkeypatch.setattr(overseeing.time, "sleep", sleep)
    overseeing.log(results, SPEC.run_id(1), out=said.append, follow=True)
    assert "".join(said).endswith("line 19\nthe end\n")


def test_clean_removes_saved_state_of_runs_that_nobody_is_at(results: Path) -> None:
    cache = results / "cache"
    (cache / "decoded/x").mkdir(parents=True)
    (cache / "decoded/x/images.npy").write_bytes(b"0" * 5_000_000)
    (cache / "mine").write_text("kept")
    records = {path: path.read_bytes() for path in (results / "runs").rglob("*.json")}
    line = ("clean", "--results", str(results), "--cache", str(cache))
    with traces.hold(folder(results, 0)):
        before = sorted(path for path in results.rglob("*"))
        tried = reproduce(*line, "--dry-run")
        assert sorted(path for path in results.rglob("*")) == before
        done = reproduce(*line)
    assert done.stdout == tried.stdout.replace("would remove", "removed").replace("would free", "freed")
    assert "saved state of " + SPEC.run_id(4) in done.stdout and ", 7.1 kB" in done.stdout
    assert "5.0 MB" in done.stdout and "freed 5.0 MB" in done.stdout
    assert f"kept: {SPEC.run_id(0)}: under way in process 12" in done.stdout
    assert f"kept: {SPEC.run_id(3)}: job 123_4 is to begin it" in done.stdout
    assert [folder(results, seed).exists() for seed in range(5)] == [True, False, False, True, False]
    assert (cache / "mine").exists() and not (cache / "decoded").exists()
    assert {path: path.read_bytes() for path in (results / "runs").rglob("*.json")} == records


def test_a_lock_whose_folder_was_cleared_holds_off_nobody(tmp_path: Path) -> None:
    place = tmp_path / "run"
    with traces.hold(place):
        assert traces.held(place)
        with pytest.raises(traces.Busy), traces.hold(place, patience=0.0):
            pass
        traces.sweep(place)
        assert not traces.held(place)
        with traces.hold(place, patience=0.0):
            assert traces.held(place)


def test_a_lock_whose_file_goes_while_it_is_taken_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real, gone = tmp_path / "run", traces.fcntl.flock, list[int]()

    def flock(file: int, how: int) -> None:
        if not gone:
            gone.append(file)
            shutil.rmtree(place)  # the run before has its record
        real(file, how)

    monkeypatch.setattr(traces.fcntl, "flock", flock)
    with traces.hold(place):
        assert gone and traces.held(place)


def test_damaged_traces_count_as_missing(tmp_path: Path) -> None:
    for name in (traces.PROGRESS, traces.STOP, traces.JOB):
        (tmp_path / name).write_bytes(b'{"why": "for')
    assert traces.whereabouts(tmp_path) is traces.stopped(tmp_path) is traces.job(tmp_path) is None
    assert not traces.cancelled(tmp_path)
