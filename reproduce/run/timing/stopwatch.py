"""A stopwatch whose parts add up to the whole: each lap is the time since the one before it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Clock = Callable[[], float]
DRAIN = "drain"  # what the device still had to do after the last part was handed to it


class Stopwatch:
    """Times from `start()` to `stop()`; `lap(part)` credits the time since the last look to a part.

    On CUDA both ends wait for the device, the last wait being a part of its own; between them the parts are the host's
    time. `clock` in seconds.
    """

    def __init__(self, device: torch.device | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.parts: dict[str, float] = {}
        self.began = self.last = 0.0

    @property
    def on_cuda(self) -> bool:
        return self.device is not None and self.device.type == "cuda"

    def start(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)
        self.parts = {}
        self.began = self.last = self.clock()

    def lap(self, part: str) -> None:
        now = self.clock()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now

    def stop(self, part: str = "rest") -> float:
        """The seconds since the start. What no lap has claimed goes to `part`; on CUDA, what the wait took to drain."""
        if self.on_cuda:
            self.lap(part)
            torch.cuda.synchronize(self.device)
            self.lap(DRAIN)
        else:
            self.lap(part)
        return self.last - self.began


def scaled(parts: dict[str, float], factor: float) -> dict[str, float]:
    return {part: seconds * factor for part, seconds in parts.items()}


def added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {part: one.get(part, 0.0) + other.get(part, 0.0) for part in [*one, *(p for p in other if p not in one)]}
