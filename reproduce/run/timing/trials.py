"""Trial steps: how many images a step may have so that it stays short on a CPU, and within its memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from reproduce.run.timing.memory import NEAR, Peaks, holding
from reproduce.run.timing.pairs import Step
from reproduce.run.timing.place import Place, out_of_memory
from reproduce.specs import RunSpec

TRIAL = 2.0  # seconds; a trial step that takes longer is not repeated


def with_batch(spec: RunSpec, batch: int) -> RunSpec:
    """The same with another number of images in a step, of either stage."""
    changes: dict[str, object] = {"training": spec.training.model_copy(update={"batch_size": batch})}
    if spec.size_learning is not None:
        changes["size_learning"] = spec.size_learning.model_copy(update={"batch_size": batch})
    return spec.model_copy(update=changes)


def fitting_batch(make: Callable[[int], Step], own: int, limit: float, place: Place, *, least: int = 1) -> int:
    """The largest power of two, up to `own`, for which a step should take under `limit` seconds and fit into memory;
    `least` at the least.

    A step takes a time for each image and one for the kernels, and memory likewise: two trials tell the two apart.
    """
    least, several = min(least, own), min(4 * least, own)
    peaks = Peaks()

    def trial(images: int) -> float:
        peaks.start()
        seconds = trial_seconds(make(images), place)
        peaks.end(images)
        return seconds

    first = trial(least)
    if first >= limit:
        place.say(f"a step of {least} image{'s' if least > 1 else ''} takes {first:.0f} s, and no fewer can be had")
    if first >= limit or several == least:
        return least
    try:
        second = trial(several)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return least
    each = max((second - first) / (several - least), second / own / 10)  # noise must not make images free
    most = min((limit - max(0.0, first - least * each)) / each, peaks.most())
    batch = own if most >= own else max(least, 2 ** math.floor(math.log2(max(1.0, most))))
    return batch if batch <= max(several, peaks.most(NEAR)) else holding(make, batch, several)


def trial_seconds(step: Step, place: Place) -> float:
    """Of a step; of a second one if the first was short, as a first one is slow."""

    def timed() -> float:
        place.check()
        wait(place.device)
        began = time.perf_counter()
        step()
        wait(place.device)
        return time.perf_counter() - began

    first = timed()
    return first if first > TRIAL else min(first, timed())


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def no_lap(part: str) -> None:
    """Nobody asks for the parts of a step of a pair."""
