"""What stands below a table: further measures, learned sizes, seconds by stage and their ratios."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from reproduce.report import ratios, times, words
from reproduce.report.cells import Cell, best, last, layer_sizes, own_sizes, seconds
from reproduce.report.table import Table
from reproduce.report.words import NOTHING

MEASURES = (("top5", "top-5"), ("precision", "macro precision"), ("recall", "macro recall"), ("f1", "macro F1"))


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; nothing is taken for a number, so every digit stays. A row is one line."""
    safe = [[" ".join(cell.splitlines()).replace("|", r"\|") for cell in row] for row in rows]
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


def timed_stages(table: Table) -> str:
    """Each stage's seconds by the stopwatch, at each place."""
    lines = times.by_stage(table.every, table.shelf) if table.timed else []
    return grid(times.HEADERS, lines) if lines else ""


def time_ratios(table: Table) -> str:
    """The ratios of the table's claim, one block for each machine: headlines, then every pair."""
    found = ratios.by_bench(table.experiment, table.shelf) if table.timed else {}
    blocks = [ratios.LEGEND] if found else []
    for bench, pairs in found.items():
        blocks.append(f"### {bench.title(table.shelf)} (machine {bench.machine}, {bench.device})")
        claims = [ratios.headline_line(one) for one in ratios.headlines(pairs)]
        blocks += [grid(ratios.HEADLINE_HEADERS, claims)] if claims else []
        blocks.append(grid(ratios.PAIR_HEADERS, [ratios.pair_line(pair) for pair in pairs]))
    return "\n\n".join(blocks)


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
