"""Independent random streams: every use of chance has a name; its numbers depend on that name and the seed alone."""

from __future__ import annotations

import hashlib
import json

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A seed in 0 .. 2^63 - 1 for the stream with these names: the first 63 bits of a SHA-256."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator at the start of the stream with these names."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))
