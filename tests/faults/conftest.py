"""What the tests of faults share: the recorder that the report is made from, and a small file system of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Place
from tests.faults.recorder import Recorder

SEEDS = 10  # that any of these tests runs


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Recorder:
    return Recorder(request.node.nodeid)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """By seed, the record of a run that nothing disturbed; what may differ between two runs is left out."""
    folder = tmp_path_factory.mktemp("whole")
    place = Place(folder, folder / "results", SEEDS)
    command = place.run()
    assert command.code == 0, command.said
    assert not place.repeated() and not place.left_over()
    return place.outcomes()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes a place for so many seeds. Workers outlive their heads, so those still at work are ended afterwards."""
    made: list[Place] = []

    def make(seeds: int, results: Path | None = None) -> Place:
        folder = tmp_path / f"place{len(made)}"
        folder.mkdir()
        made.append(Place(folder, results or folder / "results", seeds))
        return made[-1]

    yield make
    for pid in (pid for one in made for pid in one.at_work()):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory with options such as "size=1m", or mounts it anew with others; gives its folder.

    Skips without the right to mount.
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            pytest.skip("only root may mount a file system")
        options = f"remount,{options}" if mounted else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode and not mounted:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)
