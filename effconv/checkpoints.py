"""Resume state of size learning: written atomically, read back only by the call that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class Keeper(Protocol):
    """Keeps the newest state, of tensors, numbers, strings, lists and dicts, in a way of its own."""

    def save(self, state: dict[str, Any]) -> None: ...

    def load(self, device: torch.device) -> dict[str, Any] | None: ...


def rng_state(device: torch.device) -> list[Tensor]:
    """The default generators' states: CPU, then the CUDA device in use, if any."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def seed_rng(seed: int, device: torch.device) -> None:
    """Like `torch.manual_seed`, but of the CPU and of `device` only: other devices keep their state."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def set_rng_state(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)


class File:
    """The `Keeper` for a path: one file, as `torch.save` writes it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def save(self, state: dict[str, Any]) -> None:
        """Written beside its place, synchronised, then moved there: a kill leaves the old state or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, self.path)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """None where there is no file. Raises `ValueError` for a damaged one."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
            if not isinstance(state["identity"], dict):
                raise TypeError("no identity")
        except Exception as error:
            raise ValueError(
                f"checkpoint {self} cannot be read ({type(error).__name__}); delete it to start anew"
            ) from error
        found: dict[str, Any] = state
        return found


def load(keeper: Keeper, identity: dict[str, Any], device: torch.device) -> dict[str, Any] | None:
    """The saved state, or None where there is none. Raises `ValueError` for another call's state or a damaged file."""
    state = keeper.load(device)
    if state is None:
        return None
    saved = state.pop("identity", None)
    if saved != identity:
        other = saved if isinstance(saved, dict) else {}
        differs = ", ".join(key for key in identity | other if other.get(key) != identity.get(key))
        raise ValueError(
            f"checkpoint {keeper} belongs to another call (differs in: {differs}); delete it or name another"
        )
    return state
