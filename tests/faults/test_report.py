"""The report of faults: every line counts once, and nothing that failed or was skipped is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import recorder
from tests.faults.recorder import HOSTILE, POWER, Recorder
from tools import fault_report


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lines"
    monkeypatch.setenv("FAULT_REPORT", str(path))
    return path


def test_lines_become_rows_and_a_repeated_test_counts_once(told: Path) -> None:
    for tries in (3, 5):
        Recorder("a").tried(POWER, "a cut", tries)
    Recorder("b").tried(POWER, "a cut", 2, note="some")
    Recorder("b").tried(HOSTILE, "code", 1)
    page = fault_report.page(fault_report.read(told), full=False)
    assert "| a cut (some) | 7 | 0 |" in page and "| code | 1 | 0 |" in page and "| **all** | | | 8 | 0 |" in page
    assert page.count("not tried") == len(recorder.PROMISES) - 2 and "No test failed" in page


def test_what_is_lost_fails_the_test_and_stands_in_the_report(told: Path) -> None:
    with pytest.raises(AssertionError, match="1 of 4 lost"):
        Recorder("a").tried(POWER, "a cut", 4, ["x"])
    recorder.heard("tests/faults/test_disk.py::test_full[claim]", "skipped", "only root may mount")
    recorder.heard("tests/faults/test_disk.py::test_full[write]", "failed")
    recorder.heard("tests/reproduce/test_archive.py::test_timings", "failed")  # has no part in it
    page = fault_report.page(fault_report.read(told), full=True)
    assert "| a cut | 4 | 1 |" in page and "every count" in page
    assert "[claim] skipped: only root may mount" in page and "[write] failed" in page and "test_timings" not in page


def test_tests_elsewhere_that_count_are_there() -> None:
    root = Path(__file__).parents[1]
    for name, fault, *_ in recorder.COUNTED:
        file, _, function = name.partition("::")
        assert f"def {function}(" in (root / file).read_text(encoding="utf-8"), name
        assert fault in recorder.PROMISES


def test_a_passed_test_elsewhere_counts_with_its_tries(told: Path) -> None:
    name, fault, case, tries = recorder.COUNTED[0]
    for reader in ("idx", "png"):
        recorder.heard(f"tests/{name}[{reader}]", "passed")
    assert f"| {case} | {2 * tries:,} | 0 |" in fault_report.page(fault_report.read(told), full=False)
    assert fault == HOSTILE


@pytest.mark.parametrize(("outcome", "row"), [("failed", "| 1 | 1 |"), ("skipped", "not tried")])
def test_a_test_elsewhere_that_did_not_pass_is_named(told: Path, outcome: str, row: str) -> None:
    name, _, case, tries = recorder.COUNTED[1]
    assert tries == 1
    recorder.heard(f"tests/{name}", outcome, "why")
    page = fault_report.page(fault_report.read(told), full=True)
    assert f"- tests/{name} {outcome}: why" in page and "No test failed" not in page
    assert (f"| {case} {row}" if outcome == "failed" else row) in page
