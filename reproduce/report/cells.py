"""A row of a table with the records that fill it, and what these say: measures, sizes, seconds per epoch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reproduce import experiments
from reproduce.experiments import Row
from reproduce.records import Evaluation, RunRecord
from reproduce.report.shelf import DIGITS, Series, Shelf, choose, common_source, series_of
from reproduce.report.statistics import Summary, mean, summarise
from reproduce.specs import Protocol


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A row with the records that answer it; `series` is None where there are none."""

    row: Row
    series: Series | None
    others: tuple[Series, ...] = ()  # recorded as well, but of another source or version, or computed otherwise

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        return () if self.series is None else self.series.finished

    @property
    def unfinished(self) -> tuple[RunRecord, ...]:
        return () if self.series is None else self.series.unfinished


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Seconds per training epoch on one machine, over the seeds that were timed there."""

    machine: str  # id of RESULTS/machines/<id>.json
    device: str  # "cpu", "cuda", or empty where the record does not say
    size_learning: Summary | None  # stage 1
    training: Summary  # stage 2
    all_epochs: Summary  # over the epochs of both stages together
    of_stages: Summary  # the mean of the two stages' own averages


def rows_of(experiment: str, protocol: Protocol, shelf: Shelf) -> list[Row]:
    """The rows of an experiment. Figure 3 also has those depths and budgets that were run beyond the paper's."""
    if experiment != "figure3":
        return experiments.rows(experiment, protocol)
    depths, budgets = set(experiments.FIGURE3_DEPTHS), set(experiments.FIGURE3_BUDGETS)
    for depth, budget in _recorded_resnets(experiments.dataset_of(experiment), protocol, shelf):
        if budget == experiments.FIGURE3A_BUDGET:
            depths.add(depth)
        elif depth == experiments.FIGURE3B_DEPTH:
            budgets.add(budget)
    return experiments.rows(experiment, protocol, depths=sorted(depths), budgets=sorted(budgets))


def cells_of(rows: Sequence[Row], shelf: Shelf, *, one_source: bool = False) -> list[Cell]:
    """The rows with the records that fill them.

    The bundled digits never stand beside images of the data set: where any row has these, digits are left out.
    `one_source` holds all rows to one source, as the points of a curve must be.
    """
    found = [series_of(shelf.answers(row.spec)) for row in rows]
    if any(one.source != DIGITS for several in found for one in several):
        found = [[one for one in several if one.source != DIGITS] for several in found]
    every = [one for several in found for one in several]
    if one_source and every:
        source = common_source(every)
        found = [[one for one in several if one.source == source] for several in found]
    return [_cell(row, several) for row, several in zip(rows, found, strict=True)]


def is_smoke_test(cells: Sequence[Cell]) -> bool:
    """Whether these rows are filled, or would be filled, by runs on the bundled digits: no measurement."""
    filled = [cell.series.source for cell in cells if cell.series is not None]
    asked = [cell.row.spec.data.source for cell in cells]
    return DIGITS in (filled or asked)


def last(cell: Cell, measure: str) -> Summary | None:
    """One measure (a field of `Evaluation`) after the last epoch, over the finished seeds."""
    values = [float(getattr(one.metrics.last, measure)) for one in cell.finished if one.metrics is not None]
    return summarise(values) if values else None


def best(cell: Cell) -> list[Evaluation]:
    """The best epoch of each finished seed: selected on the test set, so never the result."""
    return [one.metrics.best for one in cell.finished if one.metrics is not None]


def layer_sizes(record: RunRecord) -> dict[str, int]:
    """Learned sizes by layer in forward order; empty for a fixed network.

    A record's file sorts its keys, so the order comes from the kernels' list, else from the names.
    """
    sizes = record.sizes or {}
    order = [picture.layer for picture in record.kernels]
    if sorted(order) != sorted(sizes):
        order = sorted(sizes, key=_forward)
    return {layer: sizes[layer] for layer in order}


def own_sizes(record: RunRecord) -> dict[str, list[int]]:
    """[height, width] of a baseline's layers that set their own, in forward order; empty where there are none."""
    sizes = record.kernel_sizes or {}
    return {layer: sizes[layer] for layer in sorted(sizes, key=_forward)}


def seconds(cell: Cell) -> list[Seconds]:
    """Seconds per epoch for each machine. Nothing from `tiny`, nothing from a device that was shared."""
    machines: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in cell.finished:
        if is_timed(record):
            machines[record.machine, device(record)].append(record)
    return [_seconds(machine, where, records) for (machine, where), records in sorted(machines.items())]


def is_timed(record: RunRecord) -> bool:
    """Whether the seconds of this run are a timing."""
    tiny = Protocol.parse(record.spec.protocol).base == "tiny"
    return not tiny and not record.clock.shared_device and bool(record.clock.training.epoch_seconds)


def device(record: RunRecord) -> str:
    """What the run was computed on, "cpu" or "cuda", if the record says so; else empty."""
    return str((record.clock.model_extra or {}).get("device", ""))


def _recorded_resnets(dataset: str, protocol: Protocol, shelf: Shelf) -> Iterator[tuple[int, int]]:
    """(depth, budget) of each recorded ResNet with learned sizes, on this data set under this protocol; no controls."""
    for spec in (record.spec for record in shelf.records):
        here = spec.data.name == dataset and spec.protocol == protocol.name and spec.model.family == "cifar_resnet"
        learning = spec.size_learning
        if here and learning is not None and learning.source == "data" and learning.labels == "true":
            yield int(str(spec.model.args["depth"])), learning.budget


def _cell(row: Row, several: Sequence[Series]) -> Cell:
    chosen = choose(several)
    return Cell(row=row, series=chosen, others=tuple(one for one in several if one is not chosen))


def _forward(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Sorts `blocks.10.conv1` behind `blocks.9.conv1`, and the first layer, `conv1`, before all blocks."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
    return name.count("."), parts


def _seconds(machine: str, where: str, records: Sequence[RunRecord]) -> Seconds:
    # "the average over the epochs of both stages" allows two averages; both are shown.
    runs = [
        (clock.size_learning.epoch_seconds if clock.size_learning else [], clock.training.epoch_seconds)
        for clock in (record.clock for record in records)
    ]
    return Seconds(
        machine=machine,
        device=where,
        size_learning=summarise(mean(first) for first, _ in runs) if all(first for first, _ in runs) else None,
        training=summarise(mean(second) for _, second in runs),
        all_epochs=summarise(mean([*first, *second]) for first, second in runs),
        of_stages=summarise(mean([mean(stage) for stage in stages if stage]) for stages in runs),
    )
