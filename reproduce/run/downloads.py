"""Fetches the canonical files where they may be fetched without a login; never over a file that is there."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

from reproduce.errors import UserError
from reproduce.run.checksums import PUBLISHED, hash_file
from reproduce.specs import DATASETS

DEFAULT_ROOT = Path("data")


def download_files(name: str, data_root: Path) -> list[Path]:
    """The canonical files of data set `name`, in torchvision's layout under `data_root`. Those that are there stay.

    Raises `UserError` for ImageNet-32 (its site asks for a login), a failed download and a wrong checksum.
    """
    if name == "imagenet32":
        raise UserError(
            "ImageNet-32 has to be fetched by hand: log in at https://image-net.org/download-images, unpack both "
            "archives, and give the folder with train_data_batch_1 ... 10 and val_data with --data-root DIR"
        )
    return [fetched(path, urls, DATASETS[name].title) for path, urls in wanted(name, data_root)]


def wanted(name: str, data_root: Path) -> list[tuple[Path, list[str]]]:
    """(where it goes, where it is to be had) of each file, as torchvision knows them."""
    from torchvision import datasets  # takes seconds to import, and only a download needs it

    if name == "mnist":
        return [
            (data_root / "MNIST" / "raw" / file, [mirror + file for mirror in datasets.MNIST.mirrors])
            for file, _ in datasets.MNIST.resources
        ]
    dataset = {"cifar10": datasets.CIFAR10, "stl10": datasets.STL10}[name]
    return [(data_root / dataset.filename, [dataset.url])]


def fetched(path: Path, urls: list[str], title: str) -> Path:
    """Downloads one file beside its place, checks it, and moves it there. Progress goes to stderr."""
    from torchvision.datasets.utils import download_url

    if path.exists():
        if hash_file(path).md5 != PUBLISHED[path.name]:
            raise UserError(
                f"{path} is not the canonical file of {title}; move it away, or give another --data-root DIR"
            )
        return path
    part = path.with_name(path.name + ".part")
    reason = ""
    for url in urls:
        part.unlink(missing_ok=True)  # of a download that was killed: torchvision would take it as it is
        try:
            download_url(url, str(path.parent), filename=part.name)
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            reason = " ".join(str(error).split())[:200]
            continue
        if hash_file(part).md5 == PUBLISHED[path.name]:
            part.replace(path)
            return path
        part.unlink()
        reason = "wrong checksum"
    raise UserError(
        f"{path.name} of {title} could not be fetched from {urls[-1]} ({reason}); try again later, or fetch it by hand "
        f"into {path.parent}"
    )
