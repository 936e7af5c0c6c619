"""What `reproduce data` shows: which data sets lie in a folder, in what form, and whether they are whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reproduce.errors import UserError
from reproduce.records import DataFile
from reproduce.run import cache as caching
from reproduce.run import folders, provenance, sources
from reproduce.run.downloads import DEFAULT_ROOT, download_files
from reproduce.run.sources import Source
from reproduce.run.splits import Progress
from reproduce.specs import DATASETS


@dataclass(frozen=True, kw_only=True)
class Row:
    """One data set in a data folder. `layout`, `source` and the counts are None where nothing readable was found."""

    name: str
    title: str
    layout: str | None = None  # "IDX files", "class folders", ...
    source: str | None = None  # as in `DataSpec.source`
    train_images: int | None = None
    test_images: int | None = None
    canonical: bool = False
    state: str  # of the checksums; or what is wrong, and the mend


def listing(data_root: Path | None, *, cache: Path | None = None, progress: Progress | None = None) -> list[Row]:
    """One row for each data set, found or not. Never raises `UserError`: what is damaged says so in its row.

    Looks at checksums, and decodes files that are not canonical, but no image folders: `check` does.
    """
    root = data_root or DEFAULT_ROOT
    rows = []
    for name, facts in DATASETS.items():
        try:
            source = sources.find(name, root)
            if source is None or not plausible(source):
                rows.append(Row(name=name, title=facts.title, state="not found"))
                continue
            where = cache or caching.default_folder()
            files = provenance.data_files(source, caching.index_folder(where), progress)
            rows.append(row(source, files, held(source, files)))
        except UserError as error:
            rows.append(Row(name=name, title=facts.title, state=str(error)))
    return rows


def check(name: str, data_root: Path | None, *, progress: Progress | None = None) -> Row:
    """Hashes and decodes every file anew, trusting no cache. Raises `UserError` for what is missing or damaged."""
    root = data_root or DEFAULT_ROOT
    source = sources.find(name, root)
    if source is None:
        raise UserError(f"no {DATASETS[name].title} images in {root}; give their folder with --data-root DIR")
    files = provenance.data_files(source, None, progress)
    train, test = sources.read(source, progress)
    return row(source, files, (len(train), len(test)))


def fetch(name: str, data_root: Path | None, *, progress: Progress | None = None) -> Row:
    """Downloads what is missing of the canonical files, then checks everything. Overwrites nothing.

    Raises `UserError`, also for other files that are in the way.
    """
    root = data_root or DEFAULT_ROOT
    source = sources.find_or_none(name, root)
    if source is not None and not provenance.is_canonical(source, provenance.data_files(source, None)):
        raise UserError(
            f"{source.paths[0].parent} already holds other {DATASETS[name].title} data ({source.layout}); "
            "give an empty folder with --data-root DIR"
        )
    if source is None:
        download_files(name, root)
    return check(name, root, progress=progress)


def plausible(source: Source) -> bool:
    """False for class folders whose number of classes or first image belong to another data set."""
    if source.layout != sources.CLASS_FOLDERS or source.paths[0].parent.name == source.name:
        return True
    if len(folders.class_names(source.paths[0])) != source.facts.num_classes or not source.listing[0]:
        return False
    try:
        folders.pixels(source.paths[0] / source.listing[0][0].path, source.facts)
    except UserError:
        return False
    return True


def held(source: Source, files: list[DataFile]) -> tuple[int, int]:
    """Training and test images of a source: known for canonical files, counted in folders, else read."""
    if provenance.is_canonical(source, files):
        return source.facts.train_images, source.facts.test_images
    if source.layout == sources.CLASS_FOLDERS:
        return len(source.listing[0]), len(source.listing[1])
    train, test = sources.read(source)
    return len(train), len(test)


def row(source: Source, files: list[DataFile], counts: tuple[int, int]) -> Row:
    canonical = provenance.is_canonical(source, files)
    known = sum(file.canonical for file in files)
    others = "none of the files is canonical" if known == 0 else f"{known} of {len(files)} files are canonical"
    return Row(
        name=source.name,
        title=provenance.title(source, files, counts),
        layout=source.layout,
        source=provenance.source_tag(source, files),
        train_images=counts[0],
        test_images=counts[1],
        canonical=canonical,
        state="canonical checksums" if canonical else others,
    )
