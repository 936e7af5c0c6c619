"""What holds for every test: one thread, the checkout importable from any folder, the same examples each time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# Before anything imports torch, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["REPRODUCE_BACKEND"] = "inline"  # unless a test asks for another: what it replaces here is replaced there
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

# Times vary with whatever else the machine does, so no example has a deadline.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadgroup` for tests that one process is to run, in turn. Under pytest 9.2, pytest-xdist 3.8 passes over
    their `xdist_group` mark without a word (its issue 1386); the file's name does not get lost."""
    from xdist.scheduler import LoadGroupScheduling

    class Scheduler(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if nodeid.startswith("tests/slurm/test_on_slurm.py::") else super()._split_scope(nodeid)

    return Scheduler(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """For the report of faults: tests all over the suite count. Not twice, where several processes run the tests."""
    told = report.when == "call" or report.outcome != "passed"
    if "FAULT_REPORT" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ and told:
        from tests.faults import recorder

        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        recorder.heard(report.nodeid, report.outcome, reason)
