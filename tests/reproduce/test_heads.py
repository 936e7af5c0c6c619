"""The head's loop with made-up workers, which do to the run's files what real ones would: what it makes of each end."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reproduce import traces
from reproduce.errors import Interrupted, UserError
from reproduce.run import attempt
from reproduce.run.backends import heads, seen
from reproduce.run.backends.base import Worker
from reproduce.run.backends.heads import DETACHED, oversee
from reproduce.run.runner import Todo
from reproduce.store import Store
from reproduce.traces import Stopped, Whereabouts
from tests.reproduce.hall_samples import record_of, spec_of
from tests.reproduce.run_samples import Quiet, context

SPEC = spec_of()
Ending = Callable[[Path, Todo], int | None]  # what a worker does at its end: to its folder, for its run; its exit code


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "LOOK", 0.0)
    monkeypatch.setattr(heads, "POLL", 0.0)


def finished(folder: Path, todo: Todo) -> int:
    Store(folder.parents[1]).write(record_of(todo[1], todo[2]))
    traces.sweep(folder)
    return attempt.DONE


def killed(_folder: Path, _todo: Todo) -> int:
    return -9


def ends(code: int, **stop: Any) -> Ending:
    def end(folder: Path, _todo: Todo) -> int:
        traces.note_stop(folder, Stopped(**stop))
        return code

    return end


class Made:
    """A worker that lives for some looks, then ends in its way; asked to, it ends as interrupted."""

    def __init__(self, todo: Todo, folder: Path, ending: Ending, looks: int) -> None:
        self.todo, self.folder, self.ending, self.looks = todo, folder, ending, looks
        self.code: int | None = None
        self.asked = self.ended = False

    def alive(self) -> bool:
        self.looks -= 1
        if self.looks > 0:
            return True
        if not self.ended:
            self.code, self.ended = self.ending(self.folder, self.todo), True
        return False

    def exit_code(self) -> int | None:
        return self.code

    def end(self) -> None:
        if not self.ended:
            self.asked, self.looks, self.ending = True, 0, ends(attempt.STOPPED, why="interrupted")

    def kill(self) -> None:
        self.looks, self.ending = 0, killed


class Backend:
    """Workers by seed; by default each is finished at its second look."""

    def __init__(self, store: Store, *, room: int = 2, looks: int = 2, detached: bool = False, **ways: Ending) -> None:
        self.store, self.room, self.looks, self.detached = store, room, looks, detached
        self.ways = {int(seed.removeprefix("seed")): way for seed, way in ways.items()}
        self.stall: float | None = None
        self.started: list[Made] = []
        self.most = 0
        self.full: Callable[[Todo, int], str | None] = lambda todo, others: None

    def start(self, todos: Sequence[Todo]) -> list[Worker]:
        made = [
            Made(todo, self.store.resume_dir(*todo[1:]), self.ways.pop(todo[2], finished), self.looks) for todo in todos
        ]
        self.started += made
        self.most = max(self.most, sum(not one.ended for one in self.started))
        return [*made]

    def claimed(self, folder: Path) -> str | None:
        return traces.holder(folder)

    def fits(self, todo: Todo, working: Sequence[Worker], starting: Sequence[Todo]) -> str | None:
        return self.full(todo, len(working) + len(starting))

    def wait(self, working: Sequence[Worker], seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


def todo_of(*seeds: int) -> list[Todo]:
    return [("row", SPEC, seed) for seed in seeds]


def seeds_of(done: list[Todo]) -> list[int]:
    return sorted(seed for _, _, seed in done)


def test_no_more_at_a_time_than_there_is_room_for(tmp_path: Path) -> None:
    backend, quiet = Backend(Store(tmp_path)), Quiet()
    assert seeds_of(oversee(todo_of(0, 1, 2, 3, 4), context(tmp_path, progress=quiet), backend)) == [0, 1, 2, 3, 4]
    assert backend.most == 2 and len(backend.started) == 5
    assert sum(note.startswith("done row seed ") for note in quiet.notes) == 5


def test_a_killed_one_is_said_in_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    quiet = Quiet()
    backend = Backend(Store(tmp_path), seed1=killed)
    assert seeds_of(oversee(todo_of(0, 1, 2), context(tmp_path, progress=quiet), backend)) == [0, 2]
    assert [note for note in quiet.notes if "killed" in note] == [f"done row seed 1: {heads.KILLED}"]


def test_a_cancelled_one_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    quiet = Quiet()
    backend = Backend(Store(tmp_path), seed0=ends(attempt.STOPPED, why="cancelled"))
    assert seeds_of(oversee(todo_of(0, 1), context(tmp_path, progress=quiet), backend)) == [1]
    assert any(note.startswith("done row seed 0: cancelled") for note in quiet.notes)
    again = oversee(todo_of(0), context(tmp_path), Backend(Store(tmp_path)))
    assert seeds_of(again) == [0]  # the same command once more


@pytest.mark.parametrize(
    ("stop", "kind", "words"),
    [
        ({"why": "error", "line": "no images"}, UserError, "no images"),
        ({"why": "error", "line": "No space left", "errno": errno.ENOSPC, "filename": "x"}, OSError, "No space left"),
        ({"why": "interrupted", "out_of_time": True}, Interrupted, "goes on from here"),
    ],
)
def test_what_stops_all(tmp_path: Path, stop: dict[str, Any], kind: type[BaseException], words: str) -> None:
    backend = Backend(Store(tmp_path), looks=50, seed0=ends(attempt.STOPPED, **stop))
    backend.looks = 50

    def start(todos: Sequence[Todo]) -> list[Worker]:
        made = Backend.start(backend, todos)
        backend.started[0].looks = 2
        return made

    backend.start = start  # type: ignore[method-assign]
    with pytest.raises(kind, match=words):
        oversee(todo_of(0, 1, 2), context(tmp_path), backend)
    assert [one.todo[2] for one in backend.started] == [0, 1] and backend.started[1].asked


def test_a_full_disk_where_not_even_that_could_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    backend = Backend(Store(tmp_path), seed0=lambda *_: attempt.UNSAID)
    monkeypatch.setattr(traces, "note_stop", full)
    with pytest.raises(OSError, match="No space left"):
        oversee(todo_of(0), context(tmp_path), backend)


def test_a_stop_asks_those_at_work_and_begins_no_other(tmp_path: Path) -> None:
    backend = Backend(Store(tmp_path), looks=10**6)
    with pytest.raises(Interrupted):
        oversee(todo_of(0, 1, 2), context(tmp_path, stop=lambda: bool(backend.started)), backend)
    assert len(backend.started) == 2 and all(one.asked for one in backend.started)


def test_jobs_of_a_queue_are_left_alone(tmp_path: Path) -> None:
    backend = Backend(Store(tmp_path), looks=10**6, detached=True)
    with pytest.raises(Interrupted, match="stopped watching") as caught:
        oversee(todo_of(0, 1), context(tmp_path, stop=lambda: bool(backend.started)), backend)
    assert str(caught.value) == DETACHED and not any(one.asked for one in backend.started)


@pytest.mark.parametrize(
    ("stop", "kind"),
    [({"line": "no images"}, UserError), ({"line": "No space left", "errno": errno.ENOSPC, "filename": "x"}, OSError)],
)
def test_an_error_in_one_job_is_said_at_once_and_the_other_jobs_go_on(
    tmp_path: Path, stop: dict[str, Any], kind: type[BaseException]
) -> None:
    error = ends(attempt.STOPPED, why="error", **stop)
    # Three end at one moment, two are at work for hours.
    backend, quiet = Backend(Store(tmp_path), room=5, detached=True, seed0=error, seed1=error, seed2=killed), Quiet()

    def start(todos: Sequence[Todo]) -> list[Worker]:
        made = Backend.start(backend, todos)
        for one in backend.started[3:]:
            one.looks = 10**6
        return made

    backend.start = start  # type: ignore[method-assign]
    with pytest.raises(kind, match=stop["line"]):
        oversee(todo_of(0, 1, 2, 3, 4), context(tmp_path, progress=quiet), backend)
    assert not any(one.asked or one.ended for one in backend.started[3:])
    others = f"other runs in their jobs: 2; they go on, {heads.AGAIN}"
    assert quiet.notes == [f"done row seed 0: {stop['line']}", others]


def test_a_run_that_another_head_is_at_is_waited_for(tmp_path: Path) -> None:
    store, quiet = Store(tmp_path), Quiet()
    folder = store.resume_dir(SPEC, 0)
    with ExitStack() as held:
        held.enter_context(traces.hold(folder))
        traces.tell(folder, Whereabouts(name="row seed 0", where="process 1", pid=1, machine="", stage="training"))

        class Ends(Backend):
            def wait(self, working: Sequence[Worker], seconds: float) -> None:
                self.turns = getattr(self, "turns", 0) + 1
                if self.turns == 3:
                    store.write(record_of(SPEC, 0))
                    held.close()

        backend = Ends(store)
        assert seeds_of(oversee(todo_of(0, 1), context(tmp_path, progress=quiet), backend)) == [0, 1]
    assert [one.todo[2] for one in backend.started] == [1]
    assert "row seed 0: under way in process 1; waits for it" in quiet.notes


def test_a_run_that_another_head_left_is_taken_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    held = ExitStack()
    held.enter_context(traces.hold(store.resume_dir(SPEC, 0)))

    class Leaves(Backend):
        def wait(self, working: Sequence[Worker], seconds: float) -> None:
            held.close()

    backend = Leaves(store)
    assert seeds_of(oversee(todo_of(0), context(tmp_path), backend)) == [0] and len(backend.started) == 1


@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_is_cancelled_is_taken_up_by_a_command_that_came_later(tmp_path: Path, before: bool) -> None:
    """Its worker may still be saving when the command is run again; one that was watching all the time takes note."""
    folder, quiet = Store(tmp_path).resume_dir(SPEC, 0), Quiet()
    held = ExitStack()
    held.enter_context(traces.hold(folder))
    if before:
        traces.note_stop(folder, Stopped(why="cancelled"))

    class Cancelled(Backend):
        def wait(self, working: Sequence[Worker], seconds: float) -> None:
            if not self.started:
                traces.note_stop(folder, Stopped(why="cancelled"))
                held.close()

    found = oversee(todo_of(0), context(tmp_path, progress=quiet), Cancelled(Store(tmp_path)))
    assert seeds_of(found) == ([0] if before else [])
    assert any("cancelled" in note for note in quiet.notes) is not before


def test_a_worker_that_came_too_late_is_no_loss(tmp_path: Path) -> None:
    backend = Backend(Store(tmp_path), seed0=lambda *_: attempt.BUSY)
    assert seeds_of(oversee(todo_of(0), context(tmp_path), backend)) == [0] and len(backend.started) == 2


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_what_failed_before_is_tried_again_and_what_fails_now_is_an_answer(tmp_path: Path, status: str) -> None:
    store = Store(tmp_path)
    store.write(record_of(SPEC, 0, status="failed"))

    def fails(folder: Path, todo: Todo) -> int:
        Store(folder.parents[1]).write(record_of(todo[1], todo[2], status=status))
        return attempt.DONE

    backend = Backend(store, seed0=fails)
    assert seeds_of(oversee(todo_of(0), context(tmp_path, retry=True), backend)) == [0] and len(backend.started) == 1
    assert [record.outcome.status for record in Store(tmp_path).records()] == [status]
    assert seeds_of(oversee(todo_of(0), context(tmp_path), backend)) == [0] and len(backend.started) == 1


@pytest.mark.parametrize(("told", "place"), [
    ({"stage": "training", "epoch": 3, "step": 17, "epochs": 9, "steps": 20}, "training, epoch 3, step 17"),
    ({"phase": "loading the images"}, "loading the images"),
    ({}, "at its start"),
    (None, "at its start"),
])  # fmt: skip
def test_a_worker_that_says_nothing_any_more_is_killed_and_its_run_recorded_as_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any] | None, place: str
) -> None:
    now = [0.0]
    monkeypatch.setattr(seen.time, "monotonic", lambda: now[0])

    class Hangs(Backend):
        def wait(self, working: Sequence[Worker], seconds: float) -> None:
            now[0] += 100.0

        def start(self, todos: Sequence[Todo]) -> list[Worker]:
            made = super().start(todos)
            if told is not None:
                at = Whereabouts(name="row", where="process 1", pid=1, machine="", **told)
                traces.tell(self.started[-1].folder, at)
            return made

    backend, quiet = Hangs(Store(tmp_path), looks=10**6), Quiet()
    backend.stall = 960.0
    assert seeds_of(oversee(todo_of(0), context(tmp_path, progress=quiet), backend)) == [0]
    (record,) = Store(tmp_path).records()
    assert record.outcome.status == "failed"
    assert record.outcome.reason == f"hung: no step finished for 15:00 ({place})"


def test_memory_for_one_alone_lets_them_go_one_after_the_other(tmp_path: Path) -> None:
    backend, quiet = Backend(Store(tmp_path), room=3), Quiet()
    backend.full = lambda todo, others: "too big; waits" if others else None
    assert seeds_of(oversee(todo_of(0, 1, 2), context(tmp_path, progress=quiet), backend)) == [0, 1, 2]
    assert backend.most == 1
    assert quiet.notes.count("row seed 1: too big; waits") == 1


def test_one_that_never_fits_is_begun_alone_with_a_warning(tmp_path: Path) -> None:
    backend, quiet = Backend(Store(tmp_path), room=3), Quiet()
    backend.full = lambda todo, others: "too big"
    assert seeds_of(oversee(todo_of(0, 1), context(tmp_path, progress=quiet), backend)) == [0, 1]
    assert backend.most == 1 and "row seed 0: too big" in quiet.notes


def test_warnings_of_a_worker_are_said_and_its_folder_then_goes(tmp_path: Path) -> None:
    def warns(folder: Path, todo: Todo) -> int:
        at = Whereabouts(name="row", where="process 1", pid=1, machine="", warnings=["a state was damaged"])
        with traces.hold(folder):
            traces.tell(folder, at)
            Store(folder.parents[1]).write(record_of(todo[1], todo[2]))
            (folder / traces.LOG).write_text("words")
            traces.sweep(folder, keep=(traces.LOG, traces.PROGRESS))
        return attempt.DONE

    backend, quiet = Backend(Store(tmp_path), seed0=warns), Quiet()
    oversee(todo_of(0), context(tmp_path, progress=quiet), backend)
    assert quiet.notes.count("row seed 0: a state was damaged") == 1
    assert not Store(tmp_path).resume_dir(SPEC, 0).exists()
