"""Small runs for the tests of the computing wing: ResNet-8 on the bundled digits, seconds each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reproduce.records import DataOrigin, RunRecord
from reproduce.run.context import Context
from reproduce.run.datasets import Dataset, Split
from reproduce.run.outcome import StepDone
from reproduce.specs import DataSpec, ModelSpec, Recipe, RunSpec, SizeLearning
from reproduce.store import INCIDENTAL, Store


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": "adam",
        "lr": 0.01,
        "schedule": "flexconv_cosine",
        "warmup_epochs": 0.5,
        "augmentation": "flip_crop",
        "normalisation": "imagenet",
        "evaluate_every": 1,
    }
    return Recipe(**(values | changes))


def learning(**changes: Any) -> SizeLearning:
    values: dict[str, Any] = {"budget": 120_000, "epochs": 2, "batch_size": 16, "augmentation": "flip_crop"}
    return SizeLearning(**(values | changes))


def spec(size_learning: SizeLearning | None = None, family: str = "cifar_resnet", **changes: Any) -> RunSpec:
    """A run of ResNet-8 (WRN-10-1) on 56 digits, so 4 steps an epoch, the last one partial."""
    args: dict[str, Any] = {"depth": 8} if family == "cifar_resnet" else {"depth": 10, "widen_factor": 1}
    return RunSpec(
        model=ModelSpec(family=family, args=args),
        size_learning=size_learning,
        data=DataSpec(name="cifar10", source="digits", train_images=56, test_images=40),
        training=recipe(**changes),
        protocol="tiny",
    )


class Quiet:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.updates: list[StepDone] = []
        self.notes: list[str] = []
        self.seen: set[str] = set()  # runs that updates named, as those of workers do

    def run(self, name: str, work: dict[str, int] | None = None) -> None:
        self.notes.append(f"run {name} {work}")

    def update(self, at: StepDone, *, run: str | None = None) -> None:
        self.updates.append(at)
        self.seen |= set() if run is None else {run}

    def done(self, name: str, line: str) -> None:
        self.notes.append(f"done {name}: {line}")

    def note(self, line: str) -> None:
        self.notes.append(line)


class StopAt:
    """True from the n-th time on that somebody asks."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def never() -> bool:
    return False


def context(results: Path, **changes: Any) -> Context:
    values: dict[str, Any] = {
        "store": Store(results),
        "data_root": None,
        "cache": None,
        "download": False,
        "device": "cpu",
        "keep_weights": False,
        "progress": Quiet(),
        "stop": never,
    }
    return Context(**(values | changes))


def content(record: RunRecord) -> dict[str, Any]:
    """What two runs of one spec and seed must share."""
    return record.model_dump(mode="json", exclude=set(INCIDENTAL))


def synthetic(train: int = 40, test: int = 30, size: int = 16) -> Dataset:
    """Random images whose brightness tells the class; the same in every process."""
    rng = torch.Generator().manual_seed(5)
    splits = []
    for count in (train, test):
        labels = torch.arange(count) % 10
        noise = torch.randint(0, 100, (count, 3, size, size), generator=rng)
        splits.append(Split(images=(noise + 15 * labels[:, None, None, None]).to(torch.uint8), labels=labels))
    origin = DataOrigin(
        name="cifar10", source="test", title="", canonical=False, train_images=train, test_images=test, files=[]
    )
    return Dataset(name="cifar10", train=splits[0], test=splits[1], origin=origin)
