"""show and diff: what they find, what they say of it, and that nothing in a record can disturb a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reproduce import looking, lookup
from reproduce.cli import main
from reproduce.errors import UsageError, UserError
from reproduce.lookup import find
from reproduce.records import RunRecord
from reproduce.report import diffs, shown, shown_cell
from reproduce.report.effects import effect_of, machine_differences
from reproduce.report.origins import command_lines, command_of, rows_of_record
from reproduce.report.parting import bits, parting
from reproduce.run.evaluation import unpack
from reproduce.specs import sha256_of
from reproduce.store import Store, write_atomically
from tests.reproduce.factory import JPEG, make_record, put, spec_of, store_with

ROW = "EffConv-20 0.66M"
COURSE: dict[str, list[dict[str, Any]]] = {
    "size_learning": [
        {"epoch": 1, "step": 1 + step, "v": [3.5, 3.25 + step], "s": [4, 3], "loss": 2.5, "budget_error": -0.5}
        for step in range(3)
    ],
    "training": [
        {"epoch": epoch, "lr": 0.01, "train_loss": 2.0 / epoch, "train_top1": 30.0 * epoch} for epoch in (1, 2)
    ],
}


def with_course(record: RunRecord, **changes: Any) -> RunRecord:
    """A signed copy with a course and some right images (of 8, in one byte)."""
    data = record.data.model_copy(update={"test_images": 8})
    values = {"history": COURSE, "correct_bits": "8A==", "data": data} | changes  # 1111 0000
    return record.model_copy(update=values).signed()


def changed(record: RunRecord, stage: str, point: int, **fields: Any) -> RunRecord:
    """A signed copy with other values at one point of its course."""
    history = json.loads(json.dumps(record.history))
    history[stage][point] |= fields
    return record.model_copy(update={"history": history}).signed()


@pytest.fixture
def record() -> RunRecord:
    return with_course(make_record(spec_of(ROW, protocol="quick", source=JPEG)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def fits(text: str) -> bool:
    return all(len(line) <= 80 and line.isprintable() for line in text.splitlines())


def test_a_record_is_found_by_id_beginning_and_path(tmp_path: Path, record: RunRecord) -> None:
    store = store_with(tmp_path, record)
    path = store.path(record.spec, record.seed)
    for text in (record.run_id, record.run_id[:6], str(path)):
        found = find(text, tmp_path)
        assert found.run == record and found.machine["cpu"] == "Example CPU"
    assert find("0123", tmp_path).content["cores"] == 2 and find("0123", tmp_path).record is None
    assert find(str(path), Path("elsewhere")).results == tmp_path


def test_what_cannot_be_found_is_told_in_one_line(tmp_path: Path, record: RunRecord) -> None:
    store = store_with(tmp_path, record, make_record(record.spec, 1))
    with pytest.raises(UserError, match="is named 'nothing'"):
        find("nothing", tmp_path)
    with pytest.raises(UsageError, match=r"names 2 records .* more letters"):
        find(record.run_id[:8], tmp_path)
    with pytest.raises(UserError, match="no file"):
        find("nowhere/x.json", tmp_path)
    path = store.path(record.spec, 0)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(UserError, match="does not match its digest"):
        find(record.run_id, tmp_path)
    assert [line.split(":")[0] for line in lookup.unreadable(tmp_path)] == [path.relative_to(tmp_path).as_posix()]


def test_show_of_a_run(tmp_path: Path, record: RunRecord) -> None:
    store_with(tmp_path, record)
    text = shown.text(find(record.run_id, tmp_path))
    first, rest = text.split("\n", 1)  # the path is not wrapped
    assert first.endswith(f"{record.run_id}.json") and fits(rest)
    assert "Table 2: EffConv-20 0.66M" in text and "not canonical" in text and "seed 0" in text
    assert "top-1 90.00 %" in text and "selected on the test set; never the result" in text
    assert "92.35 ± 0.05 %; full schedule and canonical files, so no like" in text
    assert "course of training (2 of 2 points recorded)" in text and "2.0000" in text
    entry = shown.as_json(find(record.run_id, tmp_path))
    assert entry["record"]["digest"] == record.digest and entry["machine"]["cores"] == 2
    assert entry["command"].startswith("reproduce table2 --protocol quick")


def test_the_command_of_a_record_is_one_command(record: RunRecord) -> None:
    row = rows_of_record(record)[0]
    assert command_of(record, row) == f"reproduce table2 --protocol quick --rows '{ROW}' --seeds 0 --data-root DIR"
    lines = command_lines(record, row, width=40)
    assert len(lines) > 1 and " ".join(line.rstrip("\\").strip() for line in lines) == command_of(record, row)


def test_a_hostile_record_stays_on_its_lines(tmp_path: Path, record: RunRecord) -> None:
    bad = "\x1b[2J<script>\nfine"
    data = record.data.model_copy(update={"title": bad})
    code = {"commit": bad, "dirty": [bad]}
    hostile = changed(with_course(record, data=data, code=code), "training", 0, train_loss=bad)
    store = store_with(tmp_path, hostile)
    text = shown.text(find(record.run_id, tmp_path)).split("\n", 1)[1]
    assert fits(text) and "?[2J<script> fine" in text
    assert fits(shown_cell.text(shown_cell.cell("table2", ROW, store), tmp_path))
    assert fits(diffs.text(diffs.compared(*[find(record.run_id, tmp_path)] * 2)))
    with pytest.raises(UserError, match="no course"):
        looking.picture([changed(hostile, "size_learning", 0, epoch=bad)], "x", "x")


def test_show_of_a_cell(tmp_path: Path) -> None:
    spec = spec_of(ROW, protocol="quick", source=JPEG)
    values = (88.0, 90.0, 92.0)
    runs = [make_record(spec, seed, top1) for seed, top1 in enumerate(values)]
    failed = make_record(spec_of(ROW, protocol="quick"), 0, status="failed", reason="memory")
    store = store_with(tmp_path, *runs, failed)
    entry = shown_cell.cell("table2", ROW, store)
    filling = [one for one in entry["series"] if one["fills_the_cell"]]
    assert [one["source"] for one in filling] == [JPEG]
    assert filling[0]["top1"]["mean"] == 90.0 and filling[0]["top1"]["std"] == 2.0
    assert [run["run_id"] for run in filling[0]["runs"]] == [run.run_id for run in runs]
    text = shown_cell.text(entry, tmp_path)
    assert fits(text) and "90.00 ± 2.00 % (n = 3" in text and "others fill this protocol's cell" in text
    assert [run.run_id for run in shown_cell.runs(entry, store)] == [run.run_id for run in runs]
    with pytest.raises(UsageError, match="no row 'EffConv-21'"):
        shown_cell.cell("table2", "EffConv-21", store)


def test_show_plots_a_run_and_a_cell(here: Path, record: RunRecord) -> None:
    store_with(here / "results", record, with_course(make_record(record.spec, 1)))
    result = reproduce("show", "--experiment", "table2", ROW, "--plot")
    assert result.exit_code == 0 and Path(result.stdout.splitlines()[-1]).read_bytes().startswith(b"\x89PNG")
    found = json.loads(reproduce("show", record.run_id, "--plot", "--json").stdout)
    assert found["plot"] == f"build/plots/{record.run_id}.png" and Path(found["plot"]).exists()
    assert "no course" in reproduce("show", "0123456789ab", "--plot").stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", ROW), "is a row of table1, table2"),
        (("show", "table2", "nothing"), "has no row 'nothing'"),
        (("show", "table7", ROW), "no experiment is named 'table7'"),
        (("show", "a", "b", "c"), "show takes a record"),
        (("show", "zzzz"), "no record or machine"),
        (("diff", "zzzz", "zzzz"), "no record or machine"),
        (("diff", "0123456789ab", "RUN"), "a machine and a record"),
    ],
)
def test_bad_names_cost_one_line(here: Path, record: RunRecord, words: tuple[str, ...], says: str) -> None:
    store_with(here / "results", record)
    result = reproduce(*(record.run_id if word == "RUN" else word for word in words))
    assert result.exit_code in (1, 2) and result.stdout == ""
    assert result.stderr.startswith("error: ") and says in result.stderr and result.stderr.count("\n") == 1


def test_effects_of_fields() -> None:
    expected = {
        "spec.training.lr": "results", "seed": "results", "spec.data.source": "results", "spec.threads": "bits",
        "machine.torch": "bits", "clock.device": "bits", "machine.new": "bits", "machine.cores": "times",
        "clock.started": "times", "clock.resumed": "none", "code.commit": "none", "data.title": "none",
        "metrics": "outcome", "sizes": "outcome", "a.step_seconds": "outcome", "a.kernel_size": "results",
    }  # fmt: skip
    assert {field: effect_of(field)[0] for field in expected} == expected


def test_diff_names_the_field_and_its_effect(tmp_path: Path, record: RunRecord) -> None:
    other = with_course(make_record(record.spec, 1, 88.0), correct_bits="wA==")  # 1100 0000
    store_with(tmp_path, record, other)
    entry = diffs.compared(find(record.run_id, tmp_path), find(other.run_id, tmp_path))
    seeds = [one for one in entry["differences"] if one["field"] == "seed"]
    assert seeds == [{"field": "seed", "a": "0", "b": "1", "effect": "results", "why": effect_of("seed")[1]}]
    assert entry["result"]["top1"] == [90.0, 88.0]
    assert entry["result"]["images"] == {"only_a_right": 2, "only_b_right": 0, "of": 8, "p": 0.5}  # 2 / 2^2
    assert "parts_at" not in entry["result"]  # other seeds part at once, which says nothing
    assert "(seed)" in entry["conclusion"] and fits(diffs.text(entry))


def test_diff_of_a_record_with_itself(tmp_path: Path, record: RunRecord) -> None:
    store_with(tmp_path, record)
    entry = diffs.compared(*[find(record.run_id, tmp_path)] * 2)
    assert entry["differences"] == [] and entry["result"]["equal_to_the_bit"]
    assert entry["conclusion"] == "What came out is equal to the bit."


def test_diff_of_an_older_record_fills_in_defaults(tmp_path: Path, record: RunRecord) -> None:
    store = store_with(tmp_path, record)
    content = record.model_dump(mode="json")
    del content["spec"]["size_learning"]["source"], content["digest"]
    old_id = sha256_of({"spec": content["spec"], "protocol_version": content["protocol_version"]})
    content |= {"spec_id": old_id, "run_id": f"{old_id[:16]}-s0"}
    path = store.runs / "old" / f"{old_id[:16]}-s0.json"
    write_atomically(path, content | {"digest": sha256_of(content)})
    entry = diffs.compared(find(record.run_id, tmp_path), find(str(path), tmp_path))
    assert entry["differences"] == []


def test_diff_of_machines(tmp_path: Path) -> None:
    one = {"cpu": "A", "cores": 2, "torch": "2.9.0"}
    found = {each.field: each.effect for each in machine_differences(one, one | {"cpu": "B", "cores": 4})}
    assert found == {"machine.cpu": "bits", "machine.cores": "times"}
    for name, cpu in (("aaaa11112222", "A"), ("bbbb11112222", "B")):
        write_atomically(tmp_path / "machines" / f"{name}.json", one | {"cpu": cpu})
    text = diffs.text(diffs.compared(find("aaaa", tmp_path), find("bbbb", tmp_path)))
    assert "may differ between these machines in the last bits" in " ".join(text.split()) and fits(text)


@pytest.mark.parametrize(
    ("stage", "point", "fields", "place"),
    [
        ("size_learning", 1, {"v": [3.5, 9.0]}, "size learning, epoch 1, step 2: v[1]"),
        ("size_learning", 2, {"loss": 2.75, "s": [4, 4]}, "size learning, epoch 1, step 3: s[1]"),
        ("training", 1, {"train_loss": 0.5}, "training, epoch 2: train_loss"),
        ("training", 0, {"test_loss": 0.5}, "training, epoch 1: test_loss"),
    ],
)
def test_where_two_courses_part(record: RunRecord, stage: str, point: int, fields: dict[str, Any], place: str) -> None:
    found = parting(record, changed(record, stage, point, **fields))
    assert found is not None and found.place == place


def test_parting_is_in_the_order_of_computation(record: RunRecord) -> None:
    assert record.metrics is not None
    last = record.metrics.last.model_copy(update={"top1": 1.0})
    other = record.model_copy(update={"metrics": record.metrics.model_copy(update={"last": last})})
    found = parting(record, other)
    assert found is not None and (found.place, found.a, found.b) == ("result: metrics.last.top1", "90.0", "1.0")
    assert str(parting(record, changed(other, "training", 0, lr=1.0))).startswith("training, epoch 1: lr: 0.01 | 1.0")
    assert parting(record, record.model_copy(update={"machine": "another", "seed": 9})) is None
    short = record.model_copy(update={"history": {**COURSE, "training": COURSE["training"][:1]}})
    assert str(parting(record, short)) == "training: points recorded: 2 | 1"


def test_bits_are_those_of_the_evaluation(record: RunRecord) -> None:
    packed = with_course(record, correct_bits="pQ==", data=record.data.model_copy(update={"test_images": 5}))
    assert bits(packed).tolist() == unpack("pQ==", 5).tolist() == [True, False, True, False, False]


def test_reading_never_imports_torch(tmp_path: Path, record: RunRecord) -> None:
    put(Store(tmp_path), record)
    code = f"""
import sys
from reproduce.cli import main
for words in (["show", "{record.run_id}"], ["show", "table2", "{ROW}"], ["diff", "{record.run_id}", "{record.run_id}"]):
    main([*words, "--results", "{tmp_path}"], standalone_mode=False)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
