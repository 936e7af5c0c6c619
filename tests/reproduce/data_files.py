"""Writes small files in each format that a data set comes in, for the tests of the readers."""

from __future__ import annotations

import gzip
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reproduce.run.datasets import Dataset, identify, load
from reproduce.specs import DATASETS, DataSpec

Pixels = NDArray[np.uint8]
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixels(name: str, count: int, seed: int = 0) -> Pixels:
    """(count, C, H, W) random images in the shape of data set `name`."""
    facts = DATASETS[name]
    shape = (count, facts.in_channels, facts.image_size, facts.image_size)
    return np.random.default_rng([count, seed]).integers(0, 256, shape, np.uint8)


def idx(values: Pixels) -> bytes:
    """One IDX file: images (n, 1, 28, 28) or labels (n,)."""
    if values.ndim == 1:
        return struct.pack(">II", 0x801, len(values)) + values.tobytes()
    return struct.pack(">IIII", 0x803, len(values), *values.shape[2:]) + values.tobytes()


def write_mnist(root: Path, train: int = 30, test: int = 20, *, packed: bool = True) -> tuple[Pixels, Pixels]:
    """`root/MNIST/raw/*`, labels 0, 1, ... 9, 0, ...; returns the images."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels("mnist", train), pixels("mnist", test, 1)
    for part, values in zip(("train", "t10k"), images, strict=True):
        labels = np.arange(len(values), dtype=np.uint8) % 10
        for what, content in (("images-idx3", idx(values)), ("labels-idx1", idx(labels))):
            path = folder / f"{part}-{what}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return images


def batch(images: Pixels, labels: list[int], protocol: int = 2, **more: Any) -> bytes:
    """One batch file as Python 2 (keys are bytes) or 3 wrote it."""
    rows = np.ascontiguousarray(images.reshape(len(images), -1))
    key = (lambda text: text.encode()) if protocol < 3 else (lambda text: text)
    content = {key("data"): rows, key("labels"): labels, key("filenames"): ["x.png"] * len(images), **more}
    return pickle.dumps(content, protocol=protocol)


def write_cifar(root: Path, batches: tuple[int, ...] = (1, 2, 3, 4, 5), size: int = 10, protocol: int = 2) -> Pixels:
    """`root/cifar-10-batches-py/*`, `size` images each; returns the training images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels("cifar10", size * 6)
    for i, number in enumerate((*batches, 6)):
        name = f"data_batch_{number}" if number < 6 else "test_batch"
        (folder / name).write_bytes(batch(images[i * size :][:size], [k % 10 for k in range(size)], protocol))
    return images[: size * len(batches)]


def write_archive(root: Path, folder: Path, name: str) -> Path:
    """All files of `folder` in a .tar.gz, last ones first."""
    with tarfile.open(root / name, "w:gz") as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.add(path, f"{folder.name}/{path.name}")
    return root / name


def write_stl(root: Path, train: int = 10, test: int = 10) -> tuple[Pixels, Pixels]:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels("stl10", train), pixels("stl10", test, 1)
    for part, values in zip(("train", "test"), images, strict=True):
        (folder / f"{part}_X.bin").write_bytes(values.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes((np.arange(len(values), dtype=np.uint8) % 10 + 1).tobytes())
    return images


def write_imagenet32(root: Path, size: int = 4) -> Pixels:
    """Ten batch files and val_data, labels from 1; returns the training images."""
    root.mkdir(parents=True, exist_ok=True)
    images = pixels("imagenet32", size * 11)
    for i in range(11):
        name = f"train_data_batch_{i + 1}" if i < 10 else "val_data"
        labels = [100 * i % 1000 + k + 1 for k in range(size)]
        more: dict[str, Any] = {"mean": np.zeros(3072)} if i < 10 else {}
        (root / name).write_bytes(batch(images[i * size :][:size], labels, 4, **more))
    return images[: size * 10]


def write_folders(root: Path, name: str, per_class: int = 2, suffix: str = ".png") -> Pixels:
    """`root/train/<class>/0000.png` and `root/test/...`, as many each; returns the training images in order."""
    classes = CIFAR_CLASSES if name == "cifar10" else [str(i) for i in range(DATASETS[name].num_classes)]
    images = pixels(name, len(classes) * per_class)
    for part in ("train", "test"):
        for i, values in enumerate(images):
            folder = root / part / classes[i // per_class]
            folder.mkdir(parents=True, exist_ok=True)
            picture = values[0] if len(values) == 1 else values.transpose(1, 2, 0)
            Image.fromarray(picture).save(folder / f"{i % per_class:04d}{suffix}")
    return images


def open_all(name: str, root: Path, cache: Path, **counts: int) -> Dataset:
    """Identifies and loads the files under `root`."""
    spec = DataSpec(name=name, source=identify(name, root, cache=cache), **counts)  # type: ignore[arg-type]
    return load(spec, data_root=root, cache=cache)
