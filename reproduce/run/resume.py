"""Resume state on disk: written atomically, the version before kept; a kill at any moment leaves one that is whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from reproduce.store import place, write_synced

HEADER = b"reproduce-state-1 "  # then 64 hex digits, a newline, and what torch.save wrote


class Slot:
    """One file of resume state, saved at most every `every` seconds unless asked otherwise."""

    def __init__(self, path: Path, *, every: float) -> None:
        self.path, self.every, self.saved_at = path, every, time.monotonic()

    @property
    def previous(self) -> Path:
        return self.path.with_name(self.path.name + ".previous")

    def due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.every

    def save(self, state: dict[str, Any]) -> None:
        """Tensors, numbers, strings, lists and dicts. May raise `OSError`."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        header = HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        temporary = self.path.with_name(self.path.name + ".tmp")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temporary, header + payload)
        if self.path.exists():
            os.replace(self.path, self.previous)
        os.replace(temporary, self.path)
        self.saved_at = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state that is whole; None if there is none."""
        for path in (self.path, self.previous):
            payload = checked_payload(path)
            if payload is not None:
                state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
                return state
        return None


def checked_payload(path: Path) -> bytes | None:
    """What `Slot.save` wrote, or None if the file is missing, truncated or altered."""
    try:
        header, _, payload = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return payload if header == HEADER + hashlib.sha256(payload).hexdigest().encode() else None


class Notes:
    """A small JSON file beside the state: seconds so far, when the run began, what stage 1 found."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any]:
        """Empty if there is none or it cannot be read: what it held is then found anew."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def save(self, values: dict[str, Any]) -> None:
        place(self.path, json.dumps(values).encode())


def clear(folder: Path) -> None:
    """Remove the resume state of a run whose record is written."""
    shutil.rmtree(folder, ignore_errors=True)
