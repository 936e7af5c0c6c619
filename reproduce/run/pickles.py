"""Batch files of CIFAR-10 and ImageNet-32: Python pickles, read without trusting them."""

from __future__ import annotations

import io
import pickle
import re
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reproduce.errors import UserError
from reproduce.run.opcodes import scan


class Bytes(bytes):
    """Stands for `_codecs.encode`: how Python 3 writes bytes in an old pickle protocol."""

    def __new__(cls, text: str, encoding: str = "latin1") -> Self:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("text in another encoding than latin1")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("bytes with a state")


class Dtype:
    """Stands for `numpy.dtype`: a kind and a width, nothing else."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = plain(code)
        if not re.fullmatch(r"[uif][1248]", self.code):
            raise pickle.UnpicklingError(f"an array of {self.code!r}")
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = plain(state[1])
        if order not in ("|", "<", "="):
            raise pickle.UnpicklingError(f"an array in byte order {order!r}")
        self.order = order


def plain(text: Any) -> str:
    """A short text. No other value gets into a message: that of lists within lists may have no end."""
    text = text.decode("ascii") if isinstance(text, bytes) else text
    if not isinstance(text, str) or len(text) > 20:
        raise pickle.UnpicklingError("an array of no known type")
    return text


class Array:
    """Stands for `numpy.ndarray` and its `_reconstruct`: keeps the description; numpy sees checked values only."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = Dtype("u1")
        self.fortran = False
        self.raw: bytes | bytearray = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.shape, self.dtype, self.fortran, self.raw = state[-4:]

    def values(self) -> NDArray[Any]:
        """The array. Raises `UnpicklingError` unless the bytes present are exactly those that the shape declares."""
        whole = isinstance(self.raw, bytes | bytearray) and isinstance(self.dtype, Dtype)
        shape = self.shape if isinstance(self.shape, tuple) and len(self.shape) <= 2 else (-1,)
        if not whole or not all(isinstance(n, int) and 0 <= n < 2**63 for n in shape):
            raise pickle.UnpicklingError("an array that is none")
        dtype = np.dtype("<" + self.dtype.code)
        declared = dtype.itemsize
        for n in shape:
            declared *= n
        if declared != len(self.raw):
            raise pickle.UnpicklingError(f"an array declares {declared:,} bytes and holds {len(self.raw):,}")
        return np.frombuffer(self.raw, dtype).reshape(shape, order="F" if self.fortran else "C")


class Buffer(Array):
    """Stands for `numpy._frombuffer`, the array of pickle protocol 5."""

    def __init__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        super().__init__()
        self.raw, self.dtype, self.shape = raw, dtype, shape
        self.fortran = isinstance(order, str) and order == "F"


ADMITTED: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): Bytes,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): Buffer,
    ("numpy._core.numeric", "_frombuffer"): Buffer,
}


class Restricted(pickle.Unpickler):
    """Admits dicts, lists, text, numbers and plain arrays; every other name in a pickle ends the reading."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return ADMITTED[module, name]


def integers(labels: Any) -> NDArray[np.int64]:
    """labels: a flat list -> (n,). Numpy must not see one of lists within lists, which may unfold without end."""
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        return np.empty(0, np.float64)
    return np.array(labels, np.int64)


def read_batch(where: str, content: bytes, *, first_label: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Rows of 3x32x32 pixels and labels of one batch file -> ((n, 3, 32, 32) uint8, (n,) int64 from 0).

    `first_label` is the number of the first class: 0 for CIFAR-10, 1 for ImageNet-32 (its authors count from 1).
    Raises `UserError` for whatever is no such file, without running anything that it holds.
    """
    try:
        stream = io.BytesIO(content)
        scan(stream)
        stream.seek(0)
        batch = Restricted(stream, encoding="bytes").load()
        data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
        rows = data.values()
        classes = labels.values() if isinstance(labels, Array) else integers(labels)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32:
            raise pickle.UnpicklingError(f"its data is {rows.dtype} of shape {rows.shape}, not rows of 3,072 bytes")
        if classes.dtype.kind not in "iu" or classes.shape != (len(rows),):
            raise pickle.UnpicklingError(f"its labels are not {len(rows):,} integers")
    except Exception as error:  # a hostile or damaged pickle may provoke anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{where} is truncated, damaged or no batch of images ({reason}); "
            "delete it and fetch it again with --download"
        ) from error
    return rows.reshape(-1, 3, 32, 32), classes.astype(np.int64) - first_label
