"""The timing of one row: both stages at their sizes, an evaluation, floors, and the certificate of the meantime."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduce.errors import Interrupted
from reproduce.floors import floor
from reproduce.run.evaluation import BATCH, evaluate, logits_of
from reproduce.run.machine import settings
from reproduce.run.recording import code, now
from reproduce.run.resume import Notes, clear
from reproduce.run.splits import Split
from reproduce.run.stages import disk_full
from reproduce.run.timing.certificate import Watch
from reproduce.run.timing.place import Place, failure
from reproduce.run.timing.stage_clock import MINUTE, StageTimer, points_along
from reproduce.run.timing.stopwatch import Stopwatch
from reproduce.run.timing.workloads import (
    Sizes,
    SizeSteps,
    budget_course,
    network_of,
    sizes_for,
    training_steps,
)
from reproduce.specs import DATASETS, RunSpec
from reproduce.timings import RowTiming, Stage, StageTiming, row_timing_id


def time_row(name: str, spec: RunSpec, place: Place) -> RowTiming:
    """Both stages of a row. What goes wrong, such as too little memory, becomes the record's outcome.

    Raises `Interrupted` and `OSError` (a full disk).
    """
    started = now()
    found: dict[str, Any] = {}
    with settings(spec.threads, spec.precision), Watch(place.device, spec.threads, dict(place.ceilings)) as watch:
        try:
            for part in row_parts(spec, place):
                found |= part
        except (Interrupted, OSError):
            raise
        except Exception as error:
            if (full := disk_full(error)) is not None:
                raise full from error
            found |= {"outcome": "failed", "reason": failure(error, spec, place.device)}
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
    clear(unfinished(spec, place))
    return RowTiming(
        name=name,
        timing_id=row_timing_id(spec, place.device.type),
        spec=spec,
        device=place.device.type,  # type: ignore[arg-type]
        certificate=watch.certificate(),
        machine=place.machine,
        code=code(),
        started=started,
        finished=now(),
        **found,
    )


def row_parts(spec: RunSpec, place: Place) -> Iterator[dict[str, Any]]:
    """The fields of a row's timing, as they become known."""
    sizes = sizes_for(spec, place.store)
    yield {"sizes": sizes.by_layer, "sizes_from": sizes.origin}
    if spec.size_learning is not None and spec.size_learning.source == "data":  # else no image has a part in stage 1
        notes = Notes(unfinished(spec, place) / "size_learning.json")
        found = notes.load()
        stage = StageTiming(**found) if found else time_size_learning(spec, place)
        notes.save(stage.model_dump(mode="json"))
        yield {"size_learning": stage}
    yield {"training": time_training(spec, sizes, place)}


def unfinished(spec: RunSpec, place: Place) -> Path:
    """Where the first stage's timing waits for the second's, if the command is stopped in between."""
    timing_id = row_timing_id(spec, place.device.type)
    return place.store.results / ".resume" / f"timing-{place.machine}-{timing_id}"


def time_training(spec: RunSpec, sizes: Sizes, place: Place) -> StageTiming:
    """Stage 2 at its sizes, and an evaluation."""
    split, recipe, watch = place.data.train(spec.data.name), spec.training, Stopwatch(place.device)
    place.say("training")
    watch.start()
    network = network_of(spec, sizes)
    work = training_steps(spec, network, split, place.device, watch.lap)
    stage = StageTimer(
        spec=spec,
        stage="training",
        place=place,
        work=work,
        watch=watch,
        batch_size=recipe.batch_size,
        drop_last=recipe.drop_last,
        epochs=recipe.epochs,
        building=watch.stop(),
    )
    found = stage.timing()
    place.say("evaluation")
    seconds, how = time_evaluation(network, place.data.test(spec.data.name), spec, place)
    floors = floor_seconds(spec, "training", sizes.by_layer, place)
    return found.model_copy(
        update={"evaluation_seconds": seconds, "evaluation_how": how, "floor_seconds": floors}
    )


def time_size_learning(spec: RunSpec, place: Place) -> StageTiming:
    """Stage 1 with sizes that really move: whole epochs from its start, or steps at points along their course."""
    learning = spec.size_learning
    assert learning is not None
    split, watch = place.data.train(spec.data.name), Stopwatch(place.device)
    place.say("size learning")
    watch.start()
    work = SizeSteps(spec, split, place.device, watch.lap)
    building = watch.stop()
    course = budget_course(spec)
    stage = StageTimer(
        spec=spec,
        stage="size_learning",
        place=place,
        work=work,
        watch=watch,
        batch_size=learning.batch_size,
        drop_last=False,
        epochs=learning.epochs,
        building=building,
        points=lambda total: points_along(course.moving, total, work.learner.budget_step),
    )
    return stage.timing().model_copy(
        update={"floor_seconds": floor_seconds(spec, "size_learning", course.sizes, place)}
    )


def time_evaluation(network: nn.Module, test: Split, spec: RunSpec, place: Place) -> tuple[float, str]:
    """One pass over the test set, or, where it takes over a minute, some batches times their number."""
    normalisation, watch = spec.training.normalisation, Stopwatch(place.device)

    def timed(work: Callable[[], object]) -> float:
        place.check()
        watch.start()
        work()
        return watch.stop()

    few = test.images[:BATCH]
    times = [timed(lambda: logits_of(network, few, normalisation)) for _ in range(3)]
    tests = DATASETS[spec.data.name].test_images
    estimate = statistics.fmean(times[1:]) * tests / len(few)
    if len(test) < tests or estimate > min(MINUTE, place.extrapolate_above):
        return estimate, "steps"
    return timed(lambda: evaluate(network, test, normalisation=normalisation, epoch=1)), "whole"


def floor_seconds(spec: RunSpec, stage: Stage, sizes: dict[str, int] | None, place: Place) -> float | None:
    """What the ceilings of this device allow for an epoch; None without ceilings."""
    if not place.ceilings:
        return None
    return floor(spec, stage, sizes=None if sizes is None else list(sizes.values())).seconds(place.ceilings)
