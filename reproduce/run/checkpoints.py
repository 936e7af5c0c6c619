"""What torch.save wrote, read without trusting it: first a walk with stand-ins for tensors, then torch's own reader.

The walk is needed because torch makes room for as much as an archive's entries and a file's storages declare, and
calls some constructors with any size that the file names.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch import Tensor

from reproduce.run.opcodes import Foreign, scan

__all__ = ["Foreign", "check_whole", "load", "tensors"]
LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # how files begin that torch wrote before 1.6
MOST_PICKLE = 64 << 20  # bytes of all names and shapes; a checkpoint of hundreds of tensors has less than one million
PERSISTENT = frozenset({"BINPERSID"})
STORAGES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # fmt: skip


class Inert:
    """Stands for a value that claims no memory."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor with a state")


class Stored(Inert):
    """Stands for the numbers of a tensor: as many as lie in the file."""

    def __init__(self, count: int) -> None:
        self.count = count


class Numbers(Inert):
    """Stands for a tensor that is rebuilt from stored numbers: all of them must be there."""

    def __init__(self, stored: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        whole = isinstance(stored, Stored) and len(size) == len(stride) <= 16
        if not whole or not all(type(n) is int and 0 <= n < 2**62 for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor that is none")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= stored.count:
            raise pickle.UnpicklingError("a tensor of more numbers than are there")


class Kind:
    """Stands for a storage class of torch: the bytes of one number."""

    def __init__(self, width: int) -> None:
        self.width = width


ADMITTED: dict[str, Any] = {
    "collections OrderedDict": OrderedDict,
    "torch._utils _rebuild_tensor_v2": Numbers,
    "torch._utils _rebuild_parameter": Inert,
    "torch._utils _rebuild_sparse_tensor": Inert,
    "torch.serialization _get_layout": Inert,
    "torch Size": Inert,
    **{f"torch {name}": Kind(width) for name, width in STORAGES.items()},
    **{f"torch {name}": Inert() for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8")},
}


class Walk(pickle.Unpickler):
    """Goes through a checkpoint's pickle with stand-ins, against the sizes of the archive's other entries."""

    def __init__(self, stream: IO[bytes], sizes: dict[str, int]) -> None:
        super().__init__(stream)
        self.sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        return ADMITTED[f"{module} {name}"]

    def persistent_load(self, pid: Any) -> Stored:
        kind, key, count = pid[1], pid[2], pid[4]
        if not (pid[0] == "storage" and isinstance(kind, Kind) and isinstance(key, str) and type(count) is int):
            raise pickle.UnpicklingError("numbers that are none")
        if count * kind.width != self.sizes[f"data/{key}"]:
            raise pickle.UnpicklingError("as many numbers as are not there")
        return Stored(count)


def load(stream: IO[bytes], device: torch.device) -> Any:
    """What a checkpoint holds. Raises `Foreign` for more than tensors; for a damaged file any `Exception`."""
    check(stream)
    stream.seek(0)
    with warnings.catch_warnings(action="ignore"):
        return torch.load(stream, map_location=device, weights_only=True)


def check(stream: IO[bytes]) -> None:
    """Raises as `load` does; torch's own reader has had no part in it."""
    if stream.read(len(LEGACY)) == LEGACY:
        for _ in range(3):  # torch's version of it, about the machine, the content
            scan(stream, PERSISTENT, ADMITTED)
        raise ValueError("written by torch before 1.6")
    stream.seek(0)
    with zipfile.ZipFile(stream) as archive:
        sizes = stored_sizes(archive.infolist(), stream.seek(0, io.SEEK_END))
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = archive.read(name)
    scan(io.BytesIO(content), PERSISTENT, ADMITTED)
    Walk(io.BytesIO(content), sizes).load()


def stored_sizes(entries: list[zipfile.ZipInfo], present: int) -> dict[str, int]:
    """Bytes of each entry by its name below the archive's one folder. Raises `ValueError` unless all of them are there.

    torch.save compresses nothing.
    """
    folder = entries[0].filename.split("/")[0] + "/"
    if min(entry.header_offset for entry in entries) != 0 or sum(entry.file_size for entry in entries) > present:
        raise ValueError("more bytes than are there")
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
        most = MOST_PICKLE if entry.filename.endswith("/data.pkl") else present
        if not stored or entry.file_size > most or not entry.filename.startswith(folder):
            raise ValueError("an entry that torch.save does not write")
    return {entry.filename.removeprefix(folder): entry.file_size for entry in entries}


def tensors(found: Any) -> Iterator[Tensor]:
    """All tensors in what a checkpoint holds, whatever they lie in."""
    left, seen = [found], set()
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # a dict may hold itself
            left.extend(value.values() if isinstance(value, dict) else value)


def check_whole(name: str, tensor: Tensor) -> None:
    """Raises `ValueError` for a tensor that is not plain numbers, each with a place of its own in the file."""
    plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name} is no ordinary tensor: one with all its numbers in the file is expected")
