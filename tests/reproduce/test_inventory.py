"""What `reproduce data` does: fetching (from a folder that stands for the network), listing and checking."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reproduce.errors import UserError
from reproduce.run import checksums, downloads
from reproduce.run.datasets import check, fetch, identify, listing
from tests.reproduce import data_files

torch.set_num_threads(1)
RAW = Path("MNIST") / "raw"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_checksums_are_those_of_torchvision() -> None:
    from torchvision.datasets import CIFAR10, MNIST, STL10

    table = dict([*MNIST.resources, *CIFAR10.train_list, *CIFAR10.test_list, *STL10.train_list, *STL10.test_list])
    table |= {CIFAR10.filename: CIFAR10.tgz_md5, STL10.filename: STL10.tgz_md5}
    table.pop("unlabeled_X.bin")
    assert table.items() <= checksums.PUBLISHED.items()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the network: `download_url` copies from it."""
    folder = tmp_path / "server"
    folder.mkdir()

    def copy(url: str, root: str, filename: str) -> None:
        source = folder / url.rsplit("/", 1)[1]
        if not source.is_file():
            raise RuntimeError("File not found")
        Path(root).mkdir(parents=True, exist_ok=True)
        (Path(root) / filename).write_bytes(source.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy)
    return folder


def serve_mnist(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_files.write_mnist(server)
    for path in (server / RAW).iterdir():
        path.rename(server / path.name)
        monkeypatch.setitem(checksums.PUBLISHED, path.name, checksums.hash_file(server / path.name).md5)


def test_download_only_when_asked(root: Path, server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_mnist(server, monkeypatch)
    with pytest.raises(UserError, match="no MNIST images"):
        identify("mnist", root, cache=tmp_path / "cache")
    assert not root.exists()
    assert identify("mnist", root, cache=tmp_path / "cache", download=True) == "canonical"
    assert fetch("mnist", root).state == "canonical checksums"


def test_download_that_fails_or_is_wrong_leaves_nothing(
    root: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz .*could not be fetched.*File not found"):
        fetch("mnist", root)
    serve_mnist(server, monkeypatch)
    flip(server / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte.gz .*wrong checksum"):
        fetch("mnist", root)
    assert len(list((root / RAW).iterdir())) == 3
    with pytest.raises(UserError, match="by hand"):
        downloads.download_files("imagenet32", root)


def test_download_never_overwrites(root: Path, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_mnist(server, monkeypatch)
    data_files.write_mnist(root, 40)
    before = {path: path.read_bytes() for path in (root / RAW).iterdir()}
    with pytest.raises(UserError, match="already holds other MNIST data"):
        fetch("mnist", root)
    (root / RAW / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is not the canonical file"):
        fetch("mnist", root)
    assert all(before[path] == path.read_bytes() for path in (root / RAW).iterdir())


def test_listing_and_check(root: Path, tmp_path: Path) -> None:
    data_files.write_mnist(root)
    data_files.write_stl(root)
    data_files.write_folders(root, "cifar10")
    cut(root / "stl10_binary" / "train_X.bin")
    rows = {row.name: row for row in listing(root, cache=tmp_path / "cache")}
    mnist, cifar = rows["mnist"], rows["cifar10"]
    assert (mnist.layout, mnist.train_images, mnist.test_images, mnist.canonical) == ("IDX files", 30, 20, False)
    assert (cifar.layout, cifar.train_images, cifar.state) == ("class folders", 20, "none of the files is canonical")
    assert "train_X.bin is truncated" in rows["stl10"].state and rows["imagenet32"].state == "not found"
    assert check("mnist", root) == mnist and check("cifar10", root) == cifar
    with pytest.raises(UserError, match=r"train_X.bin is truncated"):
        check("stl10", root)
    with pytest.raises(UserError, match=r"no ImageNet-32 images|class folders"):
        check("imagenet32", root)
