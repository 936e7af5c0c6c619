"""The arithmetic of the ceilings with made-up seconds; and small ones as measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from reproduce.run.timing import ceilings

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cuda": 1 << 20, "cpu": 1 << 20})
    monkeypatch.setattr(ceilings, "MATMUL_SIDE", {"cuda": 64, "cpu": 64})
    monkeypatch.setattr(ceilings, "SECONDS", 0.0)


def test_units(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two megabytes moved, 2 x 64^3 FLOPs done and 1000 kernels launched, each in two milliseconds."""
    monkeypatch.setattr(ceilings, "fastest", lambda work, device: 2e-3)
    found = ceilings.measure_ceilings(CPU)
    assert found == {"copy_tb_s": 0.001049, "matmul_tflop_s": 0.0002621, "kernel_us_eager": 2.0}
    assert found["copy_tb_s"] == pytest.approx(2 * 1_048_576 / 2e-3 / 1e12, rel=1e-3)


def test_rounds_share_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def once(work: Callable[[], object], device: torch.device) -> float:
        work()
        return 8.0

    monkeypatch.setattr(ceilings, "fastest", once)
    monkeypatch.setattr(ceilings, "ROUNDS", {"cpu": 4})
    assert ceilings.per_round(lambda: calls.append(1), CPU) == 2.0 and len(calls) == 4


def test_the_fastest_repeat_counts_and_the_first_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    durations: Iterator[float] = iter([0.1, 0.1, 3.0, 2.0, 5.0, 4.0, 2.5])  # the first two are the warm-up
    now = [0.0]

    def work() -> None:
        now[0] += next(durations)

    assert ceilings.fastest(work, CPU, clock=lambda: now[0]) == 2.0
    assert next(durations, None) is None
    monkeypatch.setattr(ceilings, "SECONDS", 100.0)
    now[0], count = 0.0, []

    def longer() -> None:
        count.append(1)
        now[0] += 10.0

    assert ceilings.fastest(longer, CPU, clock=lambda: now[0]) == 10.0
    assert len(count) == ceilings.WARM_UP + 10


def test_a_chain_is_so_many_kernels() -> None:
    x = torch.zeros(1)
    ceilings.chain(x)
    assert x.item() == ceilings.KERNELS


def test_measured_on_the_cpu(small: None) -> None:
    found = ceilings.measure_ceilings(CPU)
    assert set(found) == {"copy_tb_s", "matmul_tflop_s", "kernel_us_eager"}
    assert all(value > 0 for value in found.values())


def test_tf32_is_as_before_afterwards() -> None:
    def allowed() -> Any:
        return torch.backends.cuda.matmul.allow_tf32

    before = allowed()
    with pytest.raises(KeyError), ceilings.tf32_set(not before):
        assert allowed() is not before
        raise KeyError
    assert allowed() is before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_measured_on_cuda() -> None:
    started = time.perf_counter()
    found = ceilings.measure_ceilings(torch.device("cuda"))
    assert time.perf_counter() - started < 20
    products = {"matmul_tflop_s", "matmul_float32_tflop_s", "matmul_tf32_tflop_s"}
    assert set(found) == products | {"copy_tb_s", "kernel_us_eager", "kernel_us_graph"}
    assert 0.05 < found["copy_tb_s"] < 20
    assert found["matmul_float32_tflop_s"] <= found["matmul_tf32_tflop_s"] * 1.05
    assert 0.1 < found["kernel_us_graph"] < found["kernel_us_eager"] < 100
