"""The script for a day with a GPU: a point that fails or hangs does not keep the next from running."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu_plan
from benchmarks.gpu_plan import Point
from reproduce.store import Store
from tests.reproduce.hall_samples import record_of, spec_of


def test_every_point_has_its_turn_and_the_packing_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "results").write(record_of(spec_of()))
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{gpu_plan.ROOT}")
    monkeypatch.setattr(gpu_plan, "LEAST", 0.0)
    several = [
        Point(name="fails", arguments=("no_such_module",)),
        Point(name="hangs", arguments=("sleeper",), most=1.0),
        Point(name="works", arguments=("reproduce", "--version")),
    ]
    monkeypatch.setattr(gpu_plan, "points", lambda *_, **__: several)
    line = ["gpu_plan", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results"), "--minutes", "2"]
    monkeypatch.setattr(sys, "argv", line)
    assert gpu_plan.main() == 1
    ends = [line.split("  ")[0] + line[22:42].rstrip() for line in capfd.readouterr().out.splitlines()[-4:]]
    assert ends == ["fails  exit 1", "hangs  stopped, exit -15", "works  exit 0", "export  exit 0"]
    assert "FORMAT" in zipfile.ZipFile(tmp_path / "out/results.zip").namelist()


def test_what_has_no_time_left_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_plan", "--out", str(tmp_path), "--tiny", "--minutes", "0.2"])
    ran: list[str] = []

    def run(point: Point, seconds: float) -> tuple[str, float]:
        ran.append(point.name)
        return "exit 0", 0.0

    monkeypatch.setattr(gpu_plan, "run", run)
    assert gpu_plan.main() == 1 and ran == ["export"]


def test_a_timed_point_is_given_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: object) -> None:
            asked.append(command)

        def wait(self, seconds: float) -> int:
            assert seconds == 40.0
            return 0

    monkeypatch.setattr(gpu_plan.subprocess, "Popen", Process)
    assert gpu_plan.run(Point(name="x", arguments=("reproduce", "time"), budgeted=True), 30.0)[0] == "exit 0"
    assert asked[0][1:] == ["-m", "reproduce", "time", "--time-budget", "30s"]


@pytest.mark.slow
def test_the_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_plan", "--out", str(tmp_path), "--tiny"])
    gpu_plan.main()
    names = zipfile.ZipFile(tmp_path / "results.zip").namelist()
    assert any(name.startswith("machines/") for name in names) and (tmp_path / "ceilings.json").exists()
