"""`reproduce report`: all committed records as one page, in HTML and in markdown, with links to every record.

Nothing in it depends on when or where it is rendered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from reproduce.report.onepage import checks, claims, context, figures, ladder, overview, tables
from reproduce.report.onepage.html import html
from reproduce.report.onepage.markdown import markdown
from reproduce.report.onepage.parts import Report
from reproduce.report.onepage.sources import Sources
from reproduce.report.pages import Page

NAME = "report"
TITLE = "Does it reproduce? EffConv (AAAI 2023), remeasured"
SECTIONS = (
    overview.section,
    claims.section,
    tables.section,
    figures.section,
    ladder.section,
    checks.known_section,
    checks.label_section,
    checks.readings_section,
    context.deviations_section,
    context.environment_section,
    context.missing_section,
)


WRITERS: dict[str, Callable[[Report, Path, str], str]] = {".html": html, ".md": markdown}


def pages(sources: Sources) -> list[Page]:
    """The report's two files, for the rendered folder; none without records."""
    if sources.empty:
        return []
    report = report_of(sources)
    about = (f"[{NAME}]({NAME}.html)", "all", "all records", "", "")
    return [
        Page(
            name=f"{NAME}{suffix}",
            about=about if suffix == ".html" else (),
            whole=partial(_written, write, report),
        )
        for suffix, write in WRITERS.items()
    ]


def _written(write: Callable[[Report, Path, str], str], report: Report, folder: Path) -> str:
    return write(report, folder, "..")


def report_of(sources: Sources) -> Report:
    return Report(
        title=TITLE,
        lead=(
            "What the committed records say of the paper by Ganjdanesh, Gao and Huang, whose code was never published. "
            "Every number leads to its record.",
        ),
        sections=tuple(make(sources) for make in SECTIONS),
    )
