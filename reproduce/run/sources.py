"""Finds a data set's files in a data folder, whatever the layout, and reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reproduce.errors import UserError
from reproduce.run import folders, tarballs
from reproduce.run.checksums import Listed
from reproduce.run.formats import FORMATS, MEND, Arrays, Format, most_bytes
from reproduce.run.splits import Progress, Split, assemble, off_heap
from reproduce.specs import DATASETS, DatasetFacts

CLASS_FOLDERS = "class folders"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was found: files of the data set's own format, its archive, or the two folders `train` and `test`."""

    name: str
    layout: str
    root: Path  # the data folder; provenance names paths relative to it
    paths: tuple[Path, ...]
    complete: bool  # no file of the distribution is missing

    @cached_property
    def listing(self) -> tuple[list[Listed], list[Listed]]:
        """Of class folders, the images of both splits; looked up once."""
        return folders.list_images(self.paths[0]), folders.list_images(self.paths[1])

    @property
    def facts(self) -> DatasetFacts:
        return DATASETS[self.name]


def find(name: str, data_root: Path) -> Source | None:
    """The files of data set `name` under `data_root/<name>` or `data_root`; None without any.

    Complete files of its own format come first, then its archive, incomplete files, and class folders.
    Raises `UserError` when some files are there and others that are needed are not.
    """
    bases = (data_root / name, data_root)
    archive = find_archive(name, data_root, bases)
    try:
        files = find_files(name, data_root, bases)
    except UserError:
        if archive is None:
            raise
        return archive
    if files is not None and files.complete:
        return files
    return archive or files or find_folders(name, data_root, bases)


def find_or_none(name: str, data_root: Path) -> Source | None:
    """Like `find`, but files of which some are missing count as none: they are to be fetched."""
    try:
        source = find(name, data_root)
    except UserError:
        return None
    fetched = source is not None and source.layout == FORMATS[name].layout and not source.complete
    return None if fetched else source


def find_files(name: str, root: Path, bases: tuple[Path, ...]) -> Source | None:
    form = FORMATS[name]
    found: dict[str, Path] = {}
    for file in form.train + form.test:
        spelt = [file + suffix for suffix in form.suffixes]
        places = (base / folder / one for one in spelt for base in bases for folder in form.folders)
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            found[file] = path
    if not found:
        return None
    missing = [file for file in form.needed if file not in found]
    missing += [form.train[0]] if not any(file in found for file in form.train) else []
    if missing:
        raise UserError(f"{next(iter(found.values())).parent} lacks {missing[0]}; fetch it with --download")
    complete = len(found) == len(form.train + form.test)
    return Source(name=name, layout=form.layout, root=root, paths=tuple(found.values()), complete=complete)


def find_archive(name: str, root: Path, bases: tuple[Path, ...]) -> Source | None:
    form = FORMATS[name]
    for base in bases:
        if form.archive is not None and (base / form.archive).is_file():
            layout = f"{form.layout} in an archive"
            return Source(name=name, layout=layout, root=root, paths=(base / form.archive,), complete=True)
    return None


def find_folders(name: str, root: Path, bases: tuple[Path, ...]) -> Source | None:
    for base in bases:
        train, test = base / "train", base / "test"
        if train.is_dir() and folders.class_names(train):
            if not test.is_dir():
                raise UserError(f"{base} has a folder train but no folder test; add test/<class>/*.jpg")
            return Source(name=name, layout=CLASS_FOLDERS, root=root, paths=(train, test), complete=False)
    return None


def read(source: Source, progress: Progress | None = None) -> tuple[Split, Split]:
    """Decodes everything: (train, test). `progress` is called for image folders, which take long."""
    if source.layout == CLASS_FOLDERS:
        classes = folders.check_classes(source.paths[0], source.paths[1], source.facts)
        train, test = (
            folders.decode(path, files, classes, source.facts, progress)
            for path, files in zip(source.paths, source.listing, strict=True)
        )
        return train, test
    form = FORMATS[source.name]
    parsed: dict[str, Arrays] = {}
    for file, where, content in contents(source, form):
        parsed[file] = form.parse(where, content, source.facts)
        del content  # before the next file is read
        if "images" in parsed[file]:
            parsed[file]["images"] = off_heap(parsed[file]["images"])
    train = joined(parsed, form.train, source, "training")
    return train, joined(parsed, form.test, source, "test")


def contents(source: Source, form: Format) -> Iterator[tuple[str, str, bytes]]:
    """Each file of the format: (name, where it is, for messages, content)."""
    if source.layout == form.layout:
        for path in source.paths:
            try:
                yield path.name.removesuffix(".gz"), str(path), path.read_bytes()
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); {MEND}") from error
        return
    archive = source.paths[0]
    try:
        for name, content in tarballs.members(archive, form.train + form.test, most_bytes(source.facts)):
            yield name, f"{archive}:{name}", content
    except tarballs.DAMAGED as error:
        raise UserError(f"{archive} is truncated or damaged ({error}); {MEND}") from error


def joined(parsed: dict[str, Arrays], names: tuple[str, ...], source: Source, what: str) -> Split:
    """The files `names` as one split. Takes them out of `parsed`."""
    parts = [parsed.pop(name) for name in names if name in parsed]
    labels = [part["labels"] for part in parts if "labels" in part]
    images = [part.pop("images") for part in parts if "images" in part]
    return assemble(images, labels, source.facts, f"the {what} set in {source.paths[0].parent}")
