"""The local backend with real processes: records as inline, stops, kills, a head that dies, two heads, a hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproduce import overseeing, traces
from reproduce.errors import Interrupted, UserError
from reproduce.records import RunRecord
from reproduce.run.runner import run, run_all
from reproduce.store import Store
from tests.reproduce.run_samples import Quiet, content, context, learning, spec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LONG = spec(learning(epochs=2000))  # minutes; saved every 120 s and at the end of an epoch
LIMIT = 120.0  # seconds for what takes a few


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Waits for something, which is named."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"not within {LIMIT:.0f} s: {what}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(spec(learning()), 0, context(tmp_path_factory.mktemp("whole")))


def folder(results: Path, seed: int = 0) -> Path:
    return Store(results).resume_dir(LONG, seed)


HEAD = """
import os, signal, sys
from pathlib import Path
from reproduce.errors import Interrupted
from reproduce.run.progress import Progress
from reproduce.run.runner import run_all
from reproduce.stopping import Stop
from tests.reproduce.run_samples import context, learning, spec
if __name__ == "__main__":
    results, epochs, seeds, jobs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    todo = [("row", spec(learning(epochs=epochs)), seed) for seed in range(seeds)]
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: setattr(stop, "signalled", True))
    given = context(results, backend="local", jobs=jobs, progress=Progress(), stop=stop,
                    stall_limit=float(os.environ.get("STALL", "600")))
    try:
        print(len(run_all(todo, given)), "records", flush=True)
    except Interrupted as stopped:
        print(stopped, flush=True)
"""


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts heads in processes of their own; at the end, whatever they left at work is ended."""
    heads: list[subprocess.Popen[bytes]] = []

    def start(
        results: Path, *, epochs: int, seeds: int = 1, jobs: int = 1, **environment: str
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", HEAD, str(results), str(epochs), str(seeds), str(jobs)]
        with (tmp_path / f"head{len(heads)}").open("wb") as out:
            given = {**os.environ, **environment}
            heads.append(subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=given))
        return heads[-1]

    yield start
    for one in heads:
        one.kill()
        one.wait()
    for place in tmp_path.glob("*/.resume/*"):
        at = traces.whereabouts(place)
        if at is not None and traces.held(place):
            os.kill(at.pid, signal.SIGKILL)


def said(tmp_path: Path, number: int = 0) -> str:
    return (tmp_path / f"head{number}").read_text()


def test_side_by_side_equals_inline(whole: RunRecord, tmp_path: Path) -> None:
    quiet = Quiet()
    todo = [("a", spec(learning()), 0), ("b", spec(), 0), ("c", spec(learning()), 0)]
    records = run_all(todo, context(tmp_path, backend="local", jobs=2, progress=quiet))
    assert content(records[0]) == content(records[2]) == content(whole)
    assert content(records[1]) == content(run(spec(), 0, context(tmp_path / "inline")))
    assert all(record.clock.shared_device for record in records)
    assert sum(note.startswith("done ") for note in quiet.notes) == 2
    assert not list((tmp_path / ".resume").iterdir()) and not list(tmp_path.rglob("*.tmp"))


def test_a_stop_saves_all_that_are_under_way(tmp_path: Path) -> None:
    started = Quiet()
    given = context(tmp_path, backend="local", jobs=2, progress=started, stop=lambda: len(started.seen) == 2)
    with pytest.raises(Interrupted):
        run_all([("a", LONG, 0), ("b", LONG, 1), ("c", LONG, 2)], given)
    assert Store(tmp_path).records() == []
    assert all((folder(tmp_path, seed) / "size_learning.pt").exists() for seed in (0, 1))
    assert not folder(tmp_path, 2).exists()
    stopped = traces.stopped(folder(tmp_path))
    assert stopped is not None and stopped.why == "interrupted"


def test_a_users_error_stops_all(tmp_path: Path) -> None:
    bad = spec(learning(budget=9_000_000))
    with pytest.raises(UserError) as caught:
        run_all([("a", bad, 0), ("b", LONG, 1)], context(tmp_path, backend="local", jobs=2, progress=Quiet()))
    assert "\n" not in str(caught.value) and Store(tmp_path).records() == []
    assert not traces.held(folder(tmp_path, 1))


def test_a_killed_worker_is_said_and_the_others_go_on(whole: RunRecord, tmp_path: Path) -> None:
    quiet = Quiet()

    def kill() -> bool:
        at = traces.whereabouts(folder(tmp_path, 7))
        if at is not None and at.stage and traces.held(folder(tmp_path, 7)):
            os.kill(at.pid, signal.SIGKILL)
        return False

    todo = [("a", LONG, 7), ("b", spec(learning()), 0)]
    (record,) = run_all(todo, context(tmp_path, backend="local", jobs=2, progress=quiet, stop=kill))
    assert content(record) == content(whole)
    (line,) = [note for note in quiet.notes if "was killed, perhaps for want of memory" in note]
    assert line.startswith("done a seed 7") and not Store(tmp_path).find(LONG, 7)


def test_workers_outlive_their_head_and_the_next_one_waits_for_them(head: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = head(results, epochs=100)
    store, long = Store(results), spec(learning(epochs=100))
    place = store.resume_dir(long, 0)
    at = until("a worker takes steps", lambda: (seen := traces.whereabouts(place)) and seen.stage and seen)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert traces.held(place)
    second = head(results, epochs=100)
    until("the second head finds it", lambda: "under way in" in said(tmp_path, 1))
    assert second.wait(LIMIT) == 0 and "1 records" in said(tmp_path, 1)
    record = store.find(long, 0)
    assert record is not None and record.clock.resumed == 0  # by the first head's worker, in one go
    assert f"under way in process {at.pid}" in said(tmp_path, 1)


def test_two_heads_at_once_do_each_run_once(head: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    both = [head(results, epochs=2, seeds=6, jobs=2) for _ in range(2)]
    assert [one.wait(LIMIT) for one in both] == [0, 0]
    assert "6 records" in said(tmp_path, 0) and "6 records" in said(tmp_path, 1)
    records = Store(results).records()
    assert len(records) == 6 and all(record.clock.resumed == 0 for record in records)


def test_sigterm_of_the_head_ends_its_workers(head: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    one = head(results, epochs=2000, seeds=2, jobs=2)
    places = [folder(results, seed) for seed in (0, 1)]
    until("both take steps", lambda: all((at := traces.whereabouts(place)) and at.stage for place in places))
    one.send_signal(signal.SIGTERM)
    assert one.wait(LIMIT) == 0 and "the same command goes on from here" in said(tmp_path)
    assert not any(traces.held(place) for place in places)
    assert all((place / "size_learning.pt").exists() for place in places)


HANGS = """
import os
if os.environ.get("HANG"):
    import ctypes, time
    from reproduce import phases
    def hang(name):
        if name == "training":
            # The second one does not let go of the interpreter.
            time.sleep(10**6) if os.environ["HANG"] == "idle" else ctypes.PyDLL(None).sleep(10**6)
    phases.listen(hang)
"""


@pytest.mark.parametrize("kind", ["idle", "busy"])
def test_a_run_that_hangs_is_recorded_and_goes_on_from_its_state_when_it_is_tried_again(
    head: Any, tmp_path: Path, whole: RunRecord, kind: str
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path/sitecustomize.py").write_text(HANGS)
    results, long = tmp_path / "results", spec(learning())
    path = os.pathsep.join((str(tmp_path / "path"), os.environ["PYTHONPATH"]))
    one = head(results, epochs=2, STALL="3", HANG=kind, PYTHONPATH=path)
    assert one.wait(LIMIT) == 0 and "1 records" in said(tmp_path)
    record = Store(results).find(long, 0)
    assert record is not None and record.outcome.status == "failed"
    assert record.outcome.reason == "hung: no step finished for 0:03 (sizes, epoch 2, step 4)"
    assert record.machine != "unknown" and record.data == whole.data
    place = Store(results).resume_dir(long, 0)
    assert (place / "sizes.json").exists()
    assert any("in hang" in line for line in traces.last_lines(place, 100))  # where it stood
    again = run(long, 0, context(results, retry=True))
    assert content(again) == content(whole) and again.clock.resumed == 1


def test_a_cancelled_run_ends_and_goes_on_when_the_command_is_given_again(head: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    one = head(results, epochs=40)
    place = Store(results).resume_dir(spec(learning(epochs=40)), 0)
    until("a worker takes steps", lambda: (at := traces.whereabouts(place)) and at.stage)
    overseeing.cancel(results, [place.name], out=lambda _: None)
    assert one.wait(LIMIT) == 0 and "0 records" in said(tmp_path)
    assert "cancelled; the same command goes on with it" in said(tmp_path)
    assert (place / "size_learning.pt").exists() and traces.cancelled(place)
    assert head(results, epochs=40).wait(LIMIT) == 0 and "1 records" in said(tmp_path, 1)


def test_the_command_runs_from_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REPRODUCE_BACKEND": "local"}
    line = ["table2", "--protocol", "tiny", "--rows", "control: ResNet-20", "--seeds", "0,1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", *line], cwd=tmp_path, env=environment, capture_output=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(Store(tmp_path / "build/tiny").records()) == 2


@pytest.mark.slow
def test_the_server_that_forks_workers_ends_without_a_word() -> None:
    """It ends after its command: what it said would stand below a user's prompt."""
    command = [sys.executable, "-c", "import reproduce.run.preloaded"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
