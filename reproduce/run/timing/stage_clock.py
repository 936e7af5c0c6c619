"""Seconds per epoch of one stage: whole epochs where they are short, else steps times their number; and the parts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

from reproduce.run.timing.place import Place
from reproduce.run.timing.stopwatch import Stopwatch, added, scaled
from reproduce.run.timing.workloads import Steps, one_by_one
from reproduce.specs import DATASETS, RunSpec
from reproduce.timings import Stage, StageTiming

MINUTE = 60.0  # whole epochs are timed for about so long; what takes less is never extrapolated
MOST_EPOCHS = 5
WORK, FEWEST_STEPS, MOST_STEPS = 10.0, 3, 50  # seconds and numbers of steps that an extrapolation rests on
WARM_UPS = 5  # steps on CUDA after the first: libraries set themselves up, size learning is captured
POINTS = 4  # along the course of the sizes

Laps = list[tuple[float, dict[str, float]]]  # seconds and their parts


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place along a stage where steps are timed: how to get there, and the share of the stage near it."""

    weight: float
    reach: Callable[[], object] = lambda: None


def points_along(moving: int, total: int, advance: Callable[[], object]) -> list[Point]:
    """Points at even distances from the start of a stage of `total` steps to where its sizes stop moving.

    Each stands for the steps that are nearer to it than to another, the last one for all that follow, too.
    """
    moving = min(moving, total - 1)
    places = sorted({round(i * moving / (POINTS - 1)) for i in range(POINTS)})
    borders = [0.0, *((here + there) / 2 for here, there in pairwise(places)), float(total)]

    def walk(steps: int) -> Callable[[], None]:
        def reach() -> None:
            for _ in range(steps):
                advance()

        return reach

    ways = [there - here for here, there in zip([0, *places], places, strict=False)]
    shares = [(end - begin) / total for begin, end in pairwise(borders)]
    return [Point(weight=share, reach=walk(way)) for share, way in zip(shares, ways, strict=True)]


@dataclass(kw_only=True)
class StageTimer:
    """Times one stage. `building`: seconds that making its steps took; `points`: of a stage of so many steps.

    moving: steps in which the sizes move. If that is more than one epoch, the first epochs cannot stand for the stage:
    all are timed if they are short, else steps along the course of the sizes.
    """

    spec: RunSpec
    stage: Stage
    place: Place
    work: Steps
    watch: Stopwatch
    batch_size: int
    drop_last: bool
    epochs: int
    building: float
    moving: int = 0
    points: Callable[[int], Sequence[Point]] = lambda total: [Point(weight=1.0)]

    def timing(self) -> StageTiming:
        step = one_by_one(self.work)
        first = self.timed(step)
        warm_up = [self.timed(step)[0] for _ in range(WARM_UPS if self.watch.on_cuda else 0)]
        estimate = min(self.timed(step)[0] for _ in range(2)) * self.steps_in_epoch
        longest = self.place.extrapolate_above if self.rests else min(MINUTE, self.place.extrapolate_above)
        whole = self.holds_all and estimate <= longest
        found = self.whole_epochs(estimate) if whole else self.some_steps(estimate)
        return StageTiming(
            one_off={"building": self.building} | one_off(*first) | ({"warm-up": sum(warm_up)} if warm_up else {}),
            images=self.images,
            images_held=None if self.holds_all else self.held,
            batch_size=self.batch_size,
            steps=math.floor(self.steps_in_epoch) if self.drop_last else math.ceil(self.steps_in_epoch),
            epochs=self.epochs,
            **found,
        )

    @property
    def images(self) -> int:
        return DATASETS[self.spec.data.name].train_images

    @property
    def held(self) -> int:
        return len(self.place.data.train(self.spec.data.name))

    @property
    def holds_all(self) -> bool:
        return self.held == self.images

    @property
    def rests(self) -> bool:
        """Whether the sizes do not move any more after the first epoch."""
        return self.moving <= self.steps_in_epoch

    @property
    def steps_in_epoch(self) -> float:
        return steps_in_epoch(self.images, self.batch_size, drop_last=self.drop_last)

    def timed(self, work: Callable[[], object]) -> tuple[float, dict[str, float]]:
        """Seconds of one call and their parts."""
        self.place.check()
        self.watch.start()
        work()
        return self.watch.stop(), dict(self.watch.parts)  # a copy: steps that nobody times have laps, too

    def whole_epochs(self, estimate: float) -> dict[str, Any]:
        moves = self.stage == "size_learning" and self.epochs > 1
        count = min(max(int(MINUTE / max(estimate, 1e-9)), 2 if moves else 1), MOST_EPOCHS)
        epochs = range(1, 1 + (count if self.rests else self.epochs))
        laps = [self.timed(lambda epoch=epoch: self.epoch(epoch)) for epoch in epochs]  # type: ignore[misc]
        samples = [seconds for seconds, _ in laps]
        if not self.rests:
            weighted = [(lap, 1 / self.epochs) for lap in laps]
        elif moves:
            weighted = [(laps[0], 1 / self.epochs), (median_lap(laps[1:]), 1 - 1 / self.epochs)]
        else:
            weighted = [(median_lap(laps), 1.0)]
        seconds = sum(weight * lap[0] for lap, weight in weighted)
        parts = reduce(added, (scaled(lap[1], weight) for lap, weight in weighted))
        return {"seconds": seconds, "how": "epochs", "samples": samples, "parts": parts}

    def epoch(self, epoch: int) -> None:
        self.work.start_epoch(epoch)
        self.watch.lap("start of the epoch")
        for _ in range(self.work.steps):
            self.place.check()
            self.work.step()

    def some_steps(self, estimate: float) -> dict[str, Any]:
        """Steps of full batches at each point, weighted, times the steps of an epoch; and the start of one."""
        start = self.timed(lambda: self.work.start_epoch(1))
        step = one_by_one(self.work, full=max(1, self.held // self.batch_size))
        points = self.points(max(1, round(self.epochs * self.steps_in_epoch)))
        wanted = WORK / max(estimate / self.steps_in_epoch, 1e-9)
        each = math.ceil(min(max(wanted, FEWEST_STEPS), MOST_STEPS) / len(points))
        seconds, parts, samples = start[0], start[1], []
        for point in points:
            point.reach()
            step()  # the first one at new sizes
            laps = [self.timed(step) for _ in range(each)]
            samples += [lap[0] for lap in laps]
            count = point.weight * self.steps_in_epoch
            seconds += count * statistics.fmean(lap[0] for lap in laps)
            for lap in laps:
                parts = added(parts, scaled(lap[1], count / each))
        return {"seconds": seconds, "how": "steps", "samples": samples, "parts": parts}


def steps_in_epoch(images: int, batch_size: int, *, drop_last: bool) -> float:
    """The short last batch counts by its share."""
    share = images / batch_size
    return float(math.floor(share)) if drop_last else share


def one_off(seconds: float, parts: dict[str, float]) -> dict[str, float]:
    """What the first step took, capturing apart."""
    capture = {part: spent for part, spent in parts.items() if part == "capture"}
    return capture | {"first step": seconds - sum(capture.values())}


def median_lap(laps: Laps) -> tuple[float, dict[str, float]]:
    """The lap whose seconds are the median (the lower of two middle ones), so that its parts still add up."""
    return sorted(laps, key=lambda lap: lap[0])[(len(laps) - 1) // 2]
