"""Where things are timed, and what it is called when that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from reproduce.errors import Interrupted, UserError
from reproduce.run.stages import reason
from reproduce.run.timing.workloads import RandomData
from reproduce.specs import RunSpec
from reproduce.store import Store


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how rows are timed."""

    store: Store
    device: torch.device
    machine: str  # id of the machine's description
    extrapolate_above: float  # seconds
    step_limit: float | None = None  # seconds; a row's step that would take longer gets fewer images. None: its own
    ceilings: Mapping[str, float] = field(default_factory=dict)
    data: RandomData
    stop: Callable[[], bool] = lambda: False
    say: Callable[[str], object] = lambda line: None

    def check(self) -> None:
        if self.stop():
            raise Interrupted


def failure(error: Exception, spec: RunSpec, device: torch.device) -> str:
    """The reason of a failed timing; too little memory is named as such."""
    if out_of_memory(error):
        where = "the GPU" if device.type == "cuda" else "this machine"
        return f"out of memory: {where} is too small for batches of {spec.training.batch_size}"
    return str(error) if isinstance(error, UserError) else reason(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; oneDNN does not say why it could not set up a convolution."""
    text = str(error).strip()
    said = any(words in text for words in ("can't allocate memory", "out of memory", "bad_alloc"))
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and (said or text == "could not create a primitive")
    )
