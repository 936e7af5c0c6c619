"""What `reproduce doctor` finds on this machine: images, GPU, disk, SLURM, versions; each with its mend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from reproduce.findings import Finding
from reproduce.run import cache as caching
from reproduce.run import inventory, machine

PACKAGE = "effconv-reproduction"
OLDEST_PYTHON = (3, 11)
DRIVER = Path("/dev/nvidia0")
SLURM = ("sbatch", "squeue", "srun", "scancel")
BY_HAND = {"imagenet32"}  # its site asks for a login
GIB = 2**30
LEAST, ENOUGH = 1.0, 10.0  # GiB: no run fits; the largest data set and its decoded images do not


def findings(
    results: Path, data_root: Path, cache: Path | None, machines: Iterable[Mapping[str, Any]]
) -> list[Finding]:
    """machines: the descriptions of hardware and software that stand beside the records."""
    return [
        *data(data_root, cache),
        gpu(),
        *disk(results, cache or caching.default_folder()),
        slurm(),
        *versions(machines),
    ]


def data(data_root: Path, cache: Path | None) -> list[Finding]:
    """A finding for each data set. Only what is damaged is broken: `--protocol tiny` needs none of them."""
    found = []
    for row in inventory.listing(data_root, cache=cache):
        if row.source is not None:
            state = "ok" if row.canonical else "note"
            mend = "" if row.canonical else "none needed; every result names these images"
            held = f"{row.title}: {row.train_images:,} + {row.test_images:,} images, {row.state}"
        elif row.state == "not found":
            by_hand = f"put the files below {data_root} (REPRODUCING.md, 2)"
            state, held = "note", f"{row.title}: none in {data_root}"
            mend = by_hand if row.name in BY_HAND else f"`reproduce data {row.name} --download`, or {by_hand}"
        else:
            state, held, mend = "broken", f"{row.title}: {row.state}", "as said, or give another --data-root"
        found.append(Finding(topic="data", state=state, text=held, mend=mend))
    return found


def gpu() -> Finding:
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        text = f"{torch.cuda.get_device_name(0)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        return Finding(topic="GPU", state="ok", text=text)
    if DRIVER.exists() or shutil.which("nvidia-smi"):
        text = f"there is an NVIDIA driver, but torch {torch.__version__} finds no GPU that it can use"
        mend = "install a torch built for this driver's CUDA, or run with --device cpu"
        return Finding(topic="GPU", state="broken", text=text, mend=mend)
    return Finding(topic="GPU", state="note", text="none: --device auto takes the CPU", mend="none needed")


def disk(results: Path, cache: Path) -> list[Finding]:
    """Room and the right to write, once for each file system."""
    found, seen = [], set()
    for name, folder in (("records", results), ("decoded images", cache)):
        place = existing(folder)
        if not os.access(place, os.W_OK):
            mend = f"make it writable, or give another {'--results' if name == 'records' else '--cache'}"
            found.append(Finding(topic="disk", state="broken", text=f"{name}: {place} is read-only", mend=mend))
        if place.stat().st_dev not in seen:
            seen.add(place.stat().st_dev)
            found.append(room(name, shutil.disk_usage(place).free / GIB))
    return found


def room(name: str, free: float) -> Finding:
    """free: GiB."""
    state = "broken" if free < LEAST else "note" if free < ENOUGH else "ok"
    mend = {"broken": "free some", "note": "enough for runs; STL-10 and ImageNet-32 want 10 GiB", "ok": ""}[state]
    return Finding(topic="disk", state=state, text=f"{name}: {free:,.1f} GiB free", mend=mend)


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())


def slurm() -> Finding:
    here = [name for name in SLURM if shutil.which(name)]
    if len(here) == len(SLURM):
        return Finding(topic="SLURM", state="ok", text=f"{', '.join(here)} are here")
    if here:
        missing = ", ".join(name for name in SLURM if name not in here)
        return Finding(topic="SLURM", state="broken", text=f"{missing} not in PATH", mend="load the SLURM module")
    mend = "none needed unless runs are to go to a cluster; there, load its module"
    return Finding(topic="SLURM", state="note", text=f"none of {', '.join(SLURM)} in PATH", mend=mend)


def versions(machines: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Python and the packages against what the suite declares, then against what the records were made with."""
    found = [python(tuple(map(int, platform.python_version_tuple()[:2])))]
    bad = unmet(importlib.metadata.requires(PACKAGE) or []) if machine.version(PACKAGE) else ["the suite itself"]
    mend = "`make install`, or pip install -e . in this environment"
    text = f"{', '.join(bad)} missing or outside its range" if bad else "every package is inside its declared range"
    found.append(Finding(topic="versions", state="broken" if bad else "ok", text=text, mend=mend if bad else ""))
    return [*found, *against_records(machine.description(), machines)]


def python(here: tuple[int, ...]) -> Finding:
    text = f"Python {'.'.join(map(str, here))}"
    if here >= OLDEST_PYTHON:
        return Finding(topic="versions", state="ok", text=text)
    return Finding(topic="versions", state="broken", text=f"{text} is older than 3.11", mend="install a newer one")


def unmet(requirements: Iterable[str]) -> list[str]:
    """Of `torch<3,>=2.8`, ...: those that are not installed or outside the range. Extras are passed over."""
    bad = []
    for line in requirements:
        name = re.match(r"[\w.-]+", line)
        if name is None or ";" in line:
            continue
        installed = machine.version(name[0])
        if installed is None or not all(holds(installed, *bound) for bound in re.findall(r"(>=|<)([\d.]+)", line)):
            bad.append(f"{name[0]} ({installed or 'not installed'})")
    return bad


def holds(version: str, sign: str, bound: str) -> bool:
    """Whether `2.15.0+cu132` is `>=` or `<` of `2.8`, by the numbers of the release."""
    return release(version) >= release(bound) if sign == ">=" else release(version) < release(bound)


def release(version: str) -> tuple[int, ...]:
    """`2.15.0+cu132` -> (2, 15, 0), `3` -> (3, 0, 0)."""
    numbers = [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]
    return (*numbers, *[0] * (3 - len(numbers)))


def against_records(here: Mapping[str, Any], machines: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Whether results from here can be expected to equal the records to the bit."""
    names = ("torch", "cuda", "numpy", "cpu", "torch_cpu", "gpu")
    recorded = list(machines)
    if not recorded:
        return []
    apart = [[f"{name} {there.get(name)}" for name in names if there.get(name) != here.get(name)] for there in recorded]
    if any(not one for one in apart):
        text = "records from this kind of machine are here, so their replays are to be equal to the bit"
        return [Finding(topic="versions", state="ok", text=text)]
    nearest = min(apart, key=len)
    text = f"the records come from other kinds of machines (nearest: {', '.join(nearest)}); last bits may differ"
    return [Finding(topic="versions", state="note", text=text, mend="none needed; `reproduce replay` judges by noise")]
