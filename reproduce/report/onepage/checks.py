"""What the suite asks beyond the paper: known answers, the label test, the readings that matter."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from reproduce.experiments import effconv_name
from reproduce.known_answers import KnownAnswer
from reproduce.label_test import ARMS
from reproduce.report import known, readings, words
from reproduce.report.onepage.parts import (
    Block,
    Commands,
    Fold,
    Grid,
    Imported,
    Link,
    Picture,
    Section,
    grid,
    joined,
    text,
)
from reproduce.report.onepage.sources import Sources, rendered
from reproduce.report.pages import Page
from reproduce.size_records import SizeRecord

R = TypeVar("R")
K = TypeVar("K", bound=Hashable)
PICTURE = re.compile(r"^!\[.*\]\(.*\)\n+", re.MULTILINE)


def known_section(sources: Sources) -> Section:
    """Do methods that learn kernel sizes find the size that their data need?"""
    page = sources.page(f"{known.NAME}.md")
    blocks = _page(page, sources) if page else _not_run("reproduce known-answer")
    if sources.known:
        title = f"All {len(sources.known):,} cases, those of the readings among them, each with its record"
        blocks.append(Fold((title,), (_known_records(sources),)))
    if page:
        blocks.append(Commands(("reproduce known-answer",)))
    return Section(name="known-answers", title="Known answers", short="Known answers", blocks=tuple(blocks))


def label_section(sources: Sources) -> Section:
    """Do labels have a say in the learned sizes?"""
    pages = [page for page in sources.pages if re.fullmatch(r"labels\..+\.md", page.name)]
    blocks = [block for page in pages for block in _page(page, sources)] or _not_run("reproduce controls")
    if sources.sizes:
        blocks.append(Fold((f"All {len(sources.sizes):,} records of size learning",), (_size_records(sources),)))
        blocks.append(Commands(tuple(_controls(sources.sizes))))
    return Section(name="labels", title="Do labels have a say in the sizes?", short="Label test", blocks=tuple(blocks))


def readings_section(sources: Sources) -> Section:
    """Which readings of the paper matter?"""
    page = sources.page(f"{readings.NAME}.md")
    if page is None:
        blocks = _not_run("reproduce readings")
    else:
        blocks = [
            *_page(page, sources),
            text("Its records are among the ", Link("known answers", "#known-answers"), "."),
        ]
        blocks.append(Commands(tuple(f"reproduce readings --stage {stage}" for stage in ("screen", "mnist", "fresh"))))
    return Section(name="readings", title="Which readings matter?", short="Readings", blocks=tuple(blocks))


def _page(page: Page, sources: Sources) -> list[Block]:
    """A page of the rendered folder: its picture, and its text."""
    stem = page.name.removesuffix(".md")
    data = sources.page(f"{stem}.json")
    pictures = [name for name in data.pictures if name.endswith(".svg")] if data else []
    title = page.text.partition("\n")[0].removeprefix("# ")
    blocks: list[Block] = [Picture(name, title) for name in pictures]
    blocks.append(Imported(PICTURE.sub("", page.text)))
    return [*blocks, text("Also as ", rendered(page.name), ".")]


def _not_run(command: str) -> list[Block]:
    return [text("Not run, so nothing is claimed."), Commands((command,))]


def _known_records(sources: Sources) -> Grid:
    """One line for each method, task, number of layers and budget; a link for each scale, start and seed."""
    rows = []
    for (method, task, layers, budget), several in _grouped(sources.known, _setting):
        name = "none" if budget is None else f"{budget:,}"
        records = joined((sources.known_answer(one, _short(one)),) for one in several)
        rows.append([(method,), (f"{task}, {layers} layers, budget {name}",), records])
    return grid(["method", "task", "records: scale, start, seed"], rows)


def _short(one: KnownAnswer) -> str:
    case = one.case
    start = f"sizes {' '.join(map(str, case.fixed))}" if case.fixed else f"from {case.start}"
    return f"d{case.scale} {start} s{case.seed}"


def _setting(one: KnownAnswer) -> tuple[str, str, int, int | None]:
    return one.case.method, one.case.task, one.case.layers, one.case.budget


def _size_records(sources: Sources) -> Grid:
    rows = []
    for (dataset, steps, arm), several in _grouped(sources.sizes, _arm):
        records = joined((sources.size(one, str(one.case.seed)),) for one in several)
        rows.append([(dataset,), (f"{steps:,}",), (arm,), records])
    return grid(["data set", "steps", "labels", "records by seed"], rows)


def _arm(one: SizeRecord) -> tuple[str, int, str]:
    planted = f" {one.case.planted:g}" if one.case.planted else ""
    return one.case.spec.data.name, one.case.spec.steps, one.case.arm + planted


def _controls(records: Iterable[SizeRecord]) -> Iterator[str]:
    """One command for each data set, row, number of steps and engine."""
    for (dataset, row, steps, engine), several in _grouped(records, _asked):
        seeds = words.number_list(sorted({one.case.seed for one in several})).replace(" ", "")
        arms = {one.case.arm for one in several} - {"planted"}
        options = ["--dataset", dataset, "--row", row, "--steps", str(steps), "--seeds", seeds]
        options += ["--labels", ",".join(arm for arm in ARMS if arm in arms)]
        options += [] if engine == "plain" else ["--engine", engine]
        for planted in sorted({one.case.planted for one in several} - {0.0}):
            options += ["--planted", f"{planted:g}"]
        yield shlex.join(["reproduce", "controls", *options]) + " --data-root DIR"


def _asked(one: SizeRecord) -> tuple[str, str, int, str]:
    spec = one.case.spec
    row = effconv_name(int(str(spec.model.args["depth"])), spec.size_learning.budget)
    return spec.data.name, row, spec.steps, spec.engine


def _grouped(records: Iterable[R], key: Callable[[R], K]) -> list[tuple[K, list[R]]]:
    """Records of one key together, in order of their first ones."""
    found: dict[K, list[R]] = defaultdict(list)
    for one in records:
        found[key(one)].append(one)
    return list(found.items())
