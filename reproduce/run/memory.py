"""How much memory a run takes, roughly, and how much is free: so that runs side by side do not kill each other.

The estimate, in bytes, of a run with batches of B images of C x H x H:

    base + images + 4 P * 4 + W * 4 * 2 + B * A * 4 * 3

images: one byte a value, twice on the CPU, where they are decoded. P: trainable parameters, kept with their gradients
and two moments of the optimiser. W: weights of the kernels as applied, where a network generates them. A: values that
the layers put out for one image, each kept three times for the backward pass (behind the convolution, the normalisation
and the nonlinearity). Good to a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reproduce.formulas import FORMULAS
from reproduce.run.gpus import Gpu
from reproduce.specs import DATASETS, RunSpec

BASE = {"cpu": 400 * 2**20, "cuda": 1200 * 2**20}  # torch itself; a CUDA context with its workspaces
FLOAT, KEPT, MOMENTS = 4, 3, 4
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def estimate(spec: RunSpec, device: str) -> int:
    """Bytes that a run takes at its peak on "cpu", or on each of its GPUs ("cuda").

    Raises `KeyError` for a family without a formula.
    """
    facts = DATASETS[spec.data.name]
    arguments: dict[str, Any] = spec.model.args
    layers, _ = FORMULAS[spec.model.family](facts.in_channels, facts.image_size, facts.num_classes, **arguments)
    train, test = spec.data.train_images or facts.train_images, spec.data.test_images or facts.test_images
    images = (train + test) * facts.in_channels * facts.image_size**2
    batches = [spec.training.batch_size] + ([spec.size_learning.batch_size] if spec.size_learning else [])
    if spec.processes is not None:
        batches = [spec.processes.batch_size]
    values = sum(layer.c_out * layer.side**2 for layer in layers)
    generated = sum(layer.weights for layer in layers if layer.parameters < layer.weights)
    one = (
        BASE[device]
        + images * (2 if device == "cpu" else 1)
        + FLOAT * MOMENTS * sum(layer.parameters for layer in layers)
        + FLOAT * 2 * generated
        + FLOAT * KEPT * values * min(max(batches), train)
    )
    return one * (spec.world_size if device == "cpu" else 1)


def free_on_cpu(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Bytes that can be had without swapping, also of a container's share; None where the system does not say."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        (line,) = (one for one in meminfo.read_text().splitlines() if one.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = int((cgroup / "memory.max").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        used = int((cgroup / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
        found.append(max(0, limit - used))
    return min(found, default=None)


def free_on_gpus(gpus: Iterable[Gpu]) -> int | None:
    """Of the emptiest one; None if that is not known."""
    return max((gpu.free for gpu in gpus if gpu.free is not None), default=None)


def own(pid: int | None) -> int:
    """Bytes that a process has for itself; 0 if it is not there or the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
