"""The timing of one row: both stages at their sizes, an evaluation, floors, and the certificate of the meantime."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduce.errors import Interrupted
from reproduce.floors import seconds_at_least
from reproduce.run.evaluation import BATCH, evaluate, logits_of
from reproduce.run.machine import settings
from reproduce.run.recording import code
from reproduce.run.resume import Notes, clear
from reproduce.run.splits import Split
from reproduce.run.stages import disk_full
from reproduce.run.timing.batch_line import along_line
from reproduce.run.timing.certificate import Watch
from reproduce.run.timing.pairs import Step
from reproduce.run.timing.place import Place, failure
from reproduce.run.timing.stage_clock import MINUTE, StageTimer, points_along
from reproduce.run.timing.stopwatch import Stopwatch, scaled
from reproduce.run.timing.trials import fitting_batch, no_lap, with_batch
from reproduce.run.timing.workloads import (
    SEED,
    Sizes,
    SizeSteps,
    Steps,
    budget_course,
    network_of,
    one_by_one,
    sizes_for,
    steps_together,
    training_steps,
)
from reproduce.specs import DATASETS, RunSpec
from reproduce.store import RESUME
from reproduce.timings import RowTiming, StageTiming, row_timing_id
from reproduce.traces import now

FEWEST_IMAGES = 2  # of a step: batch norm over one image of one pixel has no variance


def time_row(name: str, spec: RunSpec, place: Place, *, together: int = 1) -> RowTiming:
    """Both stages of a row, or training alone with so many networks side by side. What goes wrong, such as too little
    memory, becomes the record's outcome.

    Raises `Interrupted` and `OSError` (a full disk).
    """
    started = now()
    found: dict[str, Any] = {}
    with settings(spec.threads, spec.precision), Watch(place.device, spec.threads, dict(place.ceilings)) as watch:
        try:
            for part in row_parts(spec, place) if together == 1 else shared_parts(spec, place, together):
                found |= part
        except (Interrupted, OSError):
            raise
        except Exception as error:
            if (full := disk_full(error)) is not None:
                raise full from error
            found |= {"outcome": "failed", "reason": failure(error, spec, place.device)}
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
    if together == 1:
        clear(unfinished(spec, place))
    return RowTiming(
        name=name,
        timing_id=row_timing_id(spec, place.device.type, together),
        together=together,
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


def shared_parts(spec: RunSpec, place: Place, together: int) -> Iterator[dict[str, Any]]:
    """The same of several networks side by side, for each of them: training alone, without an evaluation."""
    sizes = sizes_for(spec, place.store, together=together)
    yield {"sizes": sizes.by_layer, "sizes_from": sizes.origin}
    place.say(f"training, {together} side by side")
    watch = Stopwatch(place.device)
    watch.start()
    networks = [network_of(spec, sizes, seed=SEED + i, hold=True) for i in range(together)]
    work = steps_together(spec, networks, place.data.train(spec.data.name), place.device, watch.lap)
    found = training_timer(spec, place, work, watch).timing()
    shared = {
        "seconds": found.seconds / together,
        "samples": [seconds / together for seconds in found.samples],
        "parts": scaled(found.parts, 1 / together),
        "floor_seconds": seconds_at_least(spec, "training", sizes.by_layer, place.ceilings),
    }
    yield {"training": found.model_copy(update=shared)}


def unfinished(spec: RunSpec, place: Place) -> Path:
    """Where the first stage's timing waits for the second's, if the command is stopped in between."""
    timing_id = row_timing_id(spec, place.device.type)
    return place.store.results / RESUME / f"timing-{place.machine}-{timing_id}"


def time_training(spec: RunSpec, sizes: Sizes, place: Place) -> StageTiming:
    """Stage 2 at its sizes, and an evaluation."""
    own = spec.training.batch_size
    place.say("training")
    batch = training_batch(spec, sizes, place)
    found, network = training_with(spec, sizes, batch, place)
    fewer = max(FEWEST_IMAGES, batch // 4)
    if fewer < batch < own:
        place.say(f"training, {fewer} images a step instead of {batch}")
        found = along_line(found, training_with(spec, sizes, fewer, place)[0], spec.training)
    place.say("evaluation")
    most = BATCH if batch == own else min(batch, BATCH)
    seconds, how = time_evaluation(network, place.data.test(spec.data.name), spec, place, batch=most)
    floors = seconds_at_least(spec, "training", sizes.by_layer, place.ceilings)
    return found.model_copy(
        update={"evaluation_seconds": seconds, "evaluation_how": how, "floor_seconds": floors, "batch_cut": batch < own}
    )


def training_with(spec: RunSpec, sizes: Sizes, batch: int, place: Place) -> tuple[StageTiming, nn.Module]:
    """Stage 2 with so many images a step, and its network. A batch that is not the row's own makes no whole epochs."""
    watch, cut = Stopwatch(place.device), with_batch(spec, batch)
    there = place if batch == spec.training.batch_size else replace(place, extrapolate_above=0.0)
    watch.start()
    network = network_of(spec, sizes)
    work = training_steps(cut, network, place.data.train(spec.data.name), place.device, watch.lap)
    return training_timer(cut, there, work, watch).timing(), network


def training_batch(spec: RunSpec, sizes: Sizes, place: Place) -> int:
    """The row's own batch, or as many images as keep a step under the limit and fit into memory."""
    own = spec.training.batch_size
    if place.step_limit is None:
        return own
    split = place.data.train(spec.data.name)

    def make(count: int) -> Step:
        work = training_steps(with_batch(spec, count), network_of(spec, sizes), split, place.device, no_lap)
        return one_by_one(work, full=len(split) // count)

    return fitting_batch(make, own, place.step_limit, place, least=FEWEST_IMAGES)


def training_timer(spec: RunSpec, place: Place, work: Steps, watch: Stopwatch) -> StageTimer:
    """What times steps of stage 2 that were just built; the watch has run since."""
    return StageTimer(
        spec=spec,
        stage="training",
        place=place,
        work=work,
        watch=watch,
        batch_size=spec.training.batch_size,
        drop_last=spec.training.drop_last,
        epochs=spec.training.epochs,
        building=watch.stop(),
    )


def time_size_learning(spec: RunSpec, place: Place) -> StageTiming:
    """Stage 1 with sizes that really move: whole epochs, or steps at points along their course."""
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
        moving=course.moving,
        points=lambda total: points_along(course.moving, total, work.learner.budget_step),
    )
    floors = seconds_at_least(spec, "size_learning", course.sizes, place.ceilings)
    return stage.timing().model_copy(update={"floor_seconds": floors, "sizes": course.sizes})


def time_evaluation(
    network: nn.Module, test: Split, spec: RunSpec, place: Place, *, batch: int = BATCH
) -> tuple[float, str]:
    """One pass over the test set, or, where it takes over a minute, some batches times their number."""
    normalisation, watch = spec.training.normalisation, Stopwatch(place.device)

    def timed(work: Callable[[], object]) -> float:
        place.check()
        watch.start()
        work()
        return watch.stop()

    few = test.images[:batch]
    times = [timed(lambda: logits_of(network, few, normalisation)) for _ in range(3)]
    tests = DATASETS[spec.data.name].test_images
    estimate = statistics.fmean(times[1:]) * tests / len(few)
    if batch < BATCH or len(test) < tests or estimate > min(MINUTE, place.extrapolate_above):
        return estimate, "steps"
    return timed(lambda: evaluate(network, test, normalisation=normalisation, epoch=1)), "whole"
