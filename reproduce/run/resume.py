"""Resume state on disk: written atomically, the version before kept; a kill at any moment leaves one that is whole."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from reproduce.errors import UserError
from reproduce.run import checkpoints
from reproduce.store import parse_json, place, put_aside, write_synced

log = logging.getLogger(__name__)
HEADER = b"reproduce-state-1 "  # then 64 hex digits, a newline, and what torch.save wrote
NEWER = re.compile(rb"reproduce-state-(?!1 )\d{1,9} ")


class Slot:
    """One file of resume state, saved at most every `every` seconds unless asked otherwise."""

    def __init__(self, path: Path, *, every: float) -> None:
        self.path, self.every, self.saved_at = path, every, time.monotonic()

    def __str__(self) -> str:
        return str(self.path)

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
        try:
            write_synced(temporary, header + payload)
            if self.path.exists():
                os.replace(self.path, self.previous)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)  # on a full disk its room is needed
        self.saved_at = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state that is whole; None if there is none. A damaged one is put aside, with a line in the log.

        Raises `UserError` for one of a newer version, and for one that is whole and is no state: a checksum says
        nothing of who wrote it.
        """
        for path in (self.path, self.previous):
            payload = checked_payload(path)
            if payload is not None:
                return read_state(path, payload, device)
        return None


def read_state(path: Path, payload: bytes, device: torch.device) -> dict[str, Any]:
    with refused(path):
        state: dict[str, Any] = checkpoints.load(io.BytesIO(payload), device)
        if not isinstance(state, dict):
            raise ValueError("no state")
        for tensor in checkpoints.tensors(state):
            checkpoints.check_whole("a part", tensor)
    return state


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Makes every error of a checkpoint's reader one line: a foreign file may fail anywhere in it."""
    try:
        yield
    except Exception as error:
        why = f"asks for {error}, which could run code" if isinstance(error, checkpoints.Foreign) else "is damaged"
        raise UserError(f"the saved state {path} is none that a run wrote: it {why}; delete that folder") from error


def checked_payload(path: Path) -> bytes | None:
    """What `Slot.save` wrote, or None if the file is missing or, being damaged, was put aside."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    header, _, payload = content.partition(b"\n")
    if header == HEADER + hashlib.sha256(payload).hexdigest().encode():
        return payload
    if NEWER.match(header):
        raise UserError(f"the saved state {path} was written by a newer version; update this checkout")
    told_aside(path)
    return None


def told_aside(path: Path) -> None:
    """Put a damaged file aside and say so. May raise `OSError`."""
    log.warning("the saved state %s is damaged; it is put aside as %s", path, put_aside(path).name)


class Notes:
    """A small JSON file beside the state: seconds so far, when the run began, what stage 1 found; with a checksum."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, **kinds: type) -> dict[str, Any]:
        """Empty if there is none, or if it is damaged and put aside: what it held is then found anew.

        kinds: what must be there, and of which type.
        """
        try:
            found = parse_json(self.path)
        except OSError:
            return {}
        except ValueError:
            found = None
        values = found.get("values") if isinstance(found, dict) else None
        if not isinstance(values, dict) or found.get("sha256") != text_sha256(json.dumps(values)):
            told_aside(self.path)
            return {}
        return values if all(isinstance(values.get(key), kind) for key, kind in kinds.items()) else {}

    def save(self, values: dict[str, Any]) -> None:
        text = json.dumps(values)
        place(self.path, f'{{"sha256": "{text_sha256(text)}", "values": {text}}}'.encode())


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def clear(folder: Path) -> None:
    """Remove the resume state of a run whose record is written."""
    shutil.rmtree(folder, ignore_errors=True)
