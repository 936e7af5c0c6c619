"""Real data sets, and the digits that stand in for them, as uint8 tensors with their provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reproduce.errors import UserError
from reproduce.records import DataFile, DataOrigin
from reproduce.run import cache as caching
from reproduce.run import provenance, sources
from reproduce.run.digits import load_digits
from reproduce.run.downloads import DEFAULT_ROOT, download_files
from reproduce.run.inventory import Row, check, fetch, listing
from reproduce.run.sources import Source
from reproduce.run.splits import Progress, Split, balanced
from reproduce.specs import DATASETS, DataSpec

__all__ = ["Dataset", "Row", "Split", "check", "fetch", "identify", "listing", "load"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """train, test: on the CPU, as uint8; `origin` says which files they came from."""

    name: str
    train: Split
    test: Split
    origin: DataOrigin


def identify(
    name: str,
    data_root: Path | None,
    *,
    cache: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> str:
    """`DataSpec.source` of the files under `data_root` (default ./data): "canonical" or "other-xxxxxxxx".

    Hashes the files, and remembers it in the cache: the second time only their sizes and times are looked at.
    Raises `UserError` when there are none.
    """
    source = locate(name, data_root, download=download)
    return provenance.source_tag(source, provenance.data_files(source, index_of(cache), progress))


def load(
    spec: DataSpec,
    *,
    data_root: Path | None,
    cache: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """The images that `spec` names. `cache`: where decoded images are kept (default ~/.cache/reproduce-effconv).

    Raises `UserError` for missing, damaged or other files than `spec.source`, and for fewer images than asked for.
    """
    if spec.source == "digits":
        train, test, origin = load_digits(spec.name, spec.train_images, spec.test_images)
        return Dataset(name=spec.name, train=train, test=test, origin=origin)
    source = locate(spec.name, data_root, download=download)
    files = provenance.data_files(source, index_of(cache), progress)
    tag = provenance.source_tag(source, files)
    if tag != spec.source:
        raise UserError(
            f"{source.root} holds {DATASETS[spec.name].title} data {tag!r}, this run is of {spec.source!r}; "
            "give the folder of those files with --data-root DIR"
        )
    train, test = decoded(source, files, cache or caching.default_folder(), progress)
    held, classes = (len(train), len(test)), DATASETS[spec.name].num_classes
    train = balanced(train, spec.train_images, classes, f"the training set in {source.root}")
    test = balanced(test, spec.test_images, classes, f"the test set in {source.root}")
    origin = provenance.origin(source, files, held=held, used=(len(train), len(test)))
    return Dataset(name=spec.name, train=train, test=test, origin=origin)


def locate(name: str, data_root: Path | None, *, download: bool = False) -> Source:
    """The files of data set `name`; fetches them first when asked and there are none. Raises `UserError`."""
    root = data_root or DEFAULT_ROOT
    source = sources.find_or_none(name, root) if download else sources.find(name, root)
    if source is None and download:
        download_files(name, root)
        source = sources.find(name, root)
    if source is None:
        raise UserError(
            f"no {DATASETS[name].title} images in {root}; give their folder with --data-root DIR, fetch them with "
            "--download, or try the bundled digits with --protocol tiny"
        )
    return source


def decoded(
    source: Source, files: list[DataFile], cache: Path, progress: Progress | None = None
) -> tuple[Split, Split]:
    """All images of a source, (train, test): from the cache, or decoded and put there."""
    entry = caching.entry_folder(cache, source.name, provenance.fingerprint(files))
    splits = caching.read_entry(entry)
    if splits is None:
        splits = sources.read(source, progress)
        caching.write_entry(entry, *splits)
    return splits


def index_of(cache: Path | None) -> Path:
    return caching.index_folder(cache or caching.default_folder())
