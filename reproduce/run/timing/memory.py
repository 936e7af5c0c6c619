"""How many images a step has memory for: without a limit of its own, a process that takes too much is killed."""

from __future__ import annotations

import math
from collections.abc import Callable

from reproduce.run.machine import return_freed_memory
from reproduce.run.timing.linux import memory_peak, memory_room, restart_peak
from reproduce.run.timing.pairs import Step
from reproduce.run.timing.place import out_of_memory

SHARE = 0.85  # of the room that a step may take: its peak is an estimate, and others use memory, too
NEAR = 0.5  # of the room; a step that may need more is tried first


class Peaks:
    """Peaks of memory during trials of two batch sizes. A step holds what it saves for the gradients of each image,
    and what it saves once: a line."""

    def __init__(self) -> None:
        return_freed_memory()
        self.room = memory_room()
        self.found: dict[int, int] = {}  # bytes by images

    def start(self) -> None:
        return_freed_memory()
        restart_peak()

    def end(self, images: int) -> None:
        peak = memory_peak()
        if peak is not None:
            self.found[images] = peak

    def most(self, share: float = SHARE) -> float:
        """Images of a step that takes so much of the room; infinite where nothing tells."""
        if self.room is None or len(self.found) < 2:
            return math.inf
        (few, low), (many, high) = sorted(self.found.items())
        each = (high - low) / (many - few)
        return math.inf if each <= 0 else many + (share * self.room - high) / each


def holding(make: Callable[[int], Step], batch: int, least: int) -> int:
    """The batch, halved until a step of it gets the memory that it asks for; `least` at the least."""
    while batch > least:
        try:
            make(batch)()
            return batch
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        batch = max(least, 2 ** (math.ceil(math.log2(batch)) - 1))
    return batch
