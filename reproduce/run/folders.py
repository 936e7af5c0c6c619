"""Images as files in class folders, `train/<class>/*.jpg` and `test/<class>/*.jpg`: listing and decoding."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reproduce.errors import UserError
from reproduce.run.checksums import Listed
from reproduce.run.splits import Progress, Split, tell
from reproduce.specs import DatasetFacts

SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")  # Pillow knows many more, of which some start other programs


def class_order(name: str) -> tuple[int, str]:
    """Sorts class names; those that are numbers by value."""
    return (int(name), "") if name.isdecimal() else (-1, name)


def class_names(folder: Path) -> list[str]:
    """Names of the class folders in `folder`, in the order of their labels."""
    return sorted((entry.name for entry in scan(folder) if entry.is_dir() and entry.name[0] != "."), key=class_order)


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in `folder`. Raises `UserError` where it cannot be looked into."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}); allow reading, or give another --data-root DIR"
        ) from error


def list_images(folder: Path) -> list[Listed]:
    """The images in the class folders of `folder`, class by class in path order, but no hidden and no other files."""
    files = []
    for name in class_names(folder):
        chosen = [
            e for e in scan(folder / name) if e.name.lower().endswith(SUFFIXES) and e.name[0] != "." and e.is_file()
        ]
        for entry in sorted(chosen, key=lambda entry: entry.name):
            stat = entry.stat()
            files.append(Listed(f"{name}/{entry.name}", stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return files


def check_classes(train: Path, test: Path, facts: DatasetFacts) -> list[str]:
    """Class names, label by label. Raises `UserError` unless both folders have the same, as many as the data set."""
    classes, others = class_names(train), class_names(test)
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise UserError(f"{train.parent}: class folder {odd[0]} is not in both train/ and test/; add or delete it")
    if len(classes) != facts.num_classes:
        raise UserError(
            f"{train} has {len(classes):,} class folders, {facts.title} has {facts.num_classes:,} classes; "
            f"give the folder of {facts.title} with --data-root DIR"
        )
    return classes


def decode(
    folder: Path,
    files: Sequence[Listed],
    classes: Sequence[str],
    facts: DatasetFacts,
    progress: Progress | None = None,
) -> Split:
    """The images `files` of `folder`, in their order. Raises `UserError` for one that is no image of the right size."""
    if not files:
        raise UserError(f"{folder} holds no .jpg or .png images; give another folder with --data-root DIR")
    label = {name: index for index, name in enumerate(classes)}
    images = np.empty((len(files), facts.in_channels, facts.image_size, facts.image_size), np.uint8)
    labels = np.empty(len(files), np.int64)
    for i, file in enumerate(files):
        images[i] = pixels(folder / file.path, facts)
        labels[i] = label[file.path.split("/", 1)[0]]
        tell(progress, i + 1, len(files))
    return Split(images=torch.from_numpy(images), labels=torch.from_numpy(labels))


def pixels(path: Path, facts: DatasetFacts) -> NDArray[np.uint8]:
    """path -> (C, H, W) uint8, grey or RGB as the data set has it. The size is checked before anything is decoded."""
    try:
        content = io.BytesIO(path.read_bytes())  # a file sets aside what a chunk claims to hold; this, what is there
        with warnings.catch_warnings(action="ignore"), Image.open(content, formats=FORMATS) as image:
            size, expected = image.size, (facts.image_size, facts.image_size)
            if size == expected:
                decoded = np.asarray(image.convert("L" if facts.in_channels == 1 else "RGB"))
    except Exception as error:  # a damaged file may fail anywhere in Pillow
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is not a readable image ({reason}); replace or delete it") from error
    if size != expected:
        raise UserError(
            f"{path} has {size[0]}x{size[1]} pixels, {facts.title} has {expected[0]}x{expected[1]}; "
            f"replace it, or give the folder of {facts.title} with --data-root DIR"
        )
    return decoded[None] if decoded.ndim == 2 else decoded.transpose(2, 0, 1)
