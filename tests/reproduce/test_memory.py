"""What a run's memory is estimated at, and what is taken as free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reproduce.run import memory
from reproduce.run.backends import local
from reproduce.run.backends.local import Local
from reproduce.run.gpus import Gpu
from tests.reproduce.hall_samples import spec_of
from tests.reproduce.run_samples import context, spec

GIB = 2**30


def test_the_estimate_by_hand() -> None:
    """ResNet-8 on 56 + 40 images of 3 x 32 x 32 with batches of 16."""
    values = (3 * 16 + 2 * 0) * 32**2 + 2 * 32 * 16**2 + 2 * 64 * 8**2 + 10  # stem and stages 1, 2, 3, linear layer
    parameters = 432 + 2 * 2304 + 4608 + 9216 + 18432 + 36864 + 650
    images = 96 * 3 * 32**2
    on_gpu = memory.BASE["cuda"] + images + 16 * parameters + 12 * values * 16
    assert memory.estimate(spec(), "cuda") == on_gpu
    assert memory.estimate(spec(), "cpu") == on_gpu - memory.BASE["cuda"] + memory.BASE["cpu"] + images


def test_more_data_and_bigger_networks_take_more() -> None:
    tiny, paper = spec_of(), spec_of(protocol="paper")
    assert memory.estimate(tiny, "cpu") < memory.estimate(paper, "cpu") < 8 * GIB
    big = spec_of("EffConv-20 0.50M", experiment="table4", protocol="paper")
    assert memory.estimate(big, "cuda") > memory.estimate(paper, "cuda") + 3 * GIB  # 1.3 million images


def test_free_memory_is_the_least_of_the_machines_and_the_containers(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  8 kB\nMemAvailable:    2048 kB\n")
    assert memory.free_on_cpu(info, tmp_path) == 2048 * 1024
    (tmp_path / "memory.max").write_text("3000")
    (tmp_path / "memory.current").write_text("2500")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500")
    assert memory.free_on_cpu(info, tmp_path) == 1000
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_on_cpu(info, tmp_path) == 2048 * 1024
    assert memory.free_on_cpu(tmp_path / "none", tmp_path) is None
    assert memory.own(os.getpid()) > 10 * 2**20 and memory.own(None) == 0


def test_the_emptiest_gpu_counts() -> None:
    assert memory.free_on_gpus([Gpu(name="a", free=1), Gpu(name="b", free=3), Gpu(name="c")]) == 3
    assert memory.free_on_gpus([Gpu(name="c")]) is None


def test_what_is_being_started_counts_as_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Local(context(tmp_path, backend="local", jobs=4), 4)
    one = memory.estimate(spec(), "cpu")
    monkeypatch.setattr(local.memory, "free_on_cpu", lambda: 2 * one + one // 2)
    todo: Any = ("row", spec(), 0)
    assert backend.fits(todo, [], []) is None and backend.fits(todo, [], [todo]) is None
    line = backend.fits(todo, [], [todo, todo])
    assert line is not None and line.endswith("waits") and "GiB" in line
    monkeypatch.setattr(local.memory, "free_on_cpu", lambda: one // 2)
    alone = backend.fits(todo, [], [])
    assert alone is not None and alone.endswith("goes on alone and may be killed")
    monkeypatch.setattr(local.memory, "free_on_cpu", lambda: None)
    assert backend.fits(todo, [], [todo]) is None
