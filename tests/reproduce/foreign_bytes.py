"""The readers of foreign bytes, each called in a child process of little memory and time, and small valid inputs."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import re
import resource
import signal
import struct
from collections.abc import Callable
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reproduce.archive import export, merge, read_machine
from reproduce.errors import UserError
from reproduce.run import cache, checksums, folders, published, sources
from reproduce.run.formats import FORMATS
from reproduce.run.resume import HEADER, Notes, Slot
from reproduce.run.splits import Split
from reproduce.specs import DATASETS, sha256_of
from reproduce.store import Store, Unreadable, read_record
from tests.baselines.test_published import network_state
from tests.reproduce import data_files
from tests.reproduce.hall_samples import record_of, spec_of
from tests.reproduce.sandbox import SECONDS

MEMORY = 1 << 30  # bytes of address space above the child's start
NO_MEMORY = re.compile(r"can.?t allocate memory|not enough memory|bad_alloc", re.IGNORECASE)
CPU = torch.device("cpu")

Call = Callable[[Path, bytes], object]  # (an empty folder, the bytes)


def parsed(name: str, file: str) -> Call:
    return lambda folder, content: FORMATS[name].parse(file, content, DATASETS[name])


def pixels(name: str, dataset: str) -> Call:
    return lambda folder, content: folders.pixels(put(folder / name, content), DATASETS[dataset])


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tarball(folder: Path, content: bytes) -> object:
    put(folder / "cifar-10-python.tar.gz", content)
    source = sources.find("cifar10", folder)
    assert source is not None
    return sources.read(source)


def record(folder: Path, content: bytes) -> object:
    """By the name that the content gives itself, if it is one."""
    found = re.search(rb'"run_id":\s*"([0-9a-f]{16}-s\d{1,9})"', content)
    path = put(folder / "runs" / f"{found[1].decode() if found else 'record'}.json", content)
    store = Store(folder)
    assert len(store.records()) + len(store.problems) == 1 and all("\n" not in line for line in store.problems)
    return read_record(path)


def machine_file(folder: Path, content: bytes) -> object:
    """By the name that belongs to the content, if there is one."""
    try:
        name = sha256_of(json.loads(content))[:12]
    except (ValueError, RecursionError):
        name = "0123456789ab"
    path = put(folder / "machines" / f"{name}.json", content)
    Store(folder).machine(name)
    return read_machine(path)


def archive(folder: Path, content: bytes) -> object:
    tally = merge(put(folder / "in.zip", content), folder / "a" / "results", err=lambda line: None)
    assert all("\n" not in line for line in tally.refused)
    outside = [path for path in folder.rglob("*") if path.name not in ("in.zip", "a", "results")]
    assert all(path.is_relative_to(folder / "a" / "results") for path in outside)
    return tally


def checkpoint(folder: Path, content: bytes) -> object:
    """Behind a right checksum, which everyone can write."""
    header = HEADER + sha256(content).hexdigest().encode() + b"\n"
    return Slot(put(folder / "training.pt", header + content).parent / "training.pt", every=0.0).load(CPU)


def saved_state(folder: Path, content: bytes) -> object:
    return Slot(put(folder / "training.pt", content), every=0.0).load(CPU)


def cached(folder: Path, content: bytes) -> object:
    """One of the four arrays, of the size and checksum that its description tells: both may have been written anew."""
    entry = folder / "entry"
    split = Split(images=torch.zeros(1, 1, 28, 28, dtype=torch.uint8), labels=torch.zeros(1, dtype=torch.int64))
    cache.write_entry(entry, split, split)
    described = json.loads((entry / "arrays.json").read_text())
    described["train_labels"] |= {"bytes": len(content)}
    shape = re.search(rb"'shape': \((\d+),", content)
    described["train_labels"] |= {"shape": [int(shape[1])]} if shape else {}
    put(entry / "train_labels.npy", content)
    put(entry / "arrays.json", json.dumps(described).encode())
    cache.read_entry(entry)
    try:
        return cache.read_array(entry / "train_labels.npy", described["train_labels"])
    except MemoryError:
        raise
    except Exception as error:  # which `read_entry` takes for damage
        raise UserError("damaged") from error


def notes(folder: Path, content: bytes) -> object:
    Notes(put(folder / "run.json", content)).load(started=str, resumed=int)
    index, listed = folder / "index", checksums.Listed("a", 1, 2, 3)
    put(checksums.index_entry(folder, [listed], index), content)
    return checksums.remembered(folder, [listed], index)


READERS: dict[str, Call] = {
    "idx": parsed("mnist", "train-images-idx3-ubyte"),
    "idx-gz": parsed("mnist", "train-images-idx3-ubyte.gz"),
    "cifar": parsed("cifar10", "data_batch_1"),
    "imagenet32": parsed("imagenet32", "val_data"),
    "stl": parsed("stl10", "train_y.bin"),
    "tarball": tarball,
    "jpeg": pixels("train/cat/0.jpg", "cifar10"),
    "png": pixels("train/1/0.png", "mnist"),
    "record": record,
    "machine": machine_file,
    "archive": archive,
    "state-dict": lambda folder, content: published.load(put(folder / "net.pt", content), "cifar10"),
    "checkpoint": checkpoint,
    "saved-state": saved_state,
    "cache": cached,
    "notes": notes,
}


def declared_array(folder: Path, content: bytes) -> object:
    """Broken on purpose: believes an IDX header."""
    if len(content) < 8:
        raise UserError("no header")
    values = np.empty(struct.unpack(">I", content[4:8])[0] * 784, np.uint8)
    raise UserError("cut") if len(values) > len(content) else UserError("no")


def declared_array_hidden(folder: Path, content: bytes) -> object:
    """Broken on purpose: turns the memory that it lacks into a user's error."""
    try:
        return declared_array(folder, content)
    except MemoryError as error:
        raise UserError("damaged") from error


def endless(folder: Path, content: bytes) -> object:
    return next(number for number in itertools.count() if number < 0)


def two_lines(folder: Path, content: bytes) -> object:
    raise UserError("one\ntwo")


BROKEN: dict[str, Call] = {
    "declared": declared_array,
    "hidden": declared_array_hidden,
    "torch": lambda folder, content: torch.empty(1 << 40),
    "endless": endless,
    "leak": lambda folder, content: struct.unpack(">II", content[:3]),
    "two lines": two_lines,
    "crash": lambda folder, content: os.kill(os.getpid(), signal.SIGSEGV),
}


def samples(reader: str) -> list[bytes]:
    """Valid inputs, each under 16 kB."""
    if reader == "idx" or reader in BROKEN:
        return [data_files.idx(data_files.pixels("mnist", 2)), data_files.idx(np.arange(9, dtype=np.uint8))]
    if reader == "idx-gz":
        return [gzip.compress(content, mtime=0) for content in samples("idx")]
    if reader in ("cifar", "imagenet32"):
        images = data_files.pixels("cifar10", 2)
        return [data_files.batch(images, [3, 4], protocol, mean=np.zeros(3)) for protocol in (2, 3, 4, 5)]
    if reader in ("jpeg", "png"):
        values = data_files.pixels("cifar10" if reader == "jpeg" else "mnist", 1)[0]
        buffer = io.BytesIO()
        Image.fromarray(values.transpose(1, 2, 0).squeeze()).save(buffer, reader)
        return [buffer.getvalue()]
    if reader == "stl":
        return [bytes(range(1, 11))]
    if reader in ("checkpoint", "saved-state", "state-dict"):
        content = torch_saved(flat(network()) if reader == "state-dict" else progress())
        header = HEADER + sha256(content).hexdigest().encode() + b"\n"
        return [header + content if reader == "saved-state" else content]
    if reader == "cache":
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(1, np.int64))
        return [buffer.getvalue()]
    if reader == "notes":
        own = '{"started": "2030", "resumed": 1}'
        kept = f'{{"sha256": "{sha256(own.encode()).hexdigest()}", "values": {own}}}'
        return [kept.encode(), json.dumps({"sha256": "0" * 64, "md5": "", "bytes": 1}).encode()]
    return []


def samples_on_disk(reader: str, folder: Path) -> list[bytes]:
    """Those that are made of files."""
    if reader == "tarball":
        for name in ("data_batch_1", "test_batch"):
            put(folder / "batches" / name, data_files.batch(data_files.pixels("cifar10", 1), [3]))
        return [data_files.write_archive(folder, folder / "batches", "out.tar.gz").read_bytes()]
    store = Store(folder / "results")
    path = store.write(record_of(spec_of()))
    machine = store.write_machine({"cpu": "Example CPU"})
    if reader == "archive":
        put(folder / "results/.resume/0123456789abcdef-s0/training.pt", b"weights")
        export(folder / "out.zip", folder / "results", err=lambda line: None)
        return [(folder / "out.zip").read_bytes()]
    return [path.read_bytes() if reader == "record" else (store.results / f"machines/{machine}.json").read_bytes()]


def torch_saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def progress() -> dict[str, Any]:
    weights = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(3)}
    return {"state": {"epoch": 1, "history": [1.5]}, "model": weights, "rng": torch.zeros(16, dtype=torch.uint8)}


def network() -> dict[str, torch.Tensor]:
    """A network of one block with SIREN kernels, in the published layout."""
    return network_state(kernel_net="siren", masked=False, hidden=2, in_channels=3, stem=2, widths=(2,), classes=10)


def flat(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with all floating-point numbers in one storage: an archive of few entries is small."""
    values = {key: value.float() for key, value in state.items() if value.is_floating_point()}
    parts = torch.cat([value.reshape(-1) for value in values.values()]).split([v.numel() for v in values.values()])
    return state | {key: part.view(values[key].shape) for key, part in zip(values, parts, strict=True)}


def verdict(call: Call, folder: Path, content: bytes) -> str:
    """ "read", "refused: ..." or "BROKEN: ..."."""
    folder.mkdir()
    try:
        call(folder, content)
    except BaseException as error:
        chain: list[BaseException] = [error]
        while (deeper := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(deeper)
        if any(isinstance(one, MemoryError) or NO_MEMORY.search(str(one)) for one in chain):
            return f"BROKEN: it asked for more memory than there is: {chain[-1]!r}"
        if not isinstance(error, UserError | Unreadable):
            return f"BROKEN: {type(error).__name__} left the reader: {error}"
        return f"refused: {error}" if "\n" not in str(error) else f"BROKEN: more than one line: {error}"
    return "read"


def serve(reader: str, folder: Path, connection: Connection) -> None:
    """The child: sends samples, then for every input its verdict, until the other end is closed."""
    torch.set_num_threads(1)
    start = folder / "start"
    start.mkdir()
    found = samples(reader) or samples_on_disk(reader, start)
    call = READERS.get(reader) or BROKEN[reader]
    for content in found:  # imports what it needs before memory is counted
        if reader in READERS:
            verdict(call, folder / f"warm{len(list(folder.iterdir()))}", content)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(found)
    for number in itertools.count():
        try:
            content = connection.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends a process, whatever this is doing
        found_out = verdict(call, folder / str(number), content)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(found_out)
