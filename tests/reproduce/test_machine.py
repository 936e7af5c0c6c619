"""The description of a machine names no host, user or path; the settings of a run are undone after it."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reproduce.errors import UserError
from reproduce.run import machine


def huge_pages_on_request() -> bool:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return enabled.exists() and "[madvise]" in enabled.read_text()


def test_the_description_is_plain_and_private() -> None:
    described = machine.description()
    text = json.dumps(described)
    assert described["torch"] == torch.__version__ and described["cores"] >= 1 and described["cpu"]
    assert described == machine.description()
    assert "/" not in text and platform.node() not in described.values()
    assert getpass.getuser() not in described.values()


def test_settings_hold_inside_and_are_undone_outside() -> None:
    torch.set_num_threads(2)
    before = torch.backends.cudnn.allow_tf32
    with machine.settings(1):
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cudnn.benchmark
    assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.allow_tf32 == before


def test_devices() -> None:
    assert machine.choose_device("cpu").type == "cpu"
    assert machine.choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="auto, cpu or cuda"):
        machine.choose_device("tpu")
    with pytest.raises(UserError, match="float32 alone"):
        machine.choose_device("cpu", "bf16")


@pytest.mark.skipif(not huge_pages_on_request(), reason="this system gives no huge pages to who asks")
@pytest.mark.parametrize(("told", "given"), [({}, True), ({"THP_MEM_ALLOC_ENABLE": "0"}, False)])
def test_large_tensors_lie_in_huge_pages_unless_told_otherwise(told: dict[str, str], given: bool) -> None:
    code = "from reproduce.run.timing import linux; import torch; x = torch.ones(2**25); print(linux.in_huge_pages())"
    unset = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", code], env=unset | told, capture_output=True, text=True, check=True)
    assert (int(done.stdout) >= 2**23) is given  # a part of it at least, where memory is in pieces


@pytest.mark.parametrize(
    ("load", "own_seconds", "busy"), [(0.1, 0.0, False), (1.4, 60.0, False), (1.4, 0.0, True), (2.6, 600.0, True)]
)
def test_others_at_work(monkeypatch: pytest.MonkeyPatch, load: float, own_seconds: float, busy: bool) -> None:
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(machine.time, "process_time", lambda: own_seconds)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert machine.others_at_work(1) is busy
