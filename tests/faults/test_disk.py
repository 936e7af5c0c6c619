"""A disk that is full or read-only: one clear line, nothing corrupted; once there is room the same command goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproduce.store import Store
from tests.faults.commands import Command, Place
from tests.faults.recorder import Recorder

pytestmark = pytest.mark.slow

FAULT = "disk full, folder read-only"
SIZE = "size=300m"  # two runs keep 160 MB of state while they save


def refused(command: Command, words: str) -> list[str]:
    """What is wrong with how a command ended that could not write."""
    (line,) = command.errors or [""]
    right = command.code == 1 and words in line and "Traceback" not in command.said
    return [] if right else [command.said]


@pytest.mark.parametrize("moment", ["claim", "sizes+1", "training", "write"])
def test_the_disk_becomes_full(
    place: Callable[..., Place],
    small_disk: Callable[[str], Path],
    whole: dict[int, Any],
    recorder: Recorder,
    moment: str,
) -> None:
    here = place(2, small_disk(SIZE) / "results")
    lost: list[object] = [*refused(here.run(faults={1: f"fill_disk@{moment}"}), "no space left")]
    store = Store(here.results)
    lost += [record.seed for record in store.records() if here.outcomes()[record.seed] != whole[record.seed]]
    lost += store.problems
    (here.results.parent / "ballast").unlink()
    again = here.run()
    lost += here.wrong(whole) if again.code == 0 else [again.said]
    recorder.tried(FAULT, "a disk that becomes full during a run: at the claim, in stage 1, before stage 2, before the "
                   "record", 1, lost)  # fmt: skip


def test_the_disk_is_full_from_the_start(
    place: Callable[..., Place], small_disk: Callable[[str], Path], whole: dict[int, Any], recorder: Recorder
) -> None:
    here = place(1, small_disk(SIZE) / "results")
    with (here.results.parent / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    lost: list[object] = [*refused(here.run(), "no space left")]
    (here.results.parent / "ballast").unlink()
    again = here.run()
    lost += here.wrong(whole) if again.code == 0 else [again.said]
    recorder.tried(FAULT, "a disk that is full from the start", 1, lost)


def test_a_folder_that_is_read_only(
    place: Callable[..., Place], small_disk: Callable[[str], Path], whole: dict[int, Any], recorder: Recorder
) -> None:
    here = place(1, small_disk(SIZE) / "results")
    small_disk("ro")
    lost: list[object] = [*refused(here.run(), "Read-only file system")]
    small_disk("rw")
    assert not here.results.exists()
    again = here.run()
    lost += here.wrong(whole) if again.code == 0 else [again.said]
    small_disk("ro")
    lost += ["a traceback"] if "Traceback" in here.run().said else here.wrong(whole)
    recorder.tried(FAULT, "a folder that is read-only", 2, lost)
