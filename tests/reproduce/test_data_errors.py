"""Bad data: truncated, corrupt, hostile, foreign or missing files end in one line that names the file and the mend."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reproduce.errors import UserError
from reproduce.run import checksums
from reproduce.run.datasets import identify, load
from reproduce.run.formats import FORMATS
from reproduce.specs import DATASETS, DataSpec
from tests.reproduce import data_files

torch.set_num_threads(1)
RAW = Path("MNIST") / "raw"
BATCHES = Path("cifar-10-batches-py")


def problem(name: str, root: Path) -> str:
    """The error of loading, which must be one line and propose something."""
    cache = root.parent / "cache"
    with pytest.raises(UserError) as caught:
        spec = DataSpec(name=name, source=identify(name, root, cache=cache))  # type: ignore[arg-type]
        load(spec, data_root=root, cache=cache)
    line = str(caught.value)
    assert "\n" not in line and any(mend in line for mend in ("--download", "--data-root", "replace", "delete", "add"))
    return line


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [halve, flip])
def test_damaged_gzip(root: Path, damage: Callable[[Path], None]) -> None:
    data_files.write_mnist(root)
    damage(root / RAW / "train-images-idx3-ubyte.gz")
    assert "train-images-idx3-ubyte.gz is truncated or damaged" in problem("mnist", root)


def test_truncated_idx(root: Path) -> None:
    data_files.write_mnist(root, packed=False)
    halve(root / RAW / "t10k-images-idx3-ubyte")
    assert "its header declares 15,680 bytes, it holds only 7,832" in problem("mnist", root)


def test_trailing_bytes(root: Path) -> None:
    data_files.write_mnist(root, packed=False)
    path = root / RAW / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"x")
    assert "it holds more" in problem("mnist", root)


@pytest.mark.parametrize("packed", [False, True])
def test_declared_counts_claim_no_memory(root: Path, packed: bool) -> None:
    data_files.write_mnist(root, packed=False)
    path = root / RAW / "train-images-idx3-ubyte"
    content = struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28) + bytes(784)
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    assert "declares 3,367,254,359,280 bytes, it holds only 784" in problem("mnist", root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 not an IDX file", "magic number 0x504b0304"),
        (b"", "truncated or damaged"),
        (struct.pack(">IIII", 0x803, 1, 32, 32) + bytes(1024), "32x32 pixels"),
    ],
)
def test_no_idx_file(root: Path, content: bytes, words: str) -> None:
    data_files.write_mnist(root, packed=False)
    (root / RAW / "train-images-idx3-ubyte").write_bytes(content)
    assert words in problem("mnist", root)


def test_labels_that_do_not_fit(root: Path) -> None:
    data_files.write_mnist(root, packed=False)
    path = root / RAW / "train-labels-idx1-ubyte"
    path.write_bytes(data_files.idx(np.zeros(29, np.uint8)))
    assert "30 images but 29 labels" in problem("mnist", root)
    path.write_bytes(data_files.idx(np.full(30, 10, np.uint8)))
    assert "label 10 outside the 10 classes" in problem("mnist", root)


@pytest.mark.parametrize(("name", "missing"), [("mnist", "t10k-labels-idx1-ubyte"), ("cifar10", "test_batch")])
def test_missing_file_is_named(root: Path, name: str, missing: str) -> None:
    data_files.write_mnist(root, packed=False)
    data_files.write_cifar(root)
    next(root.rglob(missing)).unlink()
    assert f"lacks {missing}" in problem(name, root)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_runs_nothing(root: Path, tmp_path: Path) -> None:
    data_files.write_cifar(root)
    trap = tmp_path / "trap"
    (root / BATCHES / "data_batch_1").write_bytes(pickle.dumps({b"data": Hostile(trap), b"labels": [0]}))
    assert "asks for posix.mkdir" in problem("cifar10", root)
    assert not trap.exists()


ROWS = np.zeros((2, 3072), np.uint8)
SHAPE_LIE = pickle.dumps({"data": ROWS, "labels": [0, 1]}, 2).replace(b"K\x02M\x00\x0c\x86", b"K\xffM\x00\x0c\x86")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"data": ROWS, "labels": [0, 1]})[:-100], "truncated"),
        (b"", "truncated"),
        (b"\x80\x02", "truncated"),
        (pickle.dumps([1, 2]), "no attribute 'get'"),
        (pickle.dumps({"data": ROWS}), "labels are not 2 integers"),
        (pickle.dumps({"data": ROWS, "labels": ["a", "b"]}), "labels are not 2 integers"),
        (pickle.dumps({"data": ROWS, "labels": [0]}), "labels are not 2 integers"),
        (pickle.dumps({"data": ROWS.astype(np.float32), "labels": [0, 1]}), "float32"),
        (pickle.dumps({"data": ROWS[:, :100], "labels": [0, 1]}), "shape (2, 100)"),
        (pickle.dumps({"data": ROWS.astype(object), "labels": [0, 1]}), "an array of 'O8'"),
        (SHAPE_LIE, "declares 783,360 bytes and holds 6,144"),
        (pickle.dumps({"data": eval, "labels": [0, 1]}), "builtins.eval"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "truncated"),
    ],
)
def test_pickles_that_are_no_batch(root: Path, content: bytes, words: str) -> None:
    data_files.write_cifar(root)
    (root / BATCHES / "data_batch_2").write_bytes(content)
    line = problem("cifar10", root)
    assert "data_batch_2" in line and words in line


IDX = data_files.idx(data_files.pixels("mnist", 2))
BATCH = data_files.batch(data_files.pixels("cifar10", 2), [3, 4], 4)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([("mnist", IDX), ("mnist", gzip.compress(IDX)), ("cifar10", BATCH)]))
def test_any_damage_is_either_harmless_or_a_user_error(data: st.DataObject, file: tuple[str, bytes]) -> None:
    name, content = file
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
    places = st.integers(0, min(len(damaged), 200) - 1) if damaged else st.nothing()
    for place in data.draw(st.lists(places, max_size=4 if damaged else 0)):
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        FORMATS[name].parse("the file", bytes(damaged), DATASETS[name])


def test_label_zero_in_imagenet32(root: Path) -> None:
    data_files.write_imagenet32(root)
    (root / "val_data").write_bytes(data_files.batch(data_files.pixels("imagenet32", 1), [0], 4))
    assert "label -1 outside the 1000 classes" in problem("imagenet32", root)


def test_truncated_archive_and_binary_file(root: Path) -> None:
    data_files.write_cifar(root)
    path = data_files.write_archive(root, root / BATCHES, "cifar-10-python.tar.gz")
    (root / BATCHES / "test_batch").unlink()
    halve(path)
    assert "cifar-10-python.tar.gz is truncated or damaged" in problem("cifar10", root)
    data_files.write_stl(root)
    path = root / "stl10_binary" / "train_X.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "train_X.bin is truncated" in problem("stl10", root)


def test_canonical_size_with_a_wrong_checksum(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_files.write_cifar(root)
    path = root / BATCHES / "data_batch_4"
    monkeypatch.setitem(checksums.DISTINCTIVE_BYTES, path.name, path.stat().st_size)
    assert "data_batch_4 has the canonical size but a wrong checksum" in problem("cifar10", root)


@pytest.mark.parametrize("damage", ["text", "half", "empty"])
def test_unreadable_image(root: Path, damage: str) -> None:
    data_files.write_folders(root, "cifar10", suffix=".jpg")
    path = root / "test" / "frog" / "0001.jpg"
    content = path.read_bytes()
    path.write_bytes({"text": b"no image", "half": content[: len(content) // 2], "empty": b""}[damage])
    line = problem("cifar10", root)
    assert f"{path} is not a readable image" in line and "replace or delete it" in line


def test_image_of_another_size(root: Path) -> None:
    data_files.write_folders(root, "cifar10")
    Image.new("RGB", (28, 30)).save(root / "train" / "cat" / "0000.png")
    assert "0000.png has 28x30 pixels, CIFAR-10 has 32x32" in problem("cifar10", root)


def test_class_folders_that_do_not_fit(root: Path) -> None:
    data_files.write_folders(root, "cifar10")
    assert "10 class folders, ImageNet-32 has 1,000 classes" in problem("imagenet32", root)
    (root / "train" / "zebra").mkdir()
    assert "class folder zebra is not in both" in problem("cifar10", root)
    (root / "test").rename(root / "elsewhere")
    assert "no folder test" in problem("cifar10", root)
