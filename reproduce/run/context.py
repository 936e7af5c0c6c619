"""What a run is given from outside, and what it carries while it is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reproduce.errors import UserError
from reproduce.run.datasets import Dataset, Split, load
from reproduce.run.progress import Reporter, Silent
from reproduce.specs import DataSpec, RunSpec
from reproduce.store import Store

STALL_LIMIT = 900.0  # seconds


def never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a user says of the jobs of a queue; None: the backend's own choice."""

    partition: str | None = None
    time: float | None = None  # seconds that a job may take
    max_jobs: int | None = None  # at a time
    pack: int | None = None  # runs in a job
    sbatch: tuple[tuple[str, str], ...] = ()  # further options, by name


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where runs find and leave things, and who may stop them."""

    store: Store
    data_root: Path | None
    cache: Path | None
    download: bool
    device: str  # auto, cpu or cuda
    keep_weights: bool
    jobs: int = 1
    save_every: float = 120.0  # seconds between saves of the resume state; the end of an epoch is always saved
    progress: Reporter
    stop: Callable[[], bool]
    retry: bool = False  # do again what failed or diverged
    backend: str = "inline"  # inline, local or slurm; of `run_all` alone
    stall_limit: float = STALL_LIMIT  # seconds without a finished step after which a worker's run counts as hung
    cluster: Cluster = Cluster()

    def bare(self, *, jobs: int) -> Context:
        """What another process can be given: absolute paths, nobody told, no stop, no records in memory.

        jobs: how many runs go side by side, of those that there are.
        """
        return replace(
            self,
            store=Store(self.store.results.absolute()),
            data_root=None if self.data_root is None else self.data_root.absolute(),
            cache=None if self.cache is None else self.cache.absolute(),
            progress=Silent(),
            stop=never,
            jobs=jobs,
        )


@dataclass(kw_only=True)
class Run:
    """One run under way."""

    name: str
    spec: RunSpec
    seed: int
    context: Context
    device: torch.device
    folder: Path  # of its resume state
    dataset: Dataset  # on the device
    began: dict[str, Any] = field(default_factory=dict)  # what stands in its run.json


@dataclass
class Shelf:
    """The data set that was loaded last, on its device: runs that follow each other often share it."""

    key: tuple[DataSpec, torch.device] | None = None
    dataset: Dataset | None = None

    def get(self, spec: DataSpec, device: torch.device, context: Context) -> Dataset:
        """Raises `UserError` for images that are missing, damaged, not the spec's, or too many for the device."""
        if self.dataset is None or self.key != (spec, device):
            self.dataset = None  # let the old one go first
            found = load(spec, data_root=context.data_root, cache=context.cache, download=context.download)
            try:
                train, test = on(found.train, device), on(found.test, device)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the images of {spec.name} do not fit into the device's memory; use --device cpu, or fewer "
                    "with --train-images"
                ) from error
            self.dataset = Dataset(name=found.name, train=train, test=test, origin=found.origin)
            self.key = (spec, device)
        return self.dataset


def on(split: Split, device: torch.device) -> Split:
    return Split(images=split.images.to(device), labels=split.labels.to(device))
