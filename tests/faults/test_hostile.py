"""Free text of records in every rendered page stays text. Readers of hostile bytes are tested beside the readers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from reproduce.records import RunRecord
from reproduce.report import rendered
from reproduce.store import Store, write_atomically
from tests.faults.recorder import HOSTILE, Recorder
from tests.reproduce.factory import JPEG, make_record, spec_of, store_with
from tests.reproduce.test_onepage import Page

TEXTS = (
    "<script>alert(1)</script>",
    "<img src=http://example.org/x.png onerror=alert(2)>",
    "![x](http://example.org/x.png) [y](javascript:alert(3)) <http://example.org>",
    "a | b\n\n# c\n\n<iframe src=//example.org></iframe>",
    "</style></title><svg/onload=alert(4)>",
)
ELSEWHERE = re.compile(r"(?!data:)[a-z]+:|//")
FIELDS = ("reason", "title", "cpu", "commit")
ANCHOR = re.compile(r'</?a(?: id="[a-z-]+")?>')  # the report's own


def hostile(field: str, text: str) -> Iterator[RunRecord]:
    """Three seeds of a row, one of them without a result."""
    spec = spec_of("EffConv-20 0.66M", protocol="quick", source=JPEG)
    reason = text if field == "reason" else "out of memory"
    for record in (make_record(spec), make_record(spec, 1), make_record(spec, 2, status="failed", reason=reason)):
        changes: dict[str, dict[str, Any]] = {
            "title": {"data": record.data.model_copy(update={"title": f"CIFAR-10 {text}"})},
            "commit": {"code": {"commit": text, "dirty": True}},
        }
        yield record.model_copy(update=changes.get(field, {})).signed()


def live(markdown: str) -> list[str]:
    """What a page holds that only a record can have brought: HTML, links and pictures of other places, a heading."""
    found = []
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    for token in (part for one in tokens for part in (one, *(one.children or []))):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        tag = token.type in ("html_inline", "html_block") and ANCHOR.sub("", token.content).strip()
        if tag or ELSEWHERE.match(target) or (token.type == "inline" and token.content == "c"):
            found.append(tag or target or "# c")
    return found


@pytest.mark.parametrize("field", FIELDS)
def test_text_of_records_stays_text_on_every_page(tmp_path: Path, recorder: Recorder, field: str) -> None:
    lost = []
    for number, text in enumerate(TEXTS):
        results = tmp_path / str(number)
        store_with(results, *hostile(field, text))
        if field == "cpu":
            write_atomically(results / "machines" / "0123456789ab.json", {"cpu": text, "torch": text, "python": text})
        pages = [path for path in rendered.write_all(Store(results), results / "rendered") if path.suffix == ".md"]
        assert len(pages) >= 3
        lost += [(page.name, found) for page in pages for found in live(page.read_text(encoding="utf-8"))]
        report = Page((results / "rendered" / "report.html").read_text(encoding="utf-8"))
        lost += [("report.html", one) for one in report.loads + report.links if ELSEWHERE.match(one)]
        lost += [("report.html", tag) for tag in report.tags if tag in ("script", "iframe")]
    recorder.tried(HOSTILE, "HTML, links and pictures in a record's text, on every rendered page", len(TEXTS), lost)
