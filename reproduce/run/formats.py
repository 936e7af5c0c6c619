"""The files in which the four data sets are distributed: their names, and how the bytes of each become arrays."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reproduce.errors import UserError
from reproduce.run.pickles import read_batch
from reproduce.specs import DatasetFacts

# One file as arrays: "images" (n, C, H, W) uint8, "labels" (n,) int64, or both.
Arrays = dict[str, NDArray[Any]]
CHUNK = 1 << 20
MEND = "delete it and fetch it again with --download"
ROOM = 2  # times the data set's own training set: what unpacks to more is a bomb and no data set


@dataclass(frozen=True, kw_only=True)
class Format:
    """Where a data set's files are looked for, and how one is read. All `needed` must be there, others may lack."""

    layout: str
    folders: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    needed: tuple[str, ...]
    parse: Callable[[str, bytes, DatasetFacts], Arrays]  # (where, for messages; content; facts)
    suffixes: tuple[str, ...] = ("",)
    archive: str | None = None


def parse_idx(where: str, content: bytes, facts: DatasetFacts) -> Arrays:
    """MNIST's IDX files, gzip or not: a header that declares the counts, then one byte a pixel or label."""
    stream: Any = io.BytesIO(content) if content[:2] != b"\x1f\x8b" else gzip.GzipFile(fileobj=io.BytesIO(content))
    try:
        magic, count = struct.unpack(">II", stream.read(8))
        if magic not in (0x801, 0x803):
            raise UserError(f"{where} is no IDX file of images or labels (magic number {magic:#010x}); {MEND}")
        size = struct.unpack(">II", stream.read(8)) if magic == 0x803 else ()
        if magic == 0x803 and size != (facts.image_size, facts.image_size):
            raise UserError(f"{where} holds images of {size[0]}x{size[1]} pixels, not those of {facts.title}; {MEND}")
        body = exactly(stream, count * (size[0] * size[1] if size else 1), where, most_bytes(facts))
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{where} is truncated or damaged ({error}); {MEND}") from error
    values = np.frombuffer(body, np.uint8)
    return {"images": values.reshape(count, 1, *size)} if size else {"labels": values.astype(np.int64)}


def most_bytes(facts: DatasetFacts) -> int:
    """Bytes that one unpacked file of a data set can hold: its images, with labels and file names."""
    images = max(facts.train_images, facts.test_images)
    return ROOM * images * (facts.in_channels * facts.image_size**2 + 64)


def exactly(stream: Any, declared: int, where: str, most: int) -> bytearray:
    """The rest of `stream`, which must be `declared` bytes: read in chunks, so that a false header claims no memory."""
    body = bytearray()
    while chunk := stream.read(max(0, min(CHUNK, declared + 1 - len(body), most + 1 - len(body)))):
        body += chunk
    if len(body) > most:
        raise UserError(f"{where} unpacks to more than {most:,} bytes, twice what it should be; {MEND}")
    if len(body) != declared:
        found = f"only {len(body):,}" if len(body) < declared else "more"
        raise UserError(f"{where} is damaged: its header declares {declared:,} bytes, it holds {found}; {MEND}")
    return body


def parse_cifar(where: str, content: bytes, facts: DatasetFacts) -> Arrays:
    images, labels = read_batch(where, content, first_label=0)
    return {"images": images, "labels": labels}


def parse_imagenet32(where: str, content: bytes, facts: DatasetFacts) -> Arrays:
    images, labels = read_batch(where, content, first_label=1)
    return {"images": images, "labels": labels}


def parse_stl(where: str, content: bytes, facts: DatasetFacts) -> Arrays:
    """STL-10's raw files: labels 1..10 in `*_y.bin`; images in `*_X.bin`, each channel written column by column."""
    values = np.frombuffer(content, np.uint8)
    if where.endswith("_y.bin"):
        return {"labels": values.astype(np.int64) - 1}
    size = facts.image_size
    image_bytes = facts.in_channels * size * size
    if len(content) % image_bytes:
        raise UserError(f"{where} is truncated: {len(content):,} bytes are no multiple of {image_bytes:,}; {MEND}")
    return {"images": values.reshape(-1, facts.in_channels, size, size).transpose(0, 1, 3, 2)}


MNIST = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
STL = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")

FORMATS: dict[str, Format] = {
    "mnist": Format(
        layout="IDX files",
        folders=("MNIST/raw", "raw", "."),
        train=MNIST[:2],
        test=MNIST[2:],
        needed=MNIST,
        parse=parse_idx,
        suffixes=(".gz", ""),
    ),
    "cifar10": Format(
        layout="python batches",
        folders=("cifar-10-batches-py", "."),
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        needed=("test_batch",),
        parse=parse_cifar,
        archive="cifar-10-python.tar.gz",
    ),
    "stl10": Format(
        layout="binary files",
        folders=("stl10_binary", "."),
        train=STL[:2],
        test=STL[2:],
        needed=STL,
        parse=parse_stl,
        archive="stl10_binary.tar.gz",
    ),
    "imagenet32": Format(
        layout="batch files",
        folders=("Imagenet32_train", "Imagenet32_val", "."),
        train=tuple(f"train_data_batch_{i}" for i in range(1, 11)),
        test=("val_data",),
        needed=("val_data",),
        parse=parse_imagenet32,
    ),
}
