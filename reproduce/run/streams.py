"""Independent random streams: every use of chance has a name; its numbers depend on that name and the seed alone."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor


def stream_seed(seed: int, *names: str | int) -> int:
    """A seed in 0 .. 2^63 - 1 for the stream with these names: the first 63 bits of a SHA-256."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator at the start of the stream with these names."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))


def noise_state(device: torch.device) -> list[Tensor]:
    """Where torch's own generators are, from which dropout draws: the CPU's, and on CUDA the device's."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if device.type == "cuda" else [])


def set_noise_state(states: list[Tensor]) -> None:
    """Puts them there again; the states may have come to lie on a device."""
    torch.set_rng_state(states[0].cpu())
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu())
