"""A reader of foreign bytes in a child process of little memory and time; imports nothing that takes long."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

SECONDS = 1.0  # of CPU a call, so that a busy machine fails no test
WAIT = 300.0  # seconds of any clock: for a reader that sleeps
READERS = (
    *("idx", "idx-gz", "cifar", "imagenet32", "stl", "tarball", "jpeg", "png", "cache", "notes"),
    *("record", "machine", "archive", "state-dict", "checkpoint", "saved-state"),
)


def begin(reader: str, folder: Path, connection: Connection) -> None:
    from tests.reproduce import foreign_bytes  # which torch comes with

    foreign_bytes.serve(reader, folder, connection)


class Child:
    """A reader in a process of its own, forked from one that has imported everything; started anew when it dies."""

    def __init__(self, reader: str, folder: Path) -> None:
        self.reader, self.folder, self.started = reader, folder, 0
        self.start()

    def start(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["tests.reproduce.foreign_bytes"])
        place = self.folder / f"child{self.started}"
        place.mkdir(parents=True)
        self.started += 1
        self.connection, other = context.Pipe()
        self.process = context.Process(target=begin, args=(self.reader, place, other), daemon=True)
        self.process.start()
        other.close()
        self.samples: list[bytes] = self.connection.recv()

    def verdict(self, content: bytes) -> str:
        self.connection.send_bytes(content)
        try:
            if self.connection.poll(WAIT):
                found: str = self.connection.recv()
                return found
            self.process.kill()
        except (EOFError, ConnectionResetError):
            pass
        self.process.join()
        code, why = self.process.exitcode, "it crashed"
        if code in (-signal.SIGPROF, -signal.SIGKILL):
            why = f"it took more than {SECONDS} s, or all memory"
        self.start()
        return f"BROKEN: {why} (exit code {code})"

    def close(self) -> None:
        self.connection.close()
        self.process.join(10)
        self.process.kill()
