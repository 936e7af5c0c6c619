"""Sizes that no image had a say in: drawn at random, or learned from the budget loss alone. Controls for stage 1.

R-34: the paper has none. Both are snapped to the budget as EffConv's are, so that all have equally many weights; where
their networks do as well as EffConv's, its sizes owe nothing to the data.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import effconv
from effconv.result import History
from reproduce.errors import Interrupted, UserError
from reproduce.records import StageClock
from reproduce.run.models import build, residual_convs, seeded
from reproduce.run.outcome import StepDone, Watcher
from reproduce.run.streams import generator, stream_seed
from reproduce.specs import RunSpec


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long size learning would take, who is told and who may stop it."""

    epochs: int
    steps: int  # an epoch
    progress: Watcher
    stop: Callable[[], bool]


def without_images(
    spec: RunSpec, seed: int, settings: effconv.Settings, readings: effconv.Readings, course: Course
) -> tuple[effconv.KernelSizes, StageClock]:
    """The sizes of a spec whose `source` is `random` or `init_only`. Always on the CPU, a minute's work at most.

    Raises `Interrupted` when `course.stop()` is true (nothing is kept: the same seed gives the same sizes again),
    `effconv.DivergedError`, and `UserError` for a budget out of reach.
    """
    assert spec.size_learning is not None
    network = build(spec.model, spec.data.name, stream_seed(seed, "initialisation", "size_learning"))
    learner, history = learner_of(network, spec, settings, readings), History()
    if spec.size_learning.source == "random":
        draw(learner, seed)
        clock = StageClock(epoch_seconds=[])
    else:
        clock = descend(learner, history, course)
    return learner.result(network, history, {}), clock


def learner_of(
    network: nn.Module, spec: RunSpec, settings: effconv.Settings, readings: effconv.Readings
) -> effconv.SizeLearner:
    """EffConv's own, as `effconv.learn_kernel_sizes` would begin with it."""
    with seeded(settings.seed):
        try:
            return effconv.SizeLearner(network, list(residual_convs(network, spec.model)), settings, readings)
        except ValueError as error:
            raise UserError(str(error)) from error


def draw(learner: effconv.SizeLearner, seed: int) -> None:
    """Puts sizes drawn uniformly from 1 .. max_size, one for each layer, where the learned ones would stand."""
    shape, high = learner.initial.shape, learner.settings.max_size + 1
    drawn = torch.randint(1, high, shape, generator=generator(seed, "random_sizes")).to(learner.initial)
    learner.initial = learner.ema = learner.last = drawn


def descend(learner: effconv.SizeLearner, history: History, course: Course) -> StageClock:
    """lambda L_param of Eq. 8 alone, for as many steps as size learning has."""
    seconds = []
    for epoch in range(1, course.epochs + 1):
        began = time.perf_counter()
        for step in range(1, course.steps + 1):
            seen = learner.budget_step()
            history.add({"epoch": epoch, "step": step} | seen)
            loss = learner.settings.lam * seen["budget_loss"].item()
            where = {"epoch": epoch, "epochs": course.epochs, "step": step, "steps": course.steps}
            course.progress.update(StepDone(stage="sizes", **where, loss=loss, budget_error=seen["budget_error"]))
            if course.stop():
                raise Interrupted
        seconds.append(time.perf_counter() - began)
    return StageClock(epoch_seconds=seconds)
