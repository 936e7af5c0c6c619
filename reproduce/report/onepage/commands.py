"""The command that makes a number, as a shell takes it."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence

from reproduce.report import words
from reproduce.report.cells import Cell
from reproduce.report.shelf import CANONICAL, DIGITS, Series, Way
from reproduce.report.times import Place
from reproduce.specs import Protocol
from reproduce.timings import PairTiming


def of_cells(experiment: str, protocol: Protocol, cells: Iterable[Cell]) -> tuple[str, ...]:
    """The commands behind a column: one for all rows that were run with the same seeds, in the same way."""
    groups: dict[tuple[str, Way, str], list[str]] = defaultdict(list)
    for cell in cells:
        if cell.series is not None:
            groups[_seeds(cell.series), cell.series.way, cell.series.source].append(cell.row.name)
    return tuple(
        command(experiment, protocol, names=names, seeds=seeds, way=way, source=source)
        for (seeds, way, source), names in groups.items()
    )


def command(
    experiment: str,
    protocol: Protocol,
    *,
    names: Sequence[str] = (),
    seeds: str = "",
    way: Way | None = None,
    source: str = CANONICAL,
) -> str:
    """`reproduce table2 --protocol quick --epochs 6 --rows CIFARResNet-44 --seeds 0..2 --data-root DIR`.

    names: of rows; none for all. DIR stands for the folder of images that are not the canonical files.
    """
    options = {
        "--protocol": protocol.base,
        "--recipe": "" if protocol.recipe == "flexconv" else protocol.recipe,
        "--epochs": protocol.epochs,
        "--size-epochs": protocol.size_epochs,
        "--train-images": protocol.train_images,
        "--rows": ",".join(names),
        "--seeds": seeds,
        "--engine": "" if way is None or way.engine == "plain" else way.engine,
        "--precision": "" if way is None or way.precision == "float32" else way.precision,
        "--gpus-per-run": "" if way is None or way.world_size == 1 else way.world_size,
    }
    words_ = ["reproduce", experiment]
    for name, value in options.items():
        words_ += [name, str(value)] if value else []
    words_ += ["--sync-bn"] if way is not None and way.sync_bn else []
    return shlex.join(words_) + ("" if source in (CANONICAL, DIGITS) else " --data-root DIR")


def of_place(experiment: str, place: Place) -> str:
    """Behind a column of seconds: all rows at one place."""
    options = ["--device", place.device]
    options += [] if place.engine == "plain" else ["--engine", place.engine]
    options += [] if place.precision == "float32" else ["--precision", place.precision]
    options += [] if place.threads == 1 else ["--threads", str(place.threads)]
    return shlex.join(["reproduce", "time", experiment, "--no-ladder", *options])


def of_pairs(claim: str, pairs: Sequence[PairTiming]) -> str:
    """Behind the ratios of one bench."""
    threads = pairs[0].b.spec.threads
    options = ["--device", pairs[0].device, *([] if threads == 1 else ["--threads", str(threads)])]
    return shlex.join(["reproduce", "time", claim, "--ladder-only", *options])


def _seeds(series: Series) -> str:
    seeds = sorted(record.seed for record in (*series.finished, *series.unfinished))
    return words.number_list(seeds).replace(" ", "")
