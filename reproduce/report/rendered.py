"""results/rendered/: every table and figure for which there are records, an index, and what of it is stale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reproduce.experiments import EXPERIMENTS
from reproduce.report import claims_text, figures, known, labels, onepage, readings, words
from reproduce.report.onepage.sources import Sources
from reproduce.report.pages import Page
from reproduce.report.sections import grid
from reproduce.report.shelf import Shelf
from reproduce.report.table import Table, gather
from reproduce.report.tables import markdown
from reproduce.specs import Protocol
from reproduce.store import Store, place

INDEX = "README.md"
# Other names in the folder are left alone.
OURS = re.compile(
    r"((table|figure)\d\..+|known-answer|labels\..+|readings|claims)\.(md|png|svg|json)|report\.(md|html)"
)
WITHOUT_RUNS = "paper"  # the protocol of a table that has timings alone
FURTHER = (known, labels, readings, claims_text)  # each with `pages(results)`: of records beside the runs
MEND = "regenerate with `reproduce table2 --no-run`"


def write_all(store: Store, rendered: Path) -> list[Path]:
    """Bring the whole folder up to date and return its paths. Pictures of unchanged data are not drawn again.

    Files of ours that no record supports any more are removed.
    """
    pages = _pages(store)
    for name in _left_over(pages, rendered):
        (rendered / name).unlink(missing_ok=True)  # another command may be at it
    return [path for page in _with_index(pages) for path in _write(page, rendered)]


def write(experiment: str, protocol: Protocol, store: Store, rendered: Path) -> list[Path]:
    """Write one table or figure and return its paths: none where no record belongs in it. The index stays as it is."""
    page = _page(experiment, protocol, Shelf.of(store))
    return [] if page is None else _write(page, rendered)


def stale(store: Store, rendered: Path) -> list[str]:
    """What differs from the records, one line each: missing, different, or left over. Empty: all is up to date.

    Pictures are judged by the data beside them, since their bytes differ between versions of the libraries.
    """
    pages = _pages(store)
    lines = [*known.problems(store.results), *labels.problems(store.results)]
    for page in _with_index(pages):
        if not (rendered / page.name).exists():
            lines.append(f"{page.name}: missing; {MEND}")
        elif not _holds(rendered / page.name, page.content(rendered)):
            lines.append(f"{page.name}: differs from the records; {MEND}")
        lines += [f"{name}: missing; {MEND}" for name in page.pictures if not (rendered / name).exists()]
    return lines + [f"{name}: left over, no record supports it; {MEND}" for name in _left_over(pages, rendered)]


def protocols(shelf: Shelf) -> list[Protocol]:
    """The protocols of the records, each once, by name. Names that this checkout does not know are passed over.

    Timings need no runs: they have a table of their own under `paper`.
    """
    found = {}
    names = {record.spec.protocol for record in shelf.records} | ({WITHOUT_RUNS} if shelf.is_timed else set())
    for name in sorted(names):
        try:
            found[name] = Protocol.parse(name)
        except ValueError:
            continue
    return list(found.values())


def _pages(store: Store) -> list[Page]:
    """Every page; last the report, which shows what the others hold and embeds their pictures."""
    found = sources(store)
    return [*found.pages, *onepage.pages(found)]


def sources(store: Store) -> Sources:
    """What the report is made from: the records, and every other page."""
    shelf = Shelf.of(store)
    return Sources(
        store, shelf, [*_of_experiments(shelf), *(page for further in FURTHER for page in further.pages(store.results))]
    )


def _of_experiments(shelf: Shelf) -> Iterator[Page]:
    for experiment in EXPERIMENTS:
        for protocol in protocols(shelf):
            page = _page(experiment, protocol, shelf)
            if page is not None:
                yield page


def _page(experiment: str, protocol: Protocol, shelf: Shelf) -> Page | None:
    """One table or figure, or None if no record belongs in it."""
    if experiment.startswith("figure"):
        data = figures.figure_data(experiment, protocol, shelf)
        if data is None:
            return None
        name = f"{experiment}.{protocol.name}.json"
        picture = f"[{experiment}.{protocol.name}]({experiment}.{protocol.name}.svg)"
        about = (picture, protocol.name, data["data"]["title"], "", words.number_list(data["seeds"]))
        return Page(name=name, text=figures.as_text(data), about=about, figure=data, draw=figures.pictures)
    table = gather(experiment, protocol, shelf)
    timed = protocol.name == WITHOUT_RUNS and table.stopwatch
    if not timed and all(cell.series is None for cell in table.every):
        return None
    name = f"{experiment}.{protocol.name}.md"
    return Page(name=name, text=markdown(table), about=_about(name, table), table=table)


def _about(name: str, table: Table) -> tuple[str, ...]:
    """A table's line in the index."""
    series = [cell.series for cell in table.every if cell.series is not None]
    titles = sorted({one.sample.data.title for one in series})
    seeds = sorted({seed for one in series for seed in one.seeds})
    filled = f"{sum(bool(cell.finished) for cell in table.cells)} of {len(table.cells)}"
    link = f"[{name.removesuffix('.md')}]({name})"
    return link, table.protocol.name, "; ".join(titles) or "none: timings alone", filled, words.number_list(seeds)


def _with_index(pages: list[Page]) -> list[Page]:
    """The pages and the README.md that lists them; nothing at all while there are none."""
    text = grid(
        ["table or figure", "protocol", "data", "paper's rows with results", "seeds"],
        [page.about for page in pages if page.about],
    )
    lead = (
        "# Tables and figures\n\nRegenerated from the records in `../runs`; do not edit. Beside each figure stands a "
        "JSON file with the data behind it.\n\n"
    )
    return [*pages, Page(name=INDEX, text=lead + text + "\n")] if pages else []


def _write(page: Page, rendered: Path) -> list[Path]:
    """Write a page's files, and draw its pictures unless those of the same data stand there."""
    rendered.mkdir(parents=True, exist_ok=True)
    path, pictures = rendered / page.name, [rendered / name for name in page.pictures]
    content = page.content(rendered)
    drawn = _holds(path, content) and all(one.exists() for one in pictures)
    if page.figure is not None and page.draw is not None and not drawn:
        path.unlink(missing_ok=True)  # last to come back: pictures without it are drawn again
        for kind, picture in page.draw(page.figure).items():
            path.with_suffix(f".{kind}").write_bytes(picture)
    if not _holds(path, content):
        place(path, content)
    return [*pictures, path]


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _left_over(pages: list[Page], rendered: Path) -> list[str]:
    """Tables and figures in the folder that no record supports."""
    expected = {name for page in pages for name in (page.name, *page.pictures)}
    names = sorted(path.name for path in rendered.glob("*")) if rendered.is_dir() else []
    return [name for name in names if OURS.fullmatch(name) and name not in expected]
