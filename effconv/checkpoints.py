"""Resume state of size learning: written atomically, read back only by the call that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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


def save(file: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Written beside its place, synchronised, then moved there: a kill leaves the old state or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as stream:
        torch.save({"identity": identity, **state}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def load(file: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any] | None:
    """The saved state, or None where there is none. Raises `ValueError` for another call's state or a damaged file."""
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        saved = state.pop("identity")
    except Exception as error:
        raise ValueError(
            f"checkpoint {file} cannot be read ({type(error).__name__}); delete it to start anew"
        ) from error
    if saved != identity:
        differs = ", ".join(key for key in identity | saved if saved.get(key) != identity.get(key))
        raise ValueError(
            f"checkpoint {file} belongs to another call (differs in: {differs}); delete it or name another"
        )
    return state
