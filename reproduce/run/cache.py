"""Decoded images kept on disk, so that the second start is fast. Verified when read; may be deleted at any time."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from reproduce.run.splits import Split
from reproduce.store import parse_json

log = logging.getLogger(__name__)
VERSION = 1  # raised when decoding changes
DTYPES = ("uint8", "int64")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def default_folder() -> Path:
    return Path.home() / ".cache" / "reproduce-effconv"


def index_folder(cache: Path) -> Path:
    """Where `checksums` remembers what it has hashed."""
    return cache / "checksums"


def entry_folder(cache: Path, name: str, fingerprint: str) -> Path:
    """The entry of one source: named by its checksums, and by Pillow, since decoders of JPEG differ in the last bit."""
    key = hashlib.sha256(f"{VERSION} {name} {fingerprint} {PIL.__version__}".encode()).hexdigest()
    return cache / "decoded" / f"{name}-{key[:16]}"


def read_entry(entry: Path) -> tuple[Split, Split] | None:
    """(train, test), or None: not there, or damaged, which is said in one log line. The caller decodes afresh then."""
    try:
        described = parse_json(entry / "arrays.json")
        arrays = [torch.from_numpy(read_array(entry / f"{name}.npy", described[name])) for name in ARRAYS]
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file may fail anywhere in numpy's reader
        log.warning("the cached images in %s are damaged and are decoded again (%s)", entry, error)
        return None
    return Split(images=arrays[0], labels=arrays[1]), Split(images=arrays[2], labels=arrays[3])


def read_array(path: Path, described: dict[str, Any]) -> NDArray[Any]:
    """One .npy file. Raises `ValueError` unless size, shape, type and SHA-256 are what was written."""
    if path.stat().st_size != described["bytes"]:
        raise ValueError(f"{path.name} has another size")
    with path.open("rb") as stream:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError(f"{path.name} is of another version")
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
        if list(shape) != described["shape"] or str(dtype) != described["dtype"] or str(dtype) not in DTYPES:
            raise ValueError(f"{path.name} has another shape")
        count = math.prod(shape)
        if count * dtype.itemsize != described["bytes"] - stream.tell():  # before room is made for them
            raise ValueError(f"{path.name} has another size")
        array: NDArray[Any] = np.fromfile(stream, dtype, count)
    array = array.reshape(shape, order="F" if fortran else "C")
    if content_sha256(array) != described["sha256"]:
        raise ValueError(f"{path.name} has a wrong checksum")
    return array


def content_sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data.cast("B")).hexdigest() if array.size else ""


def write_entry(entry: Path, train: Split, test: Split) -> None:
    """Keeps both splits, whole or not at all. A disk that is full or read-only costs a log line, not the run."""
    tensors = (train.images, train.labels, test.images, test.labels)
    part: Path | None = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".tmp", dir=entry.parent))
        described = {}
        for name, tensor in zip(ARRAYS, tensors, strict=True):
            array, path = tensor.numpy(), part / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            described[name] = {
                "bytes": path.stat().st_size,
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "sha256": content_sha256(array),
            }
        (part / "arrays.json").write_text(json.dumps(described, indent=1))
        shutil.rmtree(entry, ignore_errors=True)
        os.rename(part, entry)  # fails when another process was faster, which is as good
    except OSError as error:
        if not entry.is_dir():
            log.warning("decoded images are not kept in %s: %s", entry.parent, error.strerror)
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
