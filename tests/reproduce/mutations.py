"""Hypothesis strategies that damage valid files: flips, cuts, insertions, other lengths, pieces of pickles and JSON."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from reproduce.specs import sha256_of

Change = Callable[[bytes], bytes]
Layer = Callable[[bytes, Change], bytes]  # changes what lies within a file, and makes it whole around that again

NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
COUNTS = [
    struct.pack(form, number % 2 ** (8 * struct.calcsize(form))) for number in NUMBERS for form in ("<I", ">I", "<Q")
]
OPCODES = [bytes([code]) for code in b"(t\x85\x86\x87]}easuNld)\x93QbR021."]
CLAIMS = [
    *(b"r" + b"\xff" * 4, b"X\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x00", b"\x96" + b"\xff" * 6 + b"\x00\x00"),
    *(b"\x8a\x08" + struct.pack("<Q", 2**62), b"K\xff", b"J\xff\xff\xff\x7f", b"h\x00", b"U\x02O8"),
]
NAMES = [
    f"c{module}\n{name}\n".encode()
    for module, name in [
        ("builtins", "eval"),
        ("builtins", "bytearray"),
        ("posix", "system"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("torch", "FloatTensor"),
        ("torch.storage", "UntypedStorage"),
        ("torch._utils", "_rebuild_tensor_v2"),
    ]
]
TEXTS = [
    *(b'"', b"[", b"{", b"NaN", b"1e999", b"-", b"null", b"\\ud800", b"9" * 400, b"[" * 200, b"../", b"\0", b"\n"),
    *(b"\xff\xd8", b"\xff\xda", b"IDAT", b"PK\x01\x02", b"PK\x05\x06"),
]
PIECES = COUNTS + OPCODES + CLAIMS + NAMES + TEXTS
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1e308,
    "",
    "../../x",
    "/etc/x",
    "a" * 300,
    "\0",
    "a\nb",
    [],
    [[]],
    {},
    {"a": 1},
]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """One to four small changes at drawn places."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from("fcirdw"), st.integers(0, 2**20), st.integers(0, 2**20)), min_size=1, max_size=4
        )
    )

    def change(content: bytes) -> bytes:
        for kind, where, what in steps:
            # Headers are at the start, directories of archives at the end: half of the places are near these.
            spot = where // 4 % (len(content) + 1)
            at = (spot, spot, min(where // 4 % 100, len(content)), max(0, len(content) - where // 4 % 100))[where % 4]
            piece = PIECES[what % len(PIECES)]
            content = {
                "f": content[:at]
                + bytes([byte ^ (1 << what % 8) for byte in content[at : at + 1]])
                + content[at + 1 :],
                "c": content[:at],
                "i": content[:at] + piece + content[at:],
                "r": content[:at] + piece + content[at + len(piece) :],
                "d": content[:at] + content[at + 1 + what % 16 :],
                "w": content[:at] + content[at : at + what % 64] * 2 + content[at + what % 64 :],
            }[kind]
        return content

    return change


def plain(content: bytes, change: Change) -> bytes:
    return change(content)


def in_gzip(content: bytes, change: Change) -> bytes:
    return gzip.compress(change(gzip.decompress(content)), 1, mtime=0)


def in_tarball(content: bytes, change: Change) -> bytes:
    """Like `in_gzip`, with right checksums of all headers: else few would be looked at."""

    def mended(raw: bytes) -> bytes:
        changed = bytearray(change(raw))
        for at in range(0, len(changed) - 511, 512):
            if changed[at + 257 : at + 262] == b"ustar":
                changed[at + 148 : at + 156] = b" " * 8
                changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
        return bytes(changed)

    return in_gzip(content, mended)


def in_zip(part: str) -> Layer:
    """The first entry of a zip file whose name has `part` in it; the other entries stay.

    A record gets the name that its content gives it: else none would be read.
    """

    def layer(content: bytes, change: Change) -> bytes:
        buffer, left = io.BytesIO(), [change]
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
            for entry in old.infolist():
                inner, name = old.read(entry), entry.filename
                if left and part in name:
                    inner = left.pop()(inner)
                    run = re.search(rb'"run_id":\s*"([0-9a-f]{16}-s\d{1,9})"', inner)
                    entry.filename = f"runs/{run[1].decode()}.json" if run and part == "runs/" else name
                new.writestr(entry, inner, entry.compress_type)
        return buffer.getvalue()

    return layer


def signed(document: dict[str, Any]) -> bytes:
    """A record with the ids and the digest of what it holds, as far as these can be told."""
    try:
        spec_id = sha256_of({"spec": document.get("spec"), "protocol_version": document.get("protocol_version")})
        document |= (
            {"spec_id": spec_id, "run_id": f"{spec_id[:16]}-s{document.get('seed')}"} if "spec" in document else {}
        )
        document["digest"] = sha256_of({key: value for key, value in document.items() if key != "digest"})
    except (ValueError, TypeError):
        pass
    return json.dumps(document).encode()


@st.composite
def edits(draw: st.DrawFn) -> Change:
    """One to three values of a record replaced by odd ones, and the record signed."""
    steps = draw(st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(ODD)), min_size=1, max_size=3))

    def change(content: bytes) -> bytes:
        document = json.loads(content)
        for where, odd in steps:
            places = list(places_of(document))
            holder, key = places[where % len(places)]
            holder[key] = deepcopy(odd)
        return signed(document)

    return change


def places_of(value: Any) -> Any:
    """(holder, key) of every value within a JSON document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places_of(inner)


LAYERS: dict[str, list[tuple[Layer, Callable[[], st.SearchStrategy[Change]]]]] = {
    "idx-gz": [(plain, changes), (in_gzip, changes)],
    "tarball": [(plain, changes), (in_gzip, changes), (in_tarball, changes)],
    "record": [(plain, changes), (plain, edits)],
    "machine": [(plain, changes)],
    "archive": [(plain, changes), (in_zip("runs/"), edits), (in_zip("runs/"), changes), (in_zip("machines/"), changes)],
    "state-dict": [(plain, changes), (in_zip("data.pkl"), changes), (in_zip("data.pkl"), changes)],
    "checkpoint": [(plain, changes), (in_zip("data.pkl"), changes), (in_zip("data.pkl"), changes)],
}


def damaged(reader: str, samples: list[bytes]) -> st.SearchStrategy[bytes]:
    """Any of a reader's valid inputs, changed in one of its layers."""
    layers = [
        st.builds(layer, st.sampled_from(samples), strategy())
        for layer, strategy in LAYERS.get(reader, [(plain, changes)])
    ]
    return st.one_of(layers)
