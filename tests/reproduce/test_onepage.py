"""The report: what stands on it, that it needs nothing else, and that no record can put anything of its own into it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reproduce import claims
from reproduce.cli import main
from reproduce.records import RunRecord
from reproduce.report import rendered
from reproduce.report.inference import welch
from reproduce.report.judged import Indication, Judgement
from reproduce.report.onepage import commands, overview
from reproduce.report.onepage import sources as reading
from reproduce.report.onepage.html import Pictures, from_markdown
from reproduce.report.shelf import Way
from reproduce.specs import Protocol
from reproduce.store import Store
from tests.reproduce.factory import JPEG, make_record, spec_of, store_with

HOSTILE = "<script>alert(1)</script><img src=http://example.org/x.png>\n# a | b ](javascript:alert(2))"


class Page(HTMLParser):
    """What a browser would see: tags, links, sources, anchors, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = {name: value or "" for name, value in attrs}
        assert not any(name.startswith("on") for name in found), found
        self.links += [found["href"]] if "href" in found else []
        self.loads += [found["src"]] if "src" in found else []
        self.anchors |= {found["id"]} if "id" in found else set()

    def handle_data(self, data: str) -> None:
        self.words += data


def a_judgement() -> Judgement:
    found = welch([92.3, 92.5], [91.9, 92.2])
    return Judgement(
        claim=claims.load()[0],
        verdict="undecided",
        why=f"by `paper` runs {HOSTILE}",
        effect=found,
        smallest=0.1,
        adjusted_p=0.2,
        arithmetic="",
        published="",
        settle="3 more seeds",
        indications=(Indication(data=HOSTILE, protocol="quick", seeds="0", text="ahead", effect=None, records=()),),
        records=(),
        reproduced="",
    )


@pytest.fixture(autouse=True)
def one_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page in these tests holds one claim; judging has tests of its own."""
    monkeypatch.setattr(reading, "judged", lambda results: [a_judgement()])


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    def make(*records: RunRecord) -> tuple[str, str]:
        """The report on these records, as HTML and as markdown."""
        store = store_with(tmp_path, *records)
        rendered.write_all(store, tmp_path / "rendered")
        return tuple((tmp_path / "rendered" / f"report.{kind}").read_text() for kind in ("html", "md"))  # type: ignore[return-value]

    return make


def quick(row: str = "EffConv-20 0.66M", **changes: Any) -> RunRecord:
    return make_record(spec_of(row, protocol="quick", source=JPEG), **changes)


def test_each_link_leads_somewhere_and_nothing_is_loaded(
    tmp_path: Path, page: Callable[..., tuple[str, str]]
) -> None:
    found = Page(page(quick(), quick(seed=1), quick("CIFARResNet-44", status="diverged", reason="NaN"))[0])
    assert found.loads and all(one.startswith("data:image/svg+xml;base64,") for one in found.loads)
    assert not {"script", "link", "iframe", "object", "form"} & set(found.tags)
    for link in found.links:
        if link.startswith("#"):
            assert link[1:] in found.anchors
        else:
            assert (tmp_path / "rendered" / link).exists(), link
    runs = [link for link in found.links if link.startswith("../runs/") and link.endswith(".json")]
    assert len(set(runs)) == 3


def test_the_committed_report_leads_to_committed_records() -> None:
    folder = Path(__file__).parents[2] / "results" / "rendered"
    links = Page((folder / "report.html").read_text()).links
    assert len(links) > 100
    assert [link for link in links if not link.startswith("#") and not (folder / link).exists()] == []


def test_both_files_show_the_paper_s_number_and_ours(page: Callable[..., tuple[str, str]]) -> None:
    for text in page(quick(top1=81.25), quick(seed=1, top1=82.75)):
        words = " ".join(text.split()).replace("\u00a0", " ")
        assert "92.35 ± 0.05" in words and "82.00 ± 1.06 (n = 2)" in words
        assert "--protocol quick --rows 'EffConv-20 0.66M' --seeds 0,1 --data-root DIR" in words.replace("&#39;", "'")


def test_text_of_records_stays_text(page: Callable[..., tuple[str, str]]) -> None:
    bad = quick(seed=1, status="failed", reason=HOSTILE)
    good = quick("CIFARResNet-44")
    good = good.model_copy(update={"data": good.data.model_copy(update={"title": HOSTILE}), "machine": "<b>m</b>"})
    html, markdown = page(bad.signed(), good.signed())
    found = Page(html)
    assert "<script>alert(1)</script>" in found.words and "script" not in found.tags
    assert all(one.startswith("data:") for one in found.loads)
    assert not any("javascript:" in link or "example.org" in link for link in found.links)
    assert not re.search(r"<(script|img|b)\b", markdown)
    assert not re.search(r"(?<!\\)\]\(javascript:", markdown)
    assert not any(line.startswith("# a") for line in markdown.splitlines())


def test_markdown_of_other_pages_brings_no_html_link_or_image() -> None:
    links = "[x](http://example.org) ![y](http://example.org/y.png) <http://example.org>"
    found = Page(str(from_markdown(f"# title\n\n## part\n\n{HOSTILE} {links}\n\n| a |\n|---|\n| <i>b</i> |\n")))
    assert set(found.tags) <= {"h3", "h4", "p", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert not found.links and not found.loads
    assert "title" not in found.words and "<i>b</i>" in found.words


def test_only_full_runs_on_canonical_files_count_as_run(tmp_path: Path) -> None:
    counted = make_record(spec_of("EffConv-20 0.66M"))
    not_counted = [
        quick("FlexNet-16"),
        make_record(spec_of("CIFARResNet-44", source=JPEG)),
        make_record(spec_of("control: ResNet-20")),
    ]
    found = rendered.sources(store_with(tmp_path, counted, *not_counted))
    assert overview.share(found) == (1, 33)
    assert overview.in_full(found, "table2") == {"EffConv-20 0.66M"}


def test_compute_includes_runs_without_a_result(tmp_path: Path) -> None:
    fixed, learned = spec_of("CIFARResNet-44"), spec_of("EffConv-20 0.66M")
    found = rendered.sources(store_with(
        tmp_path,
        make_record(fixed, epoch_seconds=[1800.0, 1800.0]),
        make_record(learned, status="failed", reason="out of memory", epoch_seconds=[3600.0], size_seconds=[7200.0]),
        make_record(learned, 1, device="cuda", epoch_seconds=[1800.0], size_seconds=[]),
    ))  # fmt: skip
    every = overview.spent(found)
    assert overview.compute_line(every) == "4.0 h of one CPU thread, 0.5 h of a GPU"
    assert [one.seconds for one in every if not one.result] == [10800.0]


def test_the_same_records_give_the_same_bytes_and_no_date(page: Callable[..., tuple[str, str]]) -> None:
    first = page(quick("FlexNet-16", finished="2031-05-06T07:08:09Z"))
    assert first == page()
    assert not any("2031" in text or "07:08" in text for text in first)


def test_a_new_record_makes_the_report_stale(tmp_path: Path, page: Callable[..., tuple[str, str]]) -> None:
    page(quick("CIFARResNet-44"))
    store, folder = Store(tmp_path), tmp_path / "rendered"
    assert rendered.stale(store, folder) == []
    store_with(tmp_path, quick("FlexNet-16"))
    lines = "\n".join(rendered.stale(Store(tmp_path), folder))
    assert "report.html: differs" in lines and "report.md: differs" in lines


def test_no_records_no_report(tmp_path: Path) -> None:
    assert rendered.write_all(Store(tmp_path), tmp_path / "rendered") == []
    outcome = CliRunner().invoke(main, ["report", "--results", str(tmp_path)])
    assert outcome.exit_code == 1 and "no records" in outcome.output and "Traceback" not in outcome.output


def test_output_elsewhere_links_back(tmp_path: Path) -> None:
    results = tmp_path / "results"
    store_with(results, quick())
    outcome = CliRunner().invoke(
        main, ["report", "--results", str(results), "--output", str(tmp_path / "a" / "b.html")]
    )
    assert outcome.exit_code == 0, outcome.output
    links = Page((tmp_path / "a" / "b.html").read_text()).links
    runs = [link for link in links if "/runs/" in link]
    assert runs and all((tmp_path / "a" / link).exists() for link in runs)
    assert not (results / "rendered").exists()


def test_output_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["report", "--output", str(tmp_path / "x.pdf")]).exit_code == 2


def test_pictures_stand_in_the_page_while_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    embedded = Pictures(tmp_path, room=10)
    assert embedded("a.svg").startswith("data:image/svg+xml;base64,") and embedded("a.svg") == ""
    assert embedded("none.svg") == ""


@pytest.mark.parametrize("name", ["paper", "quick-sgd-8e-2se-10000", "paper-3e", "quick-1000"])
def test_a_command_says_the_protocol(name: str) -> None:
    way = Way(threads=1, engine="graph", precision="bf16")
    line = commands.command("table2", Protocol.parse(name), names=["CIFARResNet-44 w/ FlexConv"], seeds="0..2", way=way)
    given = shlex.split(line)
    options = dict(zip(given[2::2], given[3::2], strict=True))
    parsed = Protocol(
        base=options["--protocol"],  # type: ignore[arg-type]
        recipe=options.get("--recipe", "flexconv"),  # type: ignore[arg-type]
        epochs=int(options["--epochs"]) if "--epochs" in options else None,
        size_epochs=int(options["--size-epochs"]) if "--size-epochs" in options else None,
        train_images=int(options["--train-images"]) if "--train-images" in options else None,
    )
    assert parsed.name == name
    assert options["--rows"] == "CIFARResNet-44 w/ FlexConv" and options["--engine"] == "graph"


def test_the_report_needs_no_torch(tmp_path: Path) -> None:
    store_with(tmp_path, quick("FlexNet-16"))
    code = (
        "import sys; from click.testing import CliRunner; from reproduce.cli import main\n"
        f"outcome = CliRunner().invoke(main, ['report', '--results', {str(tmp_path)!r}])\n"
        "assert outcome.exit_code == 0, outcome.output\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "claims" in Page((tmp_path / "rendered" / "report.html").read_text()).words
