"""Figures 2 and 3: the picture, its points beside the paper's, and the runs behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reproduce import paper
from reproduce.report import words
from reproduce.report.cells import Cell, cells_of, layer_sizes, rows_of
from reproduce.report.columns import paper_accuracy
from reproduce.report.onepage import commands
from reproduce.report.onepage.parts import (
    Block,
    Bullets,
    Commands,
    Fold,
    Grid,
    Heading,
    Line,
    Picture,
    Section,
    Strong,
    grid,
    text,
)
from reproduce.report.onepage.sources import Sources, rendered
from reproduce.report.pages import Page
from reproduce.report.words import NOTHING
from reproduce.specs import Protocol

FIGURES = ("figure2", "figure3")


def section(sources: Sources) -> Section:
    blocks = [block for name in FIGURES for block in _experiment(name, sources)]
    return Section(name="figures", title="Figures 2 and 3", short="Figures", blocks=tuple(blocks))


def _experiment(name: str, sources: Sources) -> Iterator[Block]:
    """What the paper says of its figure, then ours under each protocol."""
    about = paper.tables()[name]
    yield Heading(about.title)
    if about.statements:
        yield Bullets(tuple((Strong("The paper: "), statement) for statement in about.statements))
    drawn = [page for page in sources.pages if page.figure and page.figure["experiment"] == name]
    for page in drawn:
        yield from _figure(name, page, page.figure or {}, sources)
    if not drawn:
        yield text("Not run.")
        yield Commands((commands.command(name, Protocol(base="paper")),))


def _figure(name: str, page: Page, data: dict[str, Any], sources: Sources) -> Iterator[Block]:
    """One picture; nothing that it shows stands in it alone."""
    protocol = Protocol.parse(data["protocol"])
    picture = next(one for one in page.pictures if one.endswith(".svg"))
    cells = cells_of(rows_of(name, protocol, sources.shelf), sources.shelf, one_source=True)
    yield text(Strong("Ours: "), f"{data['subtitle']}. The data behind the picture: ", rendered(page.name), ".")
    yield Picture(picture, f"{data['title']}. {data['subtitle']}")
    yield Fold(
        ("The numbers behind the picture, and their records",), (_points(cells, data, sources), _sizes(cells, sources))
    )
    yield Commands(commands.of_cells(name, protocol, cells))


def _points(cells: list[Cell], data: dict[str, Any], sources: Sources) -> Grid:
    """Accuracy and seconds of each point; the paper's where it prints them."""
    seconds = {point["row"]: point["seconds"] for panel in "ab" for point in data.get(panel, ())}
    accuracy = {point["row"]: point["accuracy"] for panel in "ab" for point in data.get(panel, ())}
    rows: list[list[Line]] = []
    for cell in cells:
        ours, runs = accuracy.get(cell.row.name), sources.runs(cell.finished)
        printed = NOTHING if cell.row.paper is None else words.printed_seconds(cell.row.paper)
        rows.append([
            (cell.row.name,),
            (NOTHING if data["smoke_test"] else paper_accuracy(cell, "top1"),),
            (_mean(ours), *((", ", *runs) if runs else ())),
            (printed,),
            (_seconds(seconds.get(cell.row.name)),),
        ])  # fmt: skip
    machine = data.get("machine")
    where = f"s/epoch (ours; {machine['title']})" if machine else "s/epoch (ours)"
    return grid(["point", "accuracy (paper)", "accuracy (ours)", "s/epoch (paper; another machine)", where], rows)


def _mean(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run"
    spread = "" if found["std"] is None else f" ± {found['std']:.2f}"
    return f"{found['mean']:.2f}{spread} (n = {found['n']})"


def _seconds(found: dict[str, Any] | None) -> str:
    """Weighted by epochs / mean of the stages, by the stopwatch or of the runs."""
    if found is None:
        return NOTHING
    both = [found.get("weighted") or found.get("all_epochs"), found["mean_of_stages"]]
    numbers = [one["mean"] if isinstance(one, dict) else one for one in both]
    about = "~" if found.get("how") == "steps" else ""
    return about + " / ".join(words.seconds(number) for number in numbers if number is not None)


def _sizes(cells: list[Cell], sources: Sources) -> Grid:
    """The learned sizes of every run, in forward order."""
    rows: list[list[Line]] = [
        [
            (cell.row.name,),
            (sources.run(record, str(record.seed)),),
            (" ".join(map(str, layer_sizes(record).values())),),
        ]
        for cell in cells
        for record in cell.finished
        if record.sizes
    ]
    return grid(["point", "seed", "learned sizes in forward order"], rows, "Learned sizes")
