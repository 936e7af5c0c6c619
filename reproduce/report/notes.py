"""The notes below a table: its settings, data, machines and warnings, and the readings that bear on it."""

from __future__ import annotations

from reproduce import paper, recipes
from reproduce.networks import network
from reproduce.report import ratios, words
from reproduce.report.table import Table
from reproduce.specs import DATASETS
from reproduce.timings import RowTiming

# Deviations that bear on a family alone.
OF_FAMILY = {
    "wide_resnet": {"R-20"},
    "flexnet": {"R-24", "R-25"},
    "flex_resnet": {"R-24", "R-25", "R-26"},
    "ckcnn7": {"R-27"},
    "njet_all_cnn": {"R-28", "R-35"},
    "njet_resnet": {"R-29", "R-35"},
    "dcn": {"R-30"},
    "nin": {"R-31"},
    "efficient_capsnet": {"R-32"},
    "vgg5": {"R-36"},
    "resnet18": {"R-37"},
}


def notes(table: Table) -> list[str]:
    """Protocol, data, machines and readings, one line each."""
    lines = [
        "Ours: test accuracy in % after the last epoch, mean ± sample standard deviation (n seeds); the interval is "
        "the 95 % Student-t interval of the mean. One seed has neither.",
        f"Protocol {table.protocol.name}: {words.schedule(table.dataset, table.protocol)}.{_whose(table)}",
        *_settings(table),
        *_data(table),
        *_machines(table),
        *_stopwatch(table),
        *_warnings(table),
        *_empty_rows(table),
    ]
    return [f"- {line}" for line in lines]


def deviations(table: Table) -> list[str]:
    """The readings of ours that bear on this table's results, by tag."""
    tags = _tags(table)
    other = {"R-15": "; here the other reading, SGD with steps"} if table.protocol.recipe == "sgd" else {}
    return [
        f"- {entry.id} {entry.title} ({entry.where}){other.get(entry.id, '')}"
        for entry in paper.deviations()
        if entry.id in tags
    ]


def _whose(table: Table) -> str:
    """The protocol's line counts EffConv's epochs; where it shortens them, other rows have other totals."""
    whole = table.protocol.name in ("paper", "paper-sgd")
    return "" if whole else " The totals are EffConv's; those of other authors' schedules stand below."


def _settings(table: Table) -> list[str]:
    """The settings of each stage; rows that differ are named."""
    found: dict[str, list[str]] = {}
    for cell in table.every:
        spec = cell.row.spec
        full = recipes.full_training(network(cell.row.name), table.dataset, table.protocol)
        found.setdefault(f"Training: {words.recipe(spec.training, full.epochs)}", []).append(cell.row.name)
        if spec.size_learning is not None:
            text = f"Size learning: {words.size_learning(spec.size_learning)}"
            found.setdefault(text, []).append(cell.row.name)
    trainings = sum(text.startswith("Training") for text in found)
    return [
        text + (f" ({', '.join(names)})" if trainings > 1 and text.startswith("Training") else "") + "."
        for text, names in sorted(found.items())
    ]


def _data(table: Table) -> list[str]:
    """Where the images of the cells come from: one line for each source."""
    lines: dict[str, list[str]] = {}
    for cell in table.every:
        if cell.series is not None:
            one = cell.series.sample.data
            kind = "the canonical files" if one.canonical else f"source {one.source}, not canonical"
            counts = f"{one.train_images:,} training and {one.test_images:,} test images"
            lines.setdefault(f"Data: {words.one_line(one.title)}; {kind}; {counts}", []).append(cell.row.name)
    return [line + (f" ({', '.join(names)})." if len(lines) > 1 else ".") for line, names in lines.items()]


def _machines(table: Table) -> list[str]:
    """Every machine that ran something here. Accuracy may come from any; seconds are per machine."""
    found = {record.machine for cell in table.every for record in cell.finished}
    found |= {record.machine for record in table.stopwatch}
    return [f"Machine {one}: {words.machine_title(table.shelf.machine(one), '')}." for one in sorted(found)]


def _stopwatch(table: Table) -> list[str]:
    """What the seconds on random images are, whatever the table's protocol."""
    if not any(isinstance(record, RowTiming) for record in table.stopwatch):
        return []
    images = f"{DATASETS[table.dataset].train_images:,}"
    return [
        f"Seconds per epoch on random images: wall time for {images} images of the data set's shape, without "
        "evaluation and one-off costs; the stages weighted by the paper's epochs. ~: extrapolated. The floor is what "
        "the ceilings measured on the device allow."
    ]


def _warnings(table: Table) -> list[str]:
    """What was amiss while the clock ran, from the certificates: one line for each warning and machine."""
    found: dict[str, list[str]] = {}
    for record in table.stopwatch:
        name = record.name if isinstance(record, RowTiming) else ratios.title(record)
        for warning in record.certificate.warnings:
            names = found.setdefault(f"Timing on machine {record.machine}: {words.one_line(warning)}", [])
            names += [] if name in names else [name]
    return [f"{text} ({', '.join(names)})." for text, names in found.items()]


def _empty_rows(table: Table) -> list[str]:
    """How much of the paper's table is still to come."""
    waiting = sum(cell.series is None for cell in table.cells)
    filled = len(table.cells) - waiting
    return [f"Of the paper's {len(table.cells)} rows {filled} have runs, {waiting} are not run."]


def _tags(table: Table) -> set[str]:
    """Tags of the deviations that bear on the cells that have runs."""
    specs = [cell.row.spec for cell in table.every if cell.series is not None]
    if not specs:
        return {"R-23"} if table.stopwatch else set()
    tags = {"R-15", "R-17", "R-18", "R-22"}
    if any(spec.size_learning is not None for spec in specs):
        # R-14 is left out: the original kernels of every table are 3 x 3.
        tags |= {f"R-{number:02d}" for number in (*range(1, 14), 16)}
    for spec in specs:
        tags |= OF_FAMILY.get(spec.model.family, set())
        tags |= {"R-33"} if "widths" in spec.model.args else set()
        if spec.size_learning is not None and spec.size_learning.source != "data":
            tags.add("R-34")
        if spec.model.family == "wide_resnet" and spec.size_learning is None and spec.data.name == "imagenet32":
            tags.add("R-38")
    tags |= {"R-19"} if table.protocol.name not in ("paper", "paper-sgd") else set()
    tags |= {"R-21"} if table.experiment == "table4" else set()
    return tags | ({"R-23"} if table.timed else set())
