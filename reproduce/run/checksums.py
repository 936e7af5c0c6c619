"""Checksums of files and folders, the published ones, and an index that saves hashing what has not changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from reproduce.errors import UserError
from reproduce.run.splits import Progress, tell
from reproduce.store import parse_json

log = logging.getLogger(__name__)
CHUNK = 1 << 20

# MD5 by file name. MNIST's .gz, CIFAR-10 and STL-10: the tables of torchvision.datasets (a test compares them). MNIST's
# unpacked files and ImageNet-32: as other public loaders print them; a wrong entry would only deny "canonical".
PUBLISHED: dict[str, str] = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb",
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    "train_data_batch_1": "dd6683a336ab645d336f7b47c67d8456",
    "train_data_batch_2": "b9b1f5ad237638a41e80944fc03b42af",
    "train_data_batch_3": "e33306a0f4234b5c5812a32845bfbd04",
    "train_data_batch_4": "4db6d81c460a5170a03ef03e1ddd21dd",
    "train_data_batch_5": "baa0f1d06099f55e5fe50d43fca4d334",
    "train_data_batch_6": "bba3bc6e83e0703df1ec7e277e0b6800",
    "train_data_batch_7": "48dd0fd4511b39d518dbabba2f5b36b7",
    "train_data_batch_8": "46583e44f926baaeacbf8c333dc6110f",
    "train_data_batch_9": "7c82c36ce028b457204f1080d1793669",
    "train_data_batch_10": "14e3a6ce19d584ba97208a1d9f551e63",
    "val_data": "4836a1eec28cd4476eb017126cd0f059",
}

# Sizes that no other content is likely to have (compressed or pickled): such a file with another checksum is damaged.
DISTINCTIVE_BYTES: dict[str, int] = {
    "train-images-idx3-ubyte.gz": 9_912_422,
    "train-labels-idx1-ubyte.gz": 28_881,
    "t10k-images-idx3-ubyte.gz": 1_648_877,
    "t10k-labels-idx1-ubyte.gz": 4_542,
    "cifar-10-python.tar.gz": 170_498_071,
    "data_batch_1": 31_035_704,
    "data_batch_2": 31_035_320,
    "data_batch_3": 31_035_999,
    "data_batch_4": 31_035_696,
    "data_batch_5": 31_035_623,
    "test_batch": 31_035_526,
}


class Listed(NamedTuple):
    """A file as the file system describes it: path relative to the folder, for messages and hashing, with `/`."""

    path: str
    bytes: int
    mtime_ns: int
    ctime_ns: int  # changes also when a copy keeps the old modification time


@dataclass(frozen=True)
class Checksum:
    sha256: str
    md5: str  # of a single file; empty for a folder
    bytes: int


def file_checksum(path: Path, index: Path | None) -> Checksum:
    """SHA-256 and MD5 of one file. `index`: a folder that remembers them, None to hash afresh and remember nothing."""
    try:
        stat = path.stat()
        listed = Listed(path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return remembered(path.parent, [listed], index) or remember(path.parent, [listed], index, hash_file(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); replace or delete it") from error


def folder_checksum(
    folder: Path, files: Sequence[Listed], index: Path | None, progress: Progress | None = None
) -> Checksum:
    """SHA-256 over the lines "relative path, SHA-256 of the file" in path order. `files`: in any order."""
    known = remembered(folder, files, index)
    if known is not None:
        return known
    lines = []
    for done, file in enumerate(sorted(files, key=lambda file: file.path), 1):
        try:
            with (folder / file.path).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{folder / file.path} cannot be read ({error.strerror}); replace or delete it") from error
        lines.append(f"{file.path} {digest}\n")
        tell(progress, done, len(files))
    combined = hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    return remember(folder, files, index, Checksum(combined, "", sum(file.bytes for file in files)))


def hash_file(path: Path) -> Checksum:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Checksum(sha256.hexdigest(), md5.hexdigest(), size)


def index_entry(folder: Path, files: Sequence[Listed], index: Path) -> Path:
    """Where the checksum of these files is remembered: a name made from where they lie, sizes and times."""
    lines = [f"{path}\0{size}\0{mtime}\0{ctime}" for path, size, mtime, ctime in files]
    key = hashlib.sha256("\n".join([str(folder.resolve()), *sorted(lines)]).encode(errors="surrogateescape"))
    return index / f"{key.hexdigest()[:32]}.json"


def remembered(folder: Path, files: Sequence[Listed], index: Path | None) -> Checksum | None:
    if index is None:
        return None
    try:
        entry = parse_json(index_entry(folder, files, index))
        known = Checksum(str(entry["sha256"]), str(entry["md5"]), int(entry["bytes"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    whole = re.fullmatch("[0-9a-f]{64}", known.sha256) and re.fullmatch("(?:[0-9a-f]{32})?", known.md5)
    return known if whole and known.bytes == sum(file.bytes for file in files) else None


def remember(folder: Path, files: Sequence[Listed], index: Path | None, checksum: Checksum) -> Checksum:
    """Writes the index entry, if there is an index; a disk that is full or read-only only costs the next start time."""
    if index is None:
        return checksum
    entry = index_entry(folder, files, index)
    part = entry.with_suffix(f".{os.getpid()}.tmp")
    try:
        index.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(vars(checksum)))
        part.replace(entry)
    except OSError as error:
        log.warning("checksums are not kept in %s: %s", index, error.strerror)
    return checksum
