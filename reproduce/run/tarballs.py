"""The files in a .tar.gz, one by one; nothing is written anywhere, and no size is believed before it is looked at."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

BLOCK = 512
CHUNK = 1 << 20
PADDING = 1 << 20  # zeros behind the last file: what tar writes is far less
DAMAGED = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError)


def members(archive: Path, wanted: Collection[str], most: int) -> Iterator[tuple[str, bytes]]:
    """(name without folders, content) of each plain file that is `wanted`, in the archive's order.

    most: bytes that one of them can have at most; all others, links and long names too, are passed over in pieces.
    Raises one of `DAMAGED`. All checksums are verified when the last file has been given.
    """
    with gzip.open(archive) as stream:
        while any(header := stream.read(BLOCK)):
            entry = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            if entry.size < 0:
                raise ValueError(f"a file of {entry.size} bytes")
            name = PurePosixPath(entry.name).name
            padded = -(-entry.size // BLOCK) * BLOCK
            if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and name in wanted:
                if entry.size > most:
                    raise ValueError(f"{name} is said to have {entry.size:,} bytes, {most:,} at most are expected")
                yield name, taken(stream, entry.size)
                padded -= entry.size
            passed(stream, padded)
        if len(header) < BLOCK or len(stream.read(PADDING + 1)) > PADDING:
            raise EOFError("no end of the archive")


def taken(stream: gzip.GzipFile, size: int) -> bytes:
    """The next `size` bytes, in pieces: memory grows with what is there."""
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(CHUNK, size - len(content)))
        if not piece:
            raise EOFError("the archive ends within a file")
        content += piece
    return bytes(content)


def passed(stream: gzip.GzipFile, size: int) -> None:
    while size > 0:
        piece = stream.read(min(CHUNK, size))
        if not piece:
            raise EOFError("the archive ends within a file")
        size -= len(piece)
