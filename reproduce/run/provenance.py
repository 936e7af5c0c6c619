"""What the files of a source are: checksums, canonical or not, the tag of `DataSpec.source`, a title for people."""

from __future__ import annotations

import hashlib
from pathlib import Path

from reproduce.errors import UserError
from reproduce.records import DataFile, DataOrigin
from reproduce.run.checksums import DISTINCTIVE_BYTES, PUBLISHED, file_checksum, folder_checksum
from reproduce.run.formats import MEND
from reproduce.run.sources import CLASS_FOLDERS, Source
from reproduce.run.splits import Progress


def data_files(source: Source, index: Path | None, progress: Progress | None = None) -> list[DataFile]:
    """Provenance, file by file; `index` as in `checksums`. Raises `UserError` for a file that is certainly damaged."""
    described = []
    for i, path in enumerate(source.paths):
        relative = path.relative_to(source.root).as_posix()
        if source.layout == CLASS_FOLDERS:
            checksum = folder_checksum(path, source.listing[i], index, progress)
            relative += "/"
        else:
            checksum = file_checksum(path, index)
        canonical = checksum.md5 != "" and checksum.md5 == PUBLISHED.get(path.name)
        if not canonical and checksum.bytes == DISTINCTIVE_BYTES.get(path.name):
            raise UserError(f"{path} has the canonical size but a wrong checksum, so it is damaged; {MEND}")
        described.append(DataFile(path=relative, sha256=checksum.sha256, bytes=checksum.bytes, canonical=canonical))
    return described


def fingerprint(files: list[DataFile]) -> str:
    """64 hex digits: SHA-256 over name and checksum of each file, wherever the data folder keeps them."""
    lines = "".join(f"{Path(file.path).name} {file.sha256}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def is_canonical(source: Source, files: list[DataFile]) -> bool:
    return source.complete and all(file.canonical for file in files)


def source_tag(source: Source, files: list[DataFile]) -> str:
    """`DataSpec.source`: "canonical", or "other-" and 8 hex digits."""
    return "canonical" if is_canonical(source, files) else f"other-{fingerprint(files)[:8]}"


def origin(source: Source, files: list[DataFile], *, held: tuple[int, int], used: tuple[int, int]) -> DataOrigin:
    """Provenance of a run. `held`, `used`: training and test images that the source has, and that the run takes."""
    return DataOrigin(
        name=source.name,
        source=source_tag(source, files),
        title=title(source, files, held),
        canonical=is_canonical(source, files),
        train_images=used[0],
        test_images=used[1],
        files=files,
    )


def title(source: Source, files: list[DataFile], held: tuple[int, int]) -> str:
    """For people: "MNIST (17,435 of 60,000 training images)"."""
    facts = source.facts
    if is_canonical(source, files):
        return facts.title
    notes = []
    if source.layout == CLASS_FOLDERS:
        notes += [f"class folders of {image_kind(source)}", "not the canonical files"]
    for count, whole, what in ((held[0], facts.train_images, "training"), (held[1], facts.test_images, "test")):
        if count != whole:
            notes.append(f"{count:,} {'of' if count < whole else 'instead of'} {whole:,} {what} images")
    return f"{facts.title} ({', '.join(notes or [f'{source.layout}, not the canonical ones'])})"


def image_kind(source: Source) -> str:
    """What the images of class folders are, by their names: JPEG, PNG, or both."""
    kinds = {"PNG" if file.path.lower().endswith(".png") else "JPEG" for files in source.listing for file in files}
    return kinds.pop() if len(kinds) == 1 else "JPEG and PNG"
