"""What stands below a table: further measures, learned sizes, seconds by stage, and the notes on how and from what."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from reproduce import paper
from reproduce.report import words
from reproduce.report.cells import Cell, best, last, layer_sizes, own_sizes, seconds
from reproduce.report.table import Table
from reproduce.report.words import NOTHING

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
MEASURES = (("top5", "top-5"), ("precision", "macro precision"), ("recall", "macro recall"), ("f1", "macro F1"))


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; nothing is taken for a number, so every digit stays."""
    safe = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return str(tabulate(safe, list(headers), tablefmt="github", disable_numparse=True))


def other_measures(table: Table) -> str:
    """Top-5 and macro averages after the last epoch, and the best epoch, marked as what it is."""
    headers = ["model", "seeds", *(title for _, title in MEASURES), "best epoch's top-1 (selected on the test set)"]
    rows = [
        [
            cell.row.name,
            words.number_list([record.seed for record in cell.finished]),
            *(words.measured(last(cell, measure), count=False) for measure, _ in MEASURES),
            _best(cell),
        ]
        for cell in table.every
        if cell.finished
    ]
    return grid(headers, rows) if rows else ""


def learned_sizes(table: Table) -> str:
    """Sizes of each seed, and how far snapping to the budget moved them."""
    headers = ["model", "seed", "sizes in forward order", "Eq. 3 against the budget before snapping", "after",
               "layers that snapping moved", "layers that differ from snapping the initial sizes"]  # fmt: skip
    rows = []
    for cell in table.every:
        for record in cell.finished:
            if record.sizes:
                sizes = list(layer_sizes(record).values())
                rows.append([cell.row.name, str(record.seed), " ".join(map(str, sizes)), *_snapping(cell, record.seed)])
    return grid(headers, rows) if rows else ""


def own_kernel_sizes(table: Table) -> str:
    """Kernel sizes of the baselines whose layers set them: height x width of each seed at the end of training."""
    rows = [
        [cell.row.name, str(record.seed), " ".join(words.kernel(*size) for size in own_sizes(record).values())]
        for cell in table.every
        for record in cell.finished
        if record.kernel_sizes
    ]
    return grid(["model", "seed", "sizes in forward order, at the end of training"], rows) if rows else ""


def seconds_by_stage(table: Table) -> str:
    """Seconds per epoch of each stage and both averages that the paper's sentence allows, by machine."""
    headers = ["model", "machine", "runs", "size learning", "training", "all epochs", "mean of the stages"]
    rows = []
    for cell in table.every if table.timed else ():
        for one in seconds(cell):
            summaries = (one.size_learning, one.training, one.all_epochs, one.of_stages)
            numbers = [words.measured(summary, count=False) for summary in summaries]
            rows.append([cell.row.name, _machine(one.machine, one.device), str(one.training.n), *numbers])
    return grid(headers, rows) if rows else ""


def notes(table: Table) -> list[str]:
    """Protocol, data, machines and readings, one line each."""
    lines = [
        "Ours: test accuracy in % after the last epoch, mean ± sample standard deviation (n seeds); the interval is "
        "the 95 % Student-t interval of the mean. One seed has neither.",
        f"Protocol {table.protocol.name}: {words.schedule(table.dataset, table.protocol)}.",
        *_settings(table),
        *_data(table),
        *_machines(table),
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


def _best(cell: Cell) -> str:
    chosen = best(cell)
    values = ", ".join(f"{one.top1:.2f} (epoch {one.epoch})" for one in chosen)
    return values or NOTHING


def _snapping(cell: Cell, seed: int) -> list[str]:
    snapped = next(record.snapped for record in cell.finished if record.seed == seed)
    if snapped is None:
        return [NOTHING] * 4
    moved = [abs(step) for step in snapped.moved if step]
    far = f" (by up to {max(moved)})" if moved else ""
    return [
        words.per_cent(snapped.error_before),
        words.per_cent(snapped.error_after),
        f"{len(moved)} of {len(snapped.moved)}{far}",
        f"{snapped.differs_from_initial} of {len(snapped.moved)}",
    ]


def _machine(machine: str, device: str) -> str:
    return machine + (f" ({device})" if device else "")


def _settings(table: Table) -> list[str]:
    """The settings of each stage; rows that differ are named."""
    found: dict[str, list[str]] = {}
    for cell in table.every:
        spec = cell.row.spec
        found.setdefault(f"Training: {words.recipe(spec.training)}", []).append(cell.row.name)
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
            lines.setdefault(f"Data: {one.title}; {kind}; {counts}", []).append(cell.row.name)
    return [line + (f" ({', '.join(names)})." if len(lines) > 1 else ".") for line, names in lines.items()]


def _machines(table: Table) -> list[str]:
    """Every machine that ran something here. Accuracy may come from any; seconds are per machine."""
    found = sorted({record.machine for cell in table.every for record in cell.finished})
    return [f"Machine {one}: {words.machine_title(table.shelf.machine(one), '')}." for one in found]


def _empty_rows(table: Table) -> list[str]:
    """How much of the paper's table is still to come."""
    waiting = sum(cell.series is None for cell in table.cells)
    filled = len(table.cells) - waiting
    return [f"Of the paper's {len(table.cells)} rows {filled} have runs, {waiting} are not run."]


def _tags(table: Table) -> set[str]:
    """Tags of the deviations that bear on the cells that have runs."""
    specs = [cell.row.spec for cell in table.every if cell.series is not None]
    if not specs:
        return set()
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
