"""Data sets from every layout: the right pixels in the right order, where they came from, subsets, digits."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from reproduce.errors import UserError
from reproduce.run import checksums
from reproduce.run.datasets import identify, load
from reproduce.run.splits import Split, balanced
from reproduce.specs import DATASETS, DataSpec
from tests.reproduce import data_files
from tests.reproduce.data_files import open_all

torch.set_num_threads(1)


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_from_idx_files(root: Path, cache: Path, packed: bool) -> None:
    train, test = data_files.write_mnist(root, 30, 20, packed=packed)
    data = open_all("mnist", root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(train))
    assert torch.equal(data.test.images, torch.from_numpy(test))
    assert data.train.labels.dtype == torch.int64 and data.train.labels.tolist() == [i % 10 for i in range(30)]
    origin = data.origin
    assert origin.title == "MNIST (30 of 60,000 training images, 20 of 10,000 test images)"
    assert origin.source.startswith("other-") and not origin.canonical
    assert origin.files[0].path.startswith("MNIST/raw/train-images-idx3-ubyte")
    content = (root / origin.files[0].path).read_bytes()
    assert origin.files[0].sha256 == hashlib.sha256(content).hexdigest() and origin.files[0].bytes == len(content)


@pytest.mark.parametrize("protocol", [2, 3, 5])
@pytest.mark.parametrize("batches", [(1, 2, 3, 4, 5), (2,)])
def test_cifar_from_batches(root: Path, cache: Path, protocol: int, batches: tuple[int, ...]) -> None:
    images = data_files.write_cifar(root, batches, protocol=protocol)
    data = open_all("cifar10", root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(images))
    assert len(data.test) == 10 and data.test.labels.tolist() == list(range(10))
    assert (data.origin.train_images, data.origin.test_images) == (len(images), 10)


def test_batches_as_python_2_wrote_them(root: Path, cache: Path) -> None:
    images = data_files.write_cifar(root)
    path = root / "cifar-10-batches-py" / "data_batch_1"
    rows = images[:10].tobytes()
    path.write_bytes(
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x0aM\x00\x0c"
        b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(rows).to_bytes(4, "little")
        + rows
        + b"tbU\x06labels](K\x09K\x08K\x07K\x06K\x05K\x04K\x03K\x02K\x01K\x00eu."
    )
    data = open_all("cifar10", root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(images))
    assert data.train.labels[:10].tolist() == list(range(9, -1, -1))


def test_archive_holds_the_same_images_in_the_same_order(root: Path, cache: Path) -> None:
    images = data_files.write_cifar(root)
    data_files.write_archive(root, root / "cifar-10-batches-py", "cifar-10-python.tar.gz")
    shutil.rmtree(root / "cifar-10-batches-py")
    data = open_all("cifar10", root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(images))
    assert [file.path for file in data.origin.files] == ["cifar-10-python.tar.gz"]


def test_archive_comes_before_incomplete_files(root: Path, cache: Path) -> None:
    data_files.write_cifar(root)
    data_files.write_archive(root, root / "cifar-10-batches-py", "cifar-10-python.tar.gz")
    (root / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert len(open_all("cifar10", root, cache).train) == 50


def test_stl_from_binary_files(root: Path, cache: Path) -> None:
    train, _ = data_files.write_stl(root)
    data = open_all("stl10", root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(train))
    assert data.train.labels.tolist() == list(range(10))


def test_imagenet32_from_batch_files(root: Path, cache: Path) -> None:
    images = data_files.write_imagenet32(root / "imagenet32")
    data = open_all("imagenet32", root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(images))
    assert data.train.labels[:8].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert data.origin.files[9].path == "imagenet32/train_data_batch_10"


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_class_folders(root: Path, cache: Path, name: str) -> None:
    images = data_files.write_folders(root / name, name)
    (root / name / "train" / ".hidden").mkdir()
    (next((root / name / "train").iterdir()) / "notes.txt").write_text("no image, passed over")
    data = open_all(name, root, cache)
    assert torch.equal(data.train.images, torch.from_numpy(images))
    assert data.train.labels.tolist() == [i // 2 for i in range(20)]
    assert [file.path for file in data.origin.files] == [f"{name}/train/", f"{name}/test/"]
    assert "class folders of PNG, not the canonical files" in data.origin.title


def test_folder_checksum_is_of_sorted_paths_and_contents(root: Path, cache: Path) -> None:
    data_files.write_folders(root, "cifar10", 1)
    paths = sorted(path.relative_to(root / "test").as_posix() for path in (root / "test").rglob("*.png"))
    lines = "".join(f"{p} {hashlib.sha256((root / 'test' / p).read_bytes()).hexdigest()}\n" for p in paths)
    assert open_all("cifar10", root, cache).origin.files[1].sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_jpeg_images_report_progress(root: Path, cache: Path) -> None:
    data_files.write_folders(root, "cifar10", suffix=".jpg")
    calls: list[tuple[int, int]] = []
    source = identify("cifar10", root, cache=cache)
    spec = DataSpec(name="cifar10", source=source)
    data = load(spec, data_root=root, cache=cache, progress=lambda *call: calls.append(call))
    assert calls == [(20, 20), (20, 20)] and "JPEG" in data.origin.title


def test_published_checksums_make_a_source_canonical(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_files.write_cifar(root)
    for path in (root / "cifar-10-batches-py").iterdir():
        monkeypatch.setitem(checksums.PUBLISHED, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    origin = open_all("cifar10", root, cache).origin
    assert (origin.source, origin.canonical, origin.title) == ("canonical", True, "CIFAR-10")
    (root / "cifar-10-batches-py" / "data_batch_5").unlink()
    origin = open_all("cifar10", root, cache).origin
    assert origin.source.startswith("other-") and all(file.canonical for file in origin.files)


def test_source_does_not_depend_on_the_folder(tmp_path: Path, cache: Path) -> None:
    data_files.write_mnist(tmp_path / "a")
    shutil.copytree(tmp_path / "a" / "MNIST" / "raw", tmp_path / "b")
    assert identify("mnist", tmp_path / "a", cache=cache) == identify("mnist", tmp_path / "b", cache=cache)


def test_other_files_than_the_run_asks_for(root: Path, cache: Path) -> None:
    data_files.write_mnist(root)
    with pytest.raises(UserError, match=r"this run is of 'canonical'.*--data-root"):
        load(DataSpec(name="mnist", source="canonical"), data_root=root, cache=cache)


def test_missing_data_names_three_ways_out(root: Path) -> None:
    for name in DATASETS:
        with pytest.raises(UserError, match=r"--data-root DIR.*--download.*--protocol tiny"):
            identify(name, root)


def test_balanced_subset_keeps_the_first_of_each_class_in_file_order() -> None:
    labels = torch.tensor([2, 0, 0, 1, 2, 0, 1, 1, 2, 2])
    split = Split(images=torch.arange(10).view(10, 1, 1, 1).to(torch.uint8), labels=labels)
    assert balanced(split, 6, 3, "it").images.flatten().tolist() == [0, 1, 2, 3, 4, 6]
    assert balanced(split, 7, 3, "it").images.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]  # class 0 gets one more
    assert balanced(split, 2, 3, "it").images.flatten().tolist() == [1, 3]
    assert balanced(split, None, 3, "it") is split and balanced(split, 10, 3, "it") is split
    with pytest.raises(UserError, match="holds 10 images, 11 were asked for"):
        balanced(split, 11, 3, "it")
    unequal = Split(images=split.images[:7], labels=labels[:7])  # 3, 2 and 2 of the classes
    assert len(balanced(unequal, 7, 3, "it")) == 7
    with pytest.raises(UserError, match=r"class 1 has 1 images, 2 are needed.*at most 4"):
        balanced(Split(images=split.images[:6], labels=labels[:6]), 5, 3, "it")
    assert len(balanced(Split(images=split.images[:6], labels=labels[:6]), 4, 3, "it")) == 4


def test_subset_of_a_file_and_more_than_there_is(root: Path, cache: Path) -> None:
    data_files.write_mnist(root)
    data = open_all("mnist", root, cache, train_images=15, test_images=10)
    assert torch.bincount(data.train.labels).tolist() == [2] * 5 + [1] * 5
    assert (data.origin.train_images, data.origin.test_images) == (15, 10)
    with pytest.raises(UserError, match="holds 30 images, 1,000 were asked for"):
        open_all("mnist", root, cache, train_images=1000)


@pytest.mark.parametrize("name", DATASETS)
def test_digits_in_the_shape_of_every_data_set(name: str) -> None:
    count = 16 if name == "stl10" else 64
    spec = DataSpec(name=name, source="digits", train_images=count, test_images=count)  # type: ignore[arg-type]
    data, again = load(spec, data_root=None), load(spec, data_root=None)
    facts = DATASETS[name]
    assert data.train.images.shape == (count, facts.in_channels, facts.image_size, facts.image_size)
    assert data.train.images.dtype == torch.uint8 and data.train.images.max() > 200
    assert torch.bincount(data.test.labels).tolist() == [count // 10 + (i < count % 10) for i in range(10)]
    assert torch.equal(data.train.images, again.train.images)
    assert data.origin.source == "digits" and data.origin.title == f"scikit-learn's digits in place of {facts.title}"


def test_all_digits_are_balanced_and_train_and_test_share_none() -> None:
    data = load(DataSpec(name="mnist", source="digits"), data_root=None)
    assert torch.bincount(data.train.labels).tolist() == [139] * 10
    assert torch.bincount(data.test.labels).tolist() == [35] * 10
    train, test = ({bytes(i) for i in part.images.numpy()} for part in (data.train, data.test))
    assert not train & test
    with pytest.raises(UserError, match="holds 1,390 images"):
        load(DataSpec(name="mnist", source="digits", train_images=2000), data_root=None)
