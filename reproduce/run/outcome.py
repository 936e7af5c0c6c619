"""Values that pass between the parts of the computing wing: who watches, how far training is, what it gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from reproduce.records import Evaluation, Metrics, StageClock

HISTORY_POINTS = 100
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """How far a stage is: step `step` of `steps` in epoch `epoch` of `epochs`, all from 1, and what was measured."""

    stage: str  # sizes, training
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float | None = None  # in percent, of the last evaluation
    budget_error: float | None = None  # a fraction of the budget

    @property
    def done(self) -> int:
        """Steps of the stage."""
        return (self.epoch - 1) * self.steps + self.step

    @property
    def total(self) -> int:
        return self.epochs * self.steps


class Watcher(Protocol):
    """Who is told how a stage goes on; `reproduce.run.progress.Progress` is one."""

    def update(self, at: StepDone) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What training gave. `metrics` and `correct_bits` are None if it diverged, for the reason in `diverged`."""

    metrics: Metrics | None
    correct_bits: str | None
    diverged: str
    history: list[dict[str, Any]]  # at most 100 epochs, evenly spread, the first and the last among them
    clock: StageClock


@dataclass(kw_only=True)
class TrainingState:
    """How far training is and what came out so far; plain values, saved beside the weights as they are."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done in the epoch under way
    seconds: float = 0.0  # spent on those
    points: list[dict[str, Any]] = field(default_factory=list)  # one an epoch
    last: dict[str, Any] | None = None  # an `Evaluation`
    best: dict[str, Any] | None = None
    correct_bits: str | None = None
    diverged: str = ""
    epoch_seconds: list[float] = field(default_factory=list)
    evaluation_seconds: list[float] = field(default_factory=list)

    def note_evaluation(self, measures: Evaluation, correct_bits: str) -> None:
        """R-17: the last epoch is the result; the best one is kept beside it, as selected on the test set."""
        self.last, self.correct_bits = measures.model_dump(), correct_bits
        if self.best is None or measures.top1 > self.best["top1"]:
            self.best = self.last

    def result(self) -> TrainingResult:
        metrics = None
        if not self.diverged and self.last is not None and self.best is not None:
            last, best = Evaluation(**self.last), Evaluation(**self.best)
            metrics = Metrics(last=last, best=best, train_loss=self.points[-1]["train_loss"])
        return TrainingResult(
            metrics=metrics,
            correct_bits=None if self.diverged else self.correct_bits,
            diverged=self.diverged,
            history=thinned(self.points),
            clock=StageClock(epoch_seconds=self.epoch_seconds, evaluation_seconds=self.evaluation_seconds),
        )


def thinned(points: list[dict[str, Any]], most: int = HISTORY_POINTS) -> list[dict[str, Any]]:
    """At most `most` of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def rounded(value: Any) -> Any:
    """Floats to a few significant digits, at any depth: what is drawn needs no more."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value
