"""What goes into size learning and what is heard of it: its batches by epoch, and a follower of its steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

import effconv
from reproduce.errors import Interrupted
from reproduce.records import StageClock
from reproduce.run.batches import Batches
from reproduce.run.datasets import Split
from reproduce.run.outcome import StepDone, Watcher
from reproduce.run.resume import Notes
from reproduce.run.streams import generator
from reproduce.specs import SizeLearning


@dataclass(kw_only=True)
class Epochs:
    """The batches of stage 1: called once for each epoch. Notes when each batch is asked for: a step's time begins."""

    split: Split
    seed: int
    learning: SizeLearning
    normalisation: str
    part: Callable[[int], slice] | None = None  # of each batch, as in `Batches`
    epoch: int = 0
    asked: dict[int, float] = field(default_factory=dict)  # in the epoch that is being opened or run: by step, from 1

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        self.asked = {}
        return self.timed(self.batches(self.epoch))

    def batches(self, epoch: int) -> Batches:
        return Batches(
            split=self.split,
            seed=self.seed,
            stream=("size_learning",),
            epoch=epoch,
            batch_size=self.learning.batch_size,
            augmentation=self.learning.augmentation,
            normalisation=self.normalisation,
            part=self.part,
        )

    def timed(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        opened = iter(batches)
        for step in itertools.count(1):
            self.asked[step] = time.perf_counter()
            batch = next(opened, None)
            if batch is None:
                return
            yield batch


@dataclass(kw_only=True)
class FirstSteps(Epochs):
    """The first `steps` batches of the same epochs, one epoch after the other, as if they were one."""

    steps: int

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.asked = {}
        endless = itertools.chain.from_iterable(map(self.batches, itertools.count(1)))
        return self.timed(itertools.islice(endless, self.steps))


@dataclass(kw_only=True)
class Follower:
    """Hears of every step: keeps the time, tells the watcher, stops when asked.

    The time of an epoch is the mean over the steps that were timed, times all its steps: an interruption may lose the
    times of a few, or time a few twice. Where several steps are told of at once, the first has the time of them all.
    """

    epochs: Epochs
    steps: int  # an epoch
    notes: Notes
    every: float
    progress: Watcher
    stop: Callable[[], bool]
    agree: Callable[[bool], bool] = bool  # whether any of several processes wishes so
    timed: list[list[float]] = field(default_factory=list)  # by epoch: steps, seconds
    saved_at: float = field(default_factory=time.monotonic)
    heard_at: float = 0.0  # of the step before

    def __post_init__(self) -> None:
        self.timed = self.notes.load().get("timed", [])

    def __call__(self, step: effconv.Step) -> None:
        while len(self.timed) < step.epoch:
            self.timed.append([0, 0.0])
        entry = self.timed[step.epoch - 1]
        entry[0] += 1
        entry[1] += time.perf_counter() - max(self.epochs.asked[step.step], self.heard_at)
        where = {"epoch": step.epoch, "epochs": step.epochs, "step": step.step, "steps": self.steps}
        self.progress.update(StepDone(stage="sizes", **where, loss=step.loss, budget_error=step.budget_error))
        stopping = self.agree(self.stop())
        if stopping or step.step == self.steps or time.monotonic() - self.saved_at >= self.every:
            self.notes.save({"timed": self.timed})
            self.saved_at = time.monotonic()
        self.heard_at = time.perf_counter()
        if stopping:
            raise Interrupted  # size learning saves its own state at this step before it passes this on

    def clock(self) -> StageClock:
        return StageClock(epoch_seconds=[seconds / max(1, steps) * self.steps for steps, seconds in self.timed])


def shuffled(split: Split, seed: int, stream: str = "shuffled_labels") -> Split:
    """The same images under a permutation of all labels: a control that keeps the classes' counts.

    stream: the name of the permutation's stream of chance; another one gives an independent permutation.
    """
    order = torch.randperm(len(split.labels), generator=generator(seed, stream))
    return Split(images=split.images, labels=split.labels[order.to(split.labels.device)])
