"""The cache of decoded images: spares the second decoding, notices every change and damage, and is never needed."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from reproduce.run import sources
from reproduce.run.datasets import identify
from tests.reproduce import data_files
from tests.reproduce.data_files import open_all

torch.set_num_threads(1)


def test_cache_spares_the_second_decoding(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_files.write_folders(root, "cifar10")
    first = open_all("cifar10", root, cache)
    monkeypatch.setattr(sources, "read", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} hashed again"))
    second = open_all("cifar10", root, cache)
    assert torch.equal(first.train.images, second.train.images) and first.origin == second.origin


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "json", "header", "gone"])
def test_damaged_cache_is_rebuilt_with_one_line(
    root: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    data_files.write_mnist(root)
    first = open_all("mnist", root, cache)
    (entry,) = (cache / "decoded").iterdir()
    victim = entry / ("arrays.json" if damage == "json" else "test_images.npy")
    content = bytearray(victim.read_bytes())
    place = 20 if damage == "header" else len(content) // 2
    content[place] ^= 1
    changed = {"truncate": bytes(content[:-9]), "empty": b"", "json": b"[1]"}
    victim.write_bytes(changed.get(damage, bytes(content)))
    if damage == "gone":
        shutil.rmtree(cache)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(open_all("mnist", root, cache).test.images, first.test.images)
    assert len(caplog.records) == (0 if damage == "gone" else 1)
    caplog.clear()
    open_all("mnist", root, cache)
    assert not caplog.records  # repaired


def test_cache_that_cannot_be_written_costs_nothing_but_time(root: Path, cache: Path) -> None:
    train, _ = data_files.write_mnist(root)
    cache.write_text("a file where the folder should be")
    assert np.array_equal(open_all("mnist", root, cache).train.images.numpy(), train)


def test_changed_file_is_noticed_even_with_the_same_size_and_time(root: Path, cache: Path) -> None:
    data_files.write_mnist(root, packed=False)
    before = identify("mnist", root, cache=cache)
    path = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identify("mnist", root, cache=cache) != before
