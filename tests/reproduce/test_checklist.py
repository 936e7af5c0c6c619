"""checklist: each line follows from records and repository; what is altered makes its line fail and is named."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reproduce import findings, looking, recipes
from reproduce.findings import Finding
from reproduce.records import DataFile, RunRecord
from reproduce.report import checks, judged
from reproduce.report.checks import artifacts, compliance, runs, scope
from reproduce.report.checks.evidence import Evidence
from reproduce.specs import sha256_of
from reproduce.store import Store
from tests.reproduce.factory import JPEG, make_record, spec_of, store_with

ROOT = Path(__file__).parents[2]
ROW = "EffConv-20 0.66M"
FILE = DataFile(path="data_batch_1", sha256="ab" * 32, bytes=3, canonical=True)


def good(seed: int = 0, **changes: Any) -> RunRecord:
    """A run that nothing is wrong with: canonical files with checksums, the last epoch, which images were right."""
    record = make_record(spec_of(ROW, **changes), seed)
    data = record.data.model_copy(update={"files": [FILE]})
    return record.model_copy(update={"data": data, "correct_bits": "8A=="}).signed()


def lines(part: Callable[[Evidence], Any], folder: Path, *records: RunRecord, root: Path = ROOT) -> list[Finding]:
    store_with(folder, *records)
    return list(part(Evidence(folder, root)))


def state(found: list[Finding], words: str) -> str:
    """Of the one line that has these words."""
    (one,) = [line for line in found if words in line.text]
    return one.state


def test_good_records_pass(tmp_path: Path) -> None:
    records = [good(seed) for seed in range(3)]
    for part in (runs.data, runs.settings, runs.statistics):
        found = lines(part, tmp_path, *records)
        assert [one.text for one in found if one.state == "fail" and "fixed networks" not in one.text] == []


@pytest.mark.parametrize(
    ("part", "changes", "words", "says"),
    [
        (runs.data, {"data": {"canonical": False, "title": "JPEGs"}}, "on canonical files", "1 on JPEGs"),
        (runs.data, {"data": {"files": []}}, "with checksums", "-s0"),
        (runs.data, {"metrics": {"last": {"epoch": 349}}}, "the last epoch's", "-s0"),
        (runs.settings, {"params": {"eq3": 700_000}}, "tolerance of their budget", "-s0"),
        (runs.statistics, {"correct_bits": None}, "which test images", "0 of 1"),
        (artifacts.code, {"code": {"dirty": True}}, "by committed code", "-s0"),
        (artifacts.code, {"code": {"commit": "f" * 40}}, "commits that made runs", "f" * 40),
        (runs.compute, {"machine": "ffff"}, "machines of the runs", "ffff"),
    ],
)
def test_what_is_amiss_fails_and_is_named(
    tmp_path: Path, part: Callable[[Evidence], Any], changes: dict[str, Any], words: str, says: str
) -> None:
    content = good().model_dump(mode="json")
    record = RunRecord.model_validate(merged(content, changes)).signed()
    found = [one for one in lines(part, tmp_path, record) if words in one.text]
    assert [one.state for one in found] == ["fail"] and says in found[0].text and found[0].mend


def merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    deep = {key: merged(content[key], value) if isinstance(value, dict) else value for key, value in changes.items()}
    return {**content, **deep}


def test_seeds_are_counted_by_cell(tmp_path: Path) -> None:
    found = lines(runs.statistics, tmp_path, *(good(seed) for seed in range(2)))
    assert state(found, "the paper's 3 seeds") == "fail"
    found = lines(runs.statistics, tmp_path, good(2))
    assert state(found, "3 of 3 filled cells have the paper's 3 seeds") == "pass"  # Table 2, Figures 2 and 3
    failed = make_record(spec_of("CIFARResNet-44"), 0, status="failed", reason="memory")
    assert state(lines(runs.statistics, tmp_path, failed), "3 finished, 0 diverged, 1 failed") == "fail"


def test_the_same_seed_twice_in_a_cell_is_found() -> None:
    record = good()
    other = record.model_copy(update={"run_id": "another"})
    other_way = good(precision="tf32", protocol="paper")
    assert compliance.same_seed_twice([record, other_way]) == []
    assert compliance.same_seed_twice([record, other, other_way]) == [record.run_id, "another"]


def test_all_spent_seconds_count_those_of_failed_runs_too() -> None:
    failed = make_record(spec_of(ROW), 1, status="failed", reason="memory")
    assert compliance.seconds_spent([make_record(spec_of(ROW)), failed]) == 2 * (20 + 20 + 40)


def test_stated_settings_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, compared = compliance.stated_settings()
    assert wrong == [] and compared > 50
    full = recipes.size_learning

    def other(*args: Any) -> Any:
        return full(*args).model_copy(update={"lam": 3.0})

    monkeypatch.setattr(recipes, "size_learning", other)
    wrong, _ = compliance.stated_settings()
    assert f"table2 {ROW}: lambda" in wrong and all(one.endswith("lambda") for one in wrong)


def test_scope_counts_rows_and_full_runs(tmp_path: Path) -> None:
    found = list(lines(scope.scope, tmp_path, good(), make_record(spec_of("CIFARResNet-44", protocol="quick"))))
    # EffConv-20 0.66M stands in Table 2 and Figures 2 and 3.
    assert state(found, "4 of 46 have a finished run under any protocol") == "fail"
    assert state(found, "3 of 46 have a run of the full schedule on canonical files") == "fail"
    assert state(found, "46 of the paper's 46 rows") == "pass"
    jpeg = make_record(spec_of("EffConv-32 0.66M", source=JPEG))
    assert state(lines(scope.scope, tmp_path, jpeg), "3 of 46 have a run of the full schedule") == "fail"


def test_deviations_are_looked_up_in_the_sources(tmp_path: Path) -> None:
    found = lines(scope.deviations, tmp_path)
    assert [one.state for one in found] == ["pass", "pass", "pass", "person"]
    source = tmp_path / "root/effconv/mask.py"
    source.parent.mkdir(parents=True)
    source.write_text("# R-99: nobody described this\n")
    found = lines(scope.deviations, tmp_path, root=tmp_path / "root")
    assert [one.state for one in found] == ["fail", "fail", "pass", "person"] and "R-99" in found[1].text


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one committed record."""
    results = tmp_path / "results"
    store_with(results, good())
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def commit(root: Path, *options: str) -> None:
    git(root, "add", "results")
    git(root, "commit", "--quiet", "-m", "records", *options)


def rewritten(path: Path) -> None:
    """Another result, with the digest that belongs to it."""
    content = json.loads(path.read_text())
    content["metrics"]["last"]["top1"] = 99.0
    del content["digest"]
    path.write_text(json.dumps(content | {"digest": sha256_of(content)}))


def test_a_record_that_was_changed_after_its_commit_is_named(checkout: Path) -> None:
    evidence = Evidence(checkout / "results", checkout)
    assert [one.state for one in artifacts.history(evidence)] == ["pass", "pass"]
    path = Store(evidence.results).path(good().spec, 0)
    rewritten(path)
    for place in ("on the disk", "in a later commit"):
        found = list(artifacts.history(evidence))
        assert found[0].state == "fail" and path.stem in found[0].text, place
        commit(checkout, "--allow-empty")


def test_a_record_that_was_only_laid_out_anew_is_the_same(checkout: Path) -> None:
    evidence = Evidence(checkout / "results", checkout)
    path = Store(evidence.results).path(good().spec, 0)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert next(artifacts.history(evidence)).state == "pass"
    path.unlink()
    assert next(artifacts.history(evidence)).state == "fail"


def test_records_that_are_not_committed_are_named(checkout: Path) -> None:
    store_with(checkout / "results", good(1))
    found = list(artifacts.history(Evidence(checkout / "results", checkout)))
    assert [one.state for one in found] == ["pass", "fail"] and good(1).run_id in found[1].text


def test_without_a_history_a_person_must_look(tmp_path: Path) -> None:
    found = lines(artifacts.history, tmp_path / "results", good(), root=tmp_path)
    assert [one.state for one in found] == ["person"]


def test_a_digest_that_does_not_match_is_named(tmp_path: Path) -> None:
    record = good()
    path = store_with(tmp_path, record).path(record.spec, 0)
    path.write_text(path.read_text().replace('"top1": 90.0', '"top1": 99.0'))
    found = lines(artifacts.artifacts, tmp_path)
    assert found[0].state == "fail" and record.run_id in found[0].text


def test_the_whole_list_in_80_columns_and_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "claims", lambda evidence: iter(()))
    store_with(tmp_path, good())
    found = checks.checklist(tmp_path, ROOT)
    topics = list(dict.fromkeys(one.topic for one in found))
    assert topics == ["scope", "deviations", "data", "settings", "statistics", "compute", "artifacts"]
    assert all(any(one.topic == topic and one.state == "person" for one in found) for topic in topics)
    page = findings.page(found, looking.CHECKS)
    assert all(len(line) <= 80 for line in page) and page[-1].endswith("needs a person")
    said: list[str] = []
    looking.told(found, looking.CHECKS, True, said.append)
    assert {one["state"] for one in json.loads(said[0])} == {"pass", "fail", "person"}


@pytest.mark.parametrize(
    ("verdicts", "expected"), [(("supported", "not testable"), "pass"), (("supported", "not run"), "fail")]
)
def test_claims_are_counted_by_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr(judged, "judged", lambda results: [SimpleNamespace(verdict=verdict) for verdict in verdicts])
    (found,) = lines(scope.claims, tmp_path, good())
    assert found.state == expected and found.text.startswith("1 of 2 sentences of the paper are decided: 1 supported")
