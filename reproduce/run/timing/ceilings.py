"""What a machine can do at best: moving, multiplying, launching. Under 20 s on CUDA, 5 s on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}  # of one buffer: far more than a cache holds
MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
KERNELS = 1000  # in a chain
ROUNDS = {"cuda": 10, "cpu": 1}  # copies or products in one repeat, so that launching one does not count
WARM_UP, REPEATS, SECONDS = 2, 5, 1.0  # after the first repeats at least so many more, and so long


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """TB/s of a copy within the device, TFLOP/s of products, microseconds per tiny kernel; each the best of several.

    `copy_tb_s`: bytes read and written. `matmul_tflop_s`: of square matrices, in bf16 on CUDA, float32 on the CPU on
    as many threads as torch is set to. CUDA alone: `matmul_float32_tflop_s` (without TF32), `matmul_tf32_tflop_s` and
    `kernel_us_graph`; everywhere `kernel_us_eager`.
    """
    found = {"copy_tb_s": copy_tb_s(device)}
    if device.type == "cuda":
        found["matmul_tflop_s"] = matmul_tflop_s(device, torch.bfloat16)
        found["matmul_float32_tflop_s"] = matmul_tflop_s(device, torch.float32)
        found["matmul_tf32_tflop_s"] = matmul_tflop_s(device, torch.float32, tf32=True)
    else:
        found["matmul_tflop_s"] = matmul_tflop_s(device, torch.float32)
    found["kernel_us_eager"] = kernel_us(device)
    if device.type == "cuda":
        found["kernel_us_graph"] = kernel_us_graph(device)
        torch.cuda.empty_cache()  # the buffers' memory is for what comes next
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def copy_tb_s(device: torch.device) -> float:
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / per_round(lambda: target.copy_(source), device) / 1e12


def matmul_tflop_s(device: torch.device, dtype: torch.dtype, *, tf32: bool = False) -> float:
    side = MATMUL_SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device).to(dtype).unbind()
    out = torch.empty_like(a)
    with tf32_set(tf32):
        return 2 * side**3 / per_round(lambda: torch.mm(a, b, out=out), device) / 1e12


def kernel_us(device: torch.device) -> float:
    """From Python, one after the other."""
    x = torch.zeros(1, device=device)
    return fastest(lambda: chain(x), device) / KERNELS * 1e6


def kernel_us_graph(device: torch.device) -> float:
    """The same chain, captured once and replayed."""
    x = torch.zeros(1, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        chain(x)  # loads the kernel: nothing may be loaded while capturing
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph):
            chain(x)
        return fastest(graph.replay, device) / KERNELS * 1e6


def chain(x: Tensor) -> None:
    for _ in range(KERNELS):
        x.add_(1)


def per_round(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one of several in a row."""
    rounds = ROUNDS[device.type]

    def several() -> None:
        for _ in range(rounds):
            work()

    return fastest(several, device) / rounds


def fastest(work: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of several repeats, each from an idle device until it is idle again."""
    for _ in range(WARM_UP):
        work()
    synchronize(device)
    taken: list[float] = []
    begun = clock()
    while len(taken) < REPEATS or clock() - begun < SECONDS:
        started = clock()
        work()
        synchronize(device)
        taken.append(clock() - started)
    return min(taken)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def tf32_set(allowed: bool) -> Iterator[None]:
    """Inside, float32 products on CUDA may (or may not) use TF32; afterwards as before."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
