"""Seconds per epoch from the stopwatch: one column for each place, the stages below the table, plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reproduce.floors import floor_seconds
from reproduce.report import words
from reproduce.report.cells import Cell
from reproduce.report.shelf import Shelf
from reproduce.report.words import NOTHING
from reproduce.timing_store import counts
from reproduce.timings import BatchLine, RowTiming, StageTiming, epoch_seconds, stages

AVERAGES = "weighted by epochs / mean of stages"
HEADERS = ["model", "machine", "engine, precision", "size learning", "training", AVERAGES, "times the floor",
           "evaluation", "one-off costs"]  # fmt: skip


@dataclass(frozen=True, order=True, kw_only=True)
class Place:
    """Where and how seconds were measured. Those of two places never share a column or a curve."""

    machine: str  # id of RESULTS/machines/<id>.json
    device: str
    engine: str
    precision: str
    threads: int

    @property
    def manner(self) -> str:
        """`graph, bf16`; empty for the plain engine in float32 on one thread."""
        threads = "" if self.threads == 1 else f"{self.threads} threads"
        usual = (self.engine, self.precision) == ("plain", "float32")
        return ", ".join(part for part in ("" if usual else f"{self.engine}, {self.precision}", threads) if part)


def place_of(record: RowTiming) -> Place:
    spec = record.spec
    return Place(
        machine=record.machine,
        device=record.device,
        engine=spec.engine,
        precision=spec.precision,
        threads=spec.threads,
    )


def timings(cell: Cell, shelf: Shelf) -> dict[Place, RowTiming]:
    """The timing of this row at each place. A good one comes before one that is not, then the newest."""
    found = sorted(shelf.timings(cell.row.spec), key=lambda one: (counts(one), one.finished))
    return {place_of(record): record for record in found}


def places(cells: Iterable[Cell], shelf: Shelf) -> list[Place]:
    """All places at which any of these rows was timed, GPUs first."""
    found = {place for cell in cells for place in timings(cell, shelf)}
    return sorted(found, key=lambda one: (one.device == "cpu", one))


def titles(several: Sequence[Place], shelf: Shelf) -> dict[Place, str]:
    """`NVIDIA H200, torch 2.9.0; random images, graph, bf16`, with the machine's id where two would read alike."""
    found = {place: _title(place, shelf) for place in several}
    alike = [text for text in found.values() if list(found.values()).count(text) > 1]
    return {place: f"{text}; machine {place.machine}" if text in alike else text for place, text in found.items()}


def seconds(record: RowTiming | None, mark: Callable[[str], str], *, short: bool = False) -> str:
    """A cell: both averages of R-23, one where there is no size learning; or why there is no time."""
    if record is None:
        return NOTHING
    if record.certificate.invalid:
        why = words.one_line(record.certificate.invalid)
        return "invalid" + mark(f"Not timed: {why}.") if short else f"invalid: {why}"
    if record.outcome == "failed":
        return "failed" + mark(f"Not timed: {words.one_line(record.reason) or 'no reason recorded'}.")
    if record.training is None:
        return NOTHING + mark("Size learning alone was timed.")
    notes = (extrapolated(record), _half(record), f"Sizes: {record.sizes_from}." if record.sizes_from else "")
    return _averages(record) + "".join(map(mark, notes))


def is_whole(record: RowTiming) -> bool:
    """Whether this is a good timing of every stage that the row has, so that it may stand in a curve."""
    return counts(record) and record.training is not None and not _half(record)


def averages(record: RowTiming) -> dict[str, Any]:
    """Both averages of R-23 as plain values; a picture shows the first."""
    weighted, mean = epoch_seconds(record) or (None, None)
    return {"weighted": weighted, "mean_of_stages": mean, "how": "steps" if extrapolated(record) else "epochs"}


def extrapolated(record: RowTiming) -> str:
    """`Extrapolated from 8 timed steps of size learning and 10 of training.`; empty for whole epochs."""
    stages = (("size learning", record.size_learning), ("training", record.training))
    parts = [(timed_steps(stage), name) for name, stage in stages if stage is not None and stage.how == "steps"]
    if not parts:
        return ""
    (steps, first), *rest = parts
    text = f"Extrapolated from {steps} timed steps of {first}"
    return text + "".join(f" and {steps} of {name}" for steps, name in rest) + "." + cut(record)


def timed_steps(stage: StageTiming) -> int:
    """Of all batch sizes."""
    return len(stage.samples) + (len(stage.batch_line.samples) if stage.batch_line else 0)


def cut(record: RowTiming) -> str:
    """` Steps of 2 images instead of 64, ...`, led by a blank; empty where the batch is the row's own."""
    stage = record.training
    if stage is None or not stage.batch_cut:
        return ""
    own, line = record.spec.training.batch_size, stage.batch_line
    if line is not None:
        return _line(line)
    each = "each with all that a step costs besides its images, so rather too long"
    return f" Steps of {stage.batch_size} images instead of {own}, {each}."


def _line(line: BatchLine) -> str:
    """How two cut batches were drawn out to the row's own, or why they were not."""
    batches, took = (" and ".join(map(str, both)) for both in (line.images, map(words.seconds, line.seconds)))
    if line.used:
        fixed = f"{took} s, {words.seconds(line.fixed)} s of them whatever the images"
        return f" A step of {line.own} images is extrapolated from steps of {batches} images by a line: {fixed}."
    why = f"a line through steps of {batches} images ({took} s) falls below zero"
    return f" Steps of {line.images[0]} images instead of {line.own}, in proportion to the images: {why}."


def by_stage(cells: Sequence[Cell], shelf: Shelf) -> list[list[str]]:
    """One line for each good timing: both stages, both averages, times of the floors, and what stands apart."""
    return [
        [cell.row.name, f"{place.machine} ({place.device})", place.manner or "plain, float32", *_stages(record)]
        for cell in cells
        for place, record in sorted(timings(cell, shelf).items())
        if counts(record)
    ]


def records(cells: Iterable[Cell], shelf: Shelf) -> list[RowTiming]:
    """The timings that these rows show."""
    return [record for cell in cells for record in timings(cell, shelf).values()]


def plain(cell: Cell, shelf: Shelf) -> list[dict[str, Any]]:
    """The same as plain values. Seconds are null where they are no timing; `reason` says why."""
    return [_plain(place, record) for place, record in sorted(timings(cell, shelf).items())]


def _title(place: Place, shelf: Shelf) -> str:
    machine = words.machine_title(shelf.machine(place.machine), place.device)
    return f"{machine}; random images" + (f", {place.manner}" if place.manner else "")


def _half(record: RowTiming) -> str:
    """Says that size learning is missing where the row has it."""
    learning = record.spec.size_learning
    missing = learning is not None and learning.source == "data" and record.size_learning is None
    return "Training alone: size learning was not timed." if missing else ""


def _averages(record: RowTiming) -> str:
    """`~19.5 / 24.0`; a single number where there is no size learning."""
    both = epoch_seconds(record)
    if both is None:
        return NOTHING
    numbers = [words.seconds(value) for value in both[: 2 if record.size_learning else 1]]
    return "~" * bool(extrapolated(record)) + " / ".join(numbers)


def _stages(record: RowTiming) -> list[str]:
    timed = stages(record)
    floors = [
        f"{stage.seconds / least:.3g}" for name, stage in timed.items() if (least := floor_seconds(record, name))
    ]
    once = sum(sum(stage.one_off.values()) for stage in timed.values())
    return [
        _stage(record.size_learning),
        _stage(record.training),
        _averages(record),
        " / ".join(floors) or NOTHING,
        _evaluation(record.training),
        words.seconds(once) if once else NOTHING,
    ]


def _stage(stage: StageTiming | None) -> str:
    return NOTHING if stage is None else "~" * (stage.how == "steps") + words.seconds(stage.seconds)


def _evaluation(stage: StageTiming | None) -> str:
    if stage is None or stage.evaluation_seconds is None:
        return NOTHING
    return "~" * (stage.evaluation_how == "steps") + words.seconds(stage.evaluation_seconds)


def _plain(place: Place, record: RowTiming) -> dict[str, Any]:
    good = counts(record)
    known = averages(record)
    return {
        "machine": place.machine,
        "device": place.device,
        "engine": place.engine,
        "precision": place.precision,
        "threads": place.threads,
        "how": known["how"],
        "size_learning": record.size_learning.seconds if good and record.size_learning else None,
        "training": record.training.seconds if good and record.training else None,
        "weighted": known["weighted"] if good else None,
        "mean_of_stages": known["mean_of_stages"] if good else None,
        "valid": good,
        "reason": record.certificate.invalid or record.reason,
        "sizes_from": record.sizes_from,
        "timing_id": record.timing_id,
    }
