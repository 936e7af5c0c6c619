"""What the report reads: the records with the files that they stand in, and the pages that are rendered beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from reproduce.known_answers import KnownAnswer, KnownStore
from reproduce.records import RunRecord
from reproduce.report.judged import Judgement, judged
from reproduce.report.onepage.parts import Line, Link, joined
from reproduce.report.pages import Page
from reproduce.report.shelf import DIGITS, Shelf
from reproduce.report.table import Table
from reproduce.size_records import SizeRecord, SizeStore
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import Timing


class Sources:
    """One results folder: its records, what is amiss there, and links to the files."""

    def __init__(self, store: Store, shelf: Shelf, pages: Sequence[Page]) -> None:
        self.results = store.results
        self.shelf = shelf
        self.pages = tuple(pages)  # all that is rendered beside the report
        self.tables: tuple[Table, ...] = tuple(page.table for page in pages if page.table is not None)
        timings, known, sizes = TimingStore(self.results), KnownStore(self.results), SizeStore(self.results)
        self.timings: list[Timing] = [*timings.rows(), *timings.pairs()]
        self.known: list[KnownAnswer] = known.records()
        self.sizes: list[SizeRecord] = sizes.records()
        self.problems = list(dict.fromkeys([*store.problems, *timings.problems, *known.problems, *sizes.problems]))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report: no record, or smoke tests alone."""
        measured = any(record.spec.data.source != DIGITS for record in self.shelf.records)
        return not (measured or self.timings or self.known or self.sizes)

    @cached_property
    def judgements(self) -> Sequence[Judgement]:
        """Those of the claims' page; where there is none, as of known answers alone, they are made here."""
        return next((page.judgements for page in self.pages if page.judgements), None) or judged(self.results)

    def page(self, name: str) -> Page | None:
        """What is rendered under this name."""
        return next((page for page in self.pages if page.name == name), None)

    def run(self, record: RunRecord, text: str) -> Link:
        return self._link(text, "runs", record.run_id)

    def runs(self, records: Iterable[RunRecord]) -> Line:
        """`seeds 0, 1`, each number a link to its record; nothing for no records."""
        links = [self.run(record, str(record.seed)) for record in records]
        return ("seeds " if len(links) > 1 else "seed ", *joined((link,) for link in links)) if links else ()

    def timing(self, record: Timing, text: str) -> Link:
        return self._link(text, f"timings/{record.machine}", record.timing_id)

    def known_answer(self, record: KnownAnswer, text: str) -> Link:
        return self._link(text, "known_answer", record.case_id)

    def size(self, record: SizeRecord, text: str) -> Link:
        return self._link(text, f"sizes/{record.case.spec.data.name}", record.case.case_id)

    def _link(self, text: str, folder: str, name: str) -> Link:
        """To the record whose file's name ends with `name`; to the folder if there is none, as of an older schema."""
        if folder not in self._paths:
            paths = sorted((self.results / folder).rglob("*.json"))
            ends = {end: path for path in paths for end in _ends(path)}
            self._paths[folder] = {end: path.relative_to(self.results).as_posix() for end, path in ends.items()}
        return Link(text, quote(self._paths[folder].get(name, folder)))

    @cached_property
    def _paths(self) -> dict[str, dict[str, str]]:
        """By folder, the path of each record by the possible ends of its name."""
        return {}


def _ends(path: Path) -> list[str]:
    """`pair-ii-4983caa19f58bd1d` -> that, `ii-4983caa19f58bd1d`, `4983caa19f58bd1d`."""
    parts = path.stem.split("-")
    return ["-".join(parts[first:]) for first in range(len(parts))]


def rendered(name: str, text: str = "") -> Link:
    """A link to what stands beside the report in its usual place."""
    return Link(text or name, quote(f"rendered/{name}"))


def machine(name: str) -> Link:
    """A link to a machine's description."""
    return Link(name, quote(f"machines/{name}.json"))


def record(path: str, text: str = "") -> Link:
    """A link to a record whose path below the results folder is known."""
    return Link(text or Path(path).stem, quote(path))
