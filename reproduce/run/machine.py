"""What hardware and software this is, and how torch is set up on it for a run. No host or user name, no path."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from reproduce.errors import UserError
from reproduce.plan import cores
from reproduce.specs import Precision

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def description() -> dict[str, Any]:
    """Hardware and software as far as they may bear on a result or on its seconds."""
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
    }


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float | None:
    """Physical memory in GiB, to the nearest half: less than that changes from boot to boot."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return round(2 * size / 2**30) / 2


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_device(name: str, precision: Precision = "float32") -> torch.device:
    """`auto` takes a CUDA device if there is one. Raises `UserError` for a device or a precision that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device that torch can use here; run with --device cpu")
    if name not in ("cpu", "cuda"):
        raise UserError(f"no device is named {name!r}; use --device auto, cpu or cuda")
    device = torch.device(name)
    check_precision(device, precision)
    return device


def check_precision(device: torch.device, precision: Precision) -> None:
    """Raises `UserError` for anything but float32 on the CPU."""
    if device.type != "cuda" and precision != "float32":
        raise UserError(f"--precision {precision} needs a CUDA device; on the CPU there is float32 alone")


@contextmanager
def settings(threads: int, precision: Precision = "float32") -> Iterator[None]:
    """Inside: so many threads, deterministic algorithms where torch has them, TF32 only if asked. Then as before."""
    # cuBLAS is deterministic only with a fixed workspace, and reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    keep_freed_memory()
    tf32 = precision == "tf32"
    _set(threads, True, True, False, False, tf32, tf32)
    try:
        yield
    finally:
        _set(*before)


def _set(
    threads: int, deterministic: bool, warn_only: bool, fill: bool, benchmark: bool, tf32: bool, matmul_tf32: bool
) -> None:
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32


def keep_freed_memory() -> None:
    """Let glibc keep the pages of freed tensors instead of asking for fresh, zeroed ones in every step.

    A training step of ResNet-20 on one thread takes 7 % less. Where there is no glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        pass


def return_freed_memory() -> None:
    """Give the pages that glibc kept back, so that what is held is what is in use."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def others_at_work(threads: int) -> bool:
    """Whether other work keeps more than half of the cores busy: then the seconds of a run are no timing.

    The load average counts this process as well; what it used itself, at most its threads over the last minute, is
    taken off.
    """
    if not hasattr(os, "getloadavg"):
        return False
    own = min(time.process_time() / 60.0, float(threads))
    return os.getloadavg()[0] - own > 0.5 * cores()
