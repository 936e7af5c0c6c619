"""The machine's clock is set while a run is at work; a record comes from a newer version of the suite."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reproduce import traces
from reproduce.errors import Interrupted, UserError
from reproduce.report.onepage import overview
from reproduce.run.resume import Slot
from reproduce.run.runner import run
from reproduce.run.timing import certificate
from reproduce.stopping import Stop
from reproduce.store import Store, result_of
from tests.faults.recorder import CLOCKS, Recorder
from tests.reproduce.factory import spec_of
from tests.reproduce.run_samples import StopAt, context, learning, spec
from tests.reproduce.test_archive import timing

ROOT = Path(__file__).parents[2]
BOTH_STAGES = spec(learning())
# Who may look at the clock on the wall, and how often in its file: to note a moment, never to take a difference.
STAMPS = {
    "reproduce/traces.py": 1,
}


class Jumping:
    """A clock on the wall that somebody sets, by up to ten years, before every look at it."""

    def __init__(self) -> None:
        self.draw, self.looks = random.Random(0), 0

    def time(self) -> float:
        self.looks += 1
        return 1.7e9 + self.draw.uniform(-3e8, 3e8)

    def now(self, zone: Any = None) -> datetime:
        return datetime.fromtimestamp(self.time(), zone or UTC)


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Jumping:
    clock = Jumping()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(traces, "datetime", clock)
    return clock


def test_durations_stay_right(tmp_path: Path, jumping: Jumping, recorder: Recorder) -> None:
    """An uninterrupted run and one that is stopped and goes on, each step saved."""
    began, lost = time.perf_counter(), []
    whole = run(BOTH_STAGES, 0, context(tmp_path / "whole", save_every=0.0))
    with pytest.raises(Interrupted):
        run(BOTH_STAGES, 0, context(tmp_path / "cut", stop=StopAt(11)))
    cut = run(BOTH_STAGES, 0, context(tmp_path / "cut"))
    passed = time.perf_counter() - began
    for name, record in (("whole", whole), ("cut", cut)):
        assert record.clock.size_learning is not None
        stages = (record.clock.size_learning, record.clock.training)
        seconds = [one for stage in stages for one in (*stage.epoch_seconds, *stage.evaluation_seconds)]
        if len(seconds) < 6 or min(seconds) <= 0 or sum(seconds) > passed:
            lost.append((name, seconds))
    assert jumping.looks > 4 and result_of(whole) == result_of(cut)
    recorder.tried(CLOCKS, "a clock that jumps by years at every look: seconds of a run", jumping.looks, lost)


def test_deadlines_saves_and_timings_do_not_look_at_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumping: Jumping, recorder: Recorder
) -> None:
    stop, slot = Stop(budget=3600.0), Slot(tmp_path / "state.pt", every=600.0)
    lost = [n for n in range(100) if stop() or slot.due()]
    with certificate.Watch(torch.device("cpu"), 1) as watch:
        monkeypatch.undo()
    seconds = watch.certificate().seconds
    if seconds is None or not 0 <= seconds < 600:
        lost.append(-1)
    recorder.tried(CLOCKS, "a clock that jumps: time budget, saving, seconds of a timing", 201, lost)


@pytest.mark.parametrize(("measured", "shown"), [(12.5, 12.5), (None, 0.0)])
def test_compute_of_a_timing_whose_clock_was_set_back(measured: float | None, shown: float) -> None:
    one = timing()
    back = (datetime.fromisoformat(one.started) - timedelta(hours=5)).isoformat()
    seen = one.certificate.model_copy(update={"seconds": measured})
    sources: Any = SimpleNamespace(timings=[one.model_copy(update={"finished": back, "certificate": seen})])
    assert [spent.seconds for spent in overview._of_timings(sources)] == [shown]


def test_differences_are_taken_by_clocks_that_nobody_sets(recorder: Recorder) -> None:
    """Every look at the clock on the wall, in all code that computes, is one of the known ones that note a moment."""
    found: dict[str, int] = {}
    files = [file for package in ("effconv", "baselines", "reproduce") for file in (ROOT / package).rglob("*.py")]
    for file in files:
        looks = sum(is_look(node) for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        if looks:
            found[file.relative_to(ROOT).as_posix()] = looks
    recorder.tried(CLOCKS, "files whose code was searched for looks at the wall clock", len(files),
                   sorted(found.items() ^ STAMPS.items()))  # fmt: skip


def is_look(node: ast.AST) -> bool:
    """Whether this is a call such as `time.time()` or `datetime.now()`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    return (of, node.func.attr) in {
        ("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"),
        ("date", "today"),
    }  # fmt: skip


def test_a_record_of_a_newer_version_stays(tmp_path: Path, recorder: Recorder) -> None:
    """The run is refused before it begins, with a line that names the mend."""
    run(BOTH_STAGES, 0, context(tmp_path))
    (path,) = (tmp_path / "runs").rglob("*.json")
    newer = json.loads(path.read_text()) | {"schema_version": 2, "spec": {"unheard": "of"}}
    path.write_text(json.dumps(newer))
    before = path.read_bytes()
    with pytest.raises(UserError, match="newer version; update this checkout") as caught:
        run(BOTH_STAGES, 0, context(tmp_path, retry=True))
    lost = [] if path.read_bytes() == before and "\n" not in str(caught.value) else [path.name]
    recorder.tried(CLOCKS, "a record of a newer version where a run would write", 1, lost)


@pytest.mark.slow
def test_a_command_leaves_a_newer_record_alone(tmp_path: Path, recorder: Recorder) -> None:
    path = Store(tmp_path).path(spec_of("EffConv-20 0.66M", protocol="tiny", source="digits"), 0)
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 99, "spec": {}, "metrics": {}, "seed": 0}')
    row = ["table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--seeds", "0"]
    command = [sys.executable, "-m", "reproduce", *row, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, cwd=ROOT)
    lines = [line for line in done.stderr.splitlines() if path.name in line]
    right = done.returncode == 1 and "update this checkout" in lines[0] and "Traceback" not in done.stderr
    lost = [] if right and path.read_text().startswith('{"schema_version": 99,') else [done.stderr]
    recorder.tried(CLOCKS, "a command whose run has a record of a newer version", 1, lost)
