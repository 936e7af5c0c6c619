"""Whatever bytes a reader is given, it reads them or refuses them with one line, in little memory and time."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.reproduce.mutations import damaged, in_zip, signed
from tests.reproduce.sandbox import READERS, Child

QUICK, IN_CI = 40, 500  # inputs a reader
FULL = int(os.environ.get("FOREIGN_INPUTS", IN_CI))  # 10,000 in the full run


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Starts a reader's process."""
    started: list[Child] = []

    def start(reader: str) -> Child:
        started.append(Child(reader, tmp_path / f"{reader}-{len(started)}"))
        return started[-1]

    yield start
    for one in started:
        one.close()


def bombard(child: Child, count: int) -> None:
    assert all(len(content) < 16_000 for content in child.samples)
    assert [child.verdict(content) for content in child.samples] == ["read"] * len(child.samples)
    damage(child, count)


def damage(child: Child, count: int, *phases: Phase) -> None:
    @settings(
        max_examples=count,
        phases=phases or tuple(Phase),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(child.reader, child.samples))
    def try_one(content: bytes) -> None:
        found = child.verdict(content)
        assert not found.startswith("BROKEN"), found

    try_one()


@pytest.mark.parametrize("reader", READERS)
def test_damage_is_harmless_or_refused(child: Callable[[str], Child], reader: str) -> None:
    bombard(child(reader), QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_much_damage_is_harmless_or_refused(child: Callable[[str], Child], reader: str) -> None:
    bombard(child(reader), FULL)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("hidden", "more memory than there is"),
        ("torch", "more memory than there is"),
        ("endless", "more than 1.0 s"),
        ("leak", "error left the reader"),
        ("two lines", "more than one line"),
        ("crash", "it crashed"),
    ],
)
def test_a_reader_that_is_broken_on_purpose_is_caught(child: Callable[[str], Child], broken: str, words: str) -> None:
    one = child(broken)
    for _ in range(2 if broken == "crash" else 1):  # after a crash it is started anew
        assert words in one.verdict(struct.pack(">II", 0x803, 2**32 - 1))


def test_damage_finds_a_reader_that_believes_a_header(child: Callable[[str], Child]) -> None:
    with pytest.raises(AssertionError, match="more memory than there is"):
        damage(child("declared"), IN_CI, Phase.generate)


ROWS = np.zeros((1, 3072), np.uint8)
DATA = pickle.dumps(ROWS, 2)[2:-1]  # what pushes the array


def batch(labels: bytes, before: bytes = b"") -> bytes:
    """A pickled batch of one image whose labels are pushed by these opcodes."""
    return (
        b"\x80\x02" + before + b"}(U\x04data" + DATA + b"U\x01x(" + b"".join(DOUBLED) + b"tU\x06labels" + labels + b"u."
    )


# Lists of two lists, which are one: 2 ** 40 numbers for those who walk through the last, which MANY pushes.
DOUBLED = [b"]q\x1e(K\x01K\x01e", *(b"]q%c(h%ch%ce" % (k + 1, k, k) for k in range(30, 70))]
MANY = b"hF"


@pytest.mark.parametrize(
    "content",
    [
        batch(b"](K\x01e", b"Nr\xff\xff\xff\xff0"),  # a place in the memo of 2 ** 32
        batch(b"](K\x01e", b"B\xff\xff\xff\x7f"),  # a string of 2 GB
        batch(b"](K\x01e", b"\x8e" + struct.pack("<Q", 2**40)),
        batch(b"](K\x01e", b"}(" + b")" + b"\x85" * 200_000 + b"Nu0"),  # its hash overruns the stack
        batch(MANY),
        batch(b"c_codecs\nencode\n(" + MANY + MANY + b"tR"),  # its text would have no end
        batch(b"cnumpy\ndtype\n(" + MANY + b"tR"),
        pickle.dumps({"data": ROWS, "labels": [0]}, 2).replace(
            b"K\x01M\x00\x0c\x86", b"(" + b"J\xff\xff\xff\x7f" * 99 + b"t"
        ),
    ],
)
def test_hostile_batches(child: Callable[[str], Child], content: bytes) -> None:
    one = child("cifar")
    assert one.verdict(batch(b"](K\x01e")) == "read"
    assert one.verdict(content).startswith("refused: data_batch_1")


def tar(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """An archive of one file that claims to have `size` bytes, of which four are there."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + b"1234" + bytes(2 * 512 - 4 + 512))


def test_bombs_in_tarballs(child: Callable[[str], Child]) -> None:
    one = child("tarball")
    assert "is said to have 1,099,511,627,776 bytes" in one.verdict(tar("test_batch", 2**40))
    assert "a file of -4 bytes" in one.verdict(tar("test_batch", -4))
    for kind in (tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        assert "ends within a file" in one.verdict(tar("test_batch", 2**40, kind))


def test_a_gzip_bomb(child: Callable[[str], Child]) -> None:
    count, piece = 140_000, gzip.compress(bytes(784 * 14_000), 1)  # 110 MB in 500 kB
    bomb = gzip.compress(struct.pack(">IIII", 0x803, count, 28, 28)) + piece * 10
    assert "unpacks to more than" in child("idx-gz").verdict(bomb)


def test_a_postscript_file_is_no_image(child: Callable[[str], Child]) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(x) (w) file\n"
    assert "is not a readable image" in child("jpeg").verdict(program)


def test_a_png_that_claims_memory(child: Callable[[str], Child]) -> None:
    one = child("png")
    place = one.samples[0].index(b"IDAT") - 4
    claim = one.samples[0][:place] + struct.pack(">I", 0x7F000000) + one.samples[0][place + 4 :]
    assert not one.verdict(claim).startswith("BROKEN")


def replacing(new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: new


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    return change


def test_hostile_checkpoints(child: Callable[[str], Child]) -> None:
    one = child("checkpoint")
    pickled = in_zip("data.pkl")
    (valid,) = one.samples
    # A tensor of 2 x 3 numbers that says it has 2 ** 31 - 1 x 3: torch makes the room.
    large = pickled(valid, replaced(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86"))
    assert "is damaged" in one.verdict(large)
    for code in (b"cbuiltins\nbytearray\nJ\x00\xca\x9a\x3b\x85R.", b"cposix\nmkdir\nU\x01x\x85R."):
        found = one.verdict(pickled(valid, replacing(b"\x80\x02" + code)))
        assert "which could run code" in found
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(valid)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if "data/" not in name else bytes(2**22))
    assert "is damaged" in one.verdict(buffer.getvalue())


def test_hostile_state_dicts(child: Callable[[str], Child]) -> None:
    one = child("state-dict")
    pickled = in_zip("data.pkl")
    (valid,) = one.samples
    itself = pickled(valid, replacing(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."))
    assert "dicts within dicts" in one.verdict(itself)
    name, many = b"X\x15\x00\x00\x00blocks.0.norm1.weight", b"X\x1e\x00\x00\x00blocks.9999999999.norm1.weight"
    many = b"X" + struct.pack("<I", len(many) - 5) + many[5:]
    assert "of too few tensors" in one.verdict(pickled(valid, replaced(name, many)))


def test_hostile_archives(child: Callable[[str], Child]) -> None:
    one = child("archive")
    (valid,) = one.samples
    for place in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        assert "damaged or no archive" in one.verdict(grown(valid, "runs/a.json", b"{}", place))
    assert "damaged or no archive" in one.verdict(
        grown(valid, "machines/a.json", bytes(90_000_000), zipfile.ZIP_DEFLATED)
    )
    for name in ("runs/" + "a" * 300 + ".json", "FORMAT/a.json", "machines/a.json/b.json"):
        grown_twice = grown(grown(valid, "machines/a.json", b"{}"), name, b"{}")
        assert "has no place below a results folder" in one.verdict(grown_twice)
    for deep in (b"[" * 50_000, b"NaN", b'{"a": NaN}', b'{"a": "\\ud800"}'):
        assert one.verdict(grown(valid, "machines/0123456789ab.json", deep)) == "read"  # that one entry is refused


def grown(content: bytes, name: str, inner: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with one more entry."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, inner, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("key", "value"), [("protocol", "/etc"), ("protocol", "a" * 300), ("family", "a\0b"), ("budget", 10**400)]
)
def test_records_that_name_no_place(child: Callable[[str], Child], key: str, value: Any) -> None:
    """Such a record is refused, whole as it is, and the rest of its archive is taken."""

    def change(raw: bytes) -> bytes:
        document = json.loads(raw)
        holder = {"protocol": document["spec"], "family": document["spec"]["model"]}.get(
            key, document["spec"]["size_learning"]
        )
        holder[key] = value
        return signed(document)

    one = child("archive")
    assert one.verdict(in_zip("runs/")(one.samples[0], change)) == "read"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 3_000, b'{"sha256": "0", "md5": "", "bytes": 1e999}'])
def test_deep_and_endless_json(child: Callable[[str], Child], content: bytes) -> None:
    assert child("notes").verdict(content) == "read"  # as if there were none
    assert "cannot be read as JSON" in child("record").verdict(content) or b"sha256" in content


def test_an_array_that_claims_memory(child: Callable[[str], Child]) -> None:
    one = child("cache")
    (valid,) = one.samples
    assert one.verdict(valid.replace(b"'shape': (1,), }         ", b"'shape': (9999999999,), }")) == "refused: damaged"
    assert one.verdict(b"PK\x03\x04" + valid) == "refused: damaged"
