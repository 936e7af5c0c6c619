"""Records on disk: written once and atomically, checked on reading, and never lost to a bad neighbour."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from reproduce import store as store_module
from reproduce.errors import UserError
from reproduce.specs import PROTOCOL_VERSION, sha256_of
from reproduce.store import Store, slug, write_atomically
from tests.reproduce.hall_samples import record_of, spec_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def altered(path: Path, **changes: Any) -> None:
    """Change a record on disk and give it the digest that belongs to the change."""
    raw = json.loads(path.read_text())
    raw.update(changes)
    raw["digest"] = sha256_of({key: value for key, value in raw.items() if key != "digest"})
    path.write_text(json.dumps(raw))


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    record = record_of(spec_of())
    path = store.write(record)
    found = store.find(record.spec, 0)
    assert found is not None
    assert found == record.model_copy(update={"digest": found.digest})
    assert found.digest == found.computed_digest() == record.computed_digest()
    assert store.records() == [found]
    assert store.problems == []
    text = path.read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_the_path_is_a_function_of_spec_and_seed(store: Store) -> None:
    spec = spec_of("EffConv-20 0.66M", protocol="quick")
    path = store.write(record_of(spec, 2))
    assert path == store.path(spec, 2)
    relative = path.relative_to(store.results).as_posix()
    assert relative == f"runs/cifar10/effconv-20-0.66M/quick/{spec.run_id(2)}.json"
    assert store.weights_path(spec, 2) == path.with_suffix(".pt")
    assert store.resume_dir(spec, 2) == store.results / ".resume" / spec.run_id(2)
    several = spec_of("CKCNN-16")  # whose arguments are not in alphabetical order, as in a file
    written = store.write(record_of(several))
    assert [store.path(one.spec, 0) for one in store.records() if one.spec == several] == [written]


def test_slugs() -> None:
    assert slug(spec_of("CIFARResNet-44")) == "cifar_resnet-44"
    assert slug(spec_of("Wide-EffConv-28-1 0.66M")) == "wide_effconv-28-1-0.66M"
    assert slug(spec_of("WRN-28-1", experiment="table4")) == "wide_resnet-28-1"


def test_only_the_asked_spec_and_seed_are_found(store: Store) -> None:
    store.write(record_of(spec_of(), 0))
    assert store.find(spec_of(), 1) is None
    assert store.find(spec_of("EffConv-20 0.50M"), 0) is None
    assert store.find(spec_of(source="canonical"), 0) is None


def test_a_record_elsewhere_below_runs_is_found(store: Store) -> None:
    path = store.write(record_of(spec_of()))
    moved = store.runs / "from-another-machine" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    assert store.find(spec_of(), 0) is not None


def test_a_record_from_before_a_field_existed_is_found_by_its_parsed_spec(store: Store) -> None:
    record = record_of(spec_of())
    path = store.write(record)
    raw = json.loads(path.read_text())
    del raw["spec"]["engine"]  # as an older checkout would have written it
    spec_id = sha256_of({"spec": raw["spec"], "protocol_version": PROTOCOL_VERSION})
    run_id = f"{spec_id[:16]}-s0"
    older = path.with_name(f"{run_id}.json")
    path.rename(older)
    altered(older, spec=raw["spec"], spec_id=spec_id, run_id=run_id)
    found = store.find(record.spec, 0)
    assert found is not None, store.problems
    assert found.run_id == run_id
    assert store.problems == []


def test_an_old_protocol_version_stays_visible_but_answers_nothing(store: Store) -> None:
    spec = spec_of()
    spec_id = sha256_of({"spec": spec.model_dump(mode="json"), "protocol_version": 0})
    path = store.write(record_of(spec))
    run_id = f"{spec_id[:16]}-s0"
    altered(path, protocol_version=0, spec_id=spec_id, run_id=run_id)
    path.rename(path.with_name(f"{run_id}.json"))
    assert [record.protocol_version for record in store.records()] == [0]
    assert store.find(spec, 0) is None


def test_the_same_result_again_changes_nothing(store: Store) -> None:
    record = record_of(spec_of())
    path = store.write(record)
    before = path.read_bytes()
    other_machine = record.model_copy(update={"machine": "ba9876543210", "lineage": {"note": "again"}})
    assert store.write(other_machine) == path
    assert path.read_bytes() == before


def test_a_different_result_is_refused_and_the_first_stays(store: Store) -> None:
    path = store.write(record_of(spec_of(), top1=50.0))
    before = path.read_bytes()
    with pytest.raises(UserError, match="different result"):
        store.write(record_of(spec_of(), top1=51.0))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("status", "replaced"), [("failed", True), ("diverged", False)])
def test_only_a_failed_record_gives_way(store: Store, status: str, replaced: bool) -> None:
    store.write(record_of(spec_of(), status=status))
    if not replaced:
        with pytest.raises(UserError):
            store.write(record_of(spec_of()))
        return
    store.write(record_of(spec_of()))
    found = store.find(spec_of(), 0)
    assert found is not None
    assert found.outcome.status == "finished"


BAD: dict[str, tuple[bytes, str]] = {
    "text": (b"nonsense", "cannot be read as JSON"),
    "of another layout": (b'{"spec": {"mod', "cannot be read as JSON"),
    "binary": (b"\xff\xfe\x00\x01", "cannot be read as JSON"),
    "a list": (b"[1, 2]", "no run record"),
    "foreign": (b'{"name": "something else"}', "no run record"),
    "newer": (b'{"schema_version": 99, "spec": {}, "metrics": {}}', "newer version; update this checkout"),
    "not a number": (b'{"schema_version": 1, "spec": {}, "metrics": {"x": NaN}}', "delete it and run again"),
    "no digest": (b'{"schema_version": 1, "spec": {}, "metrics": {}}', "digest"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_costs_one_line_and_nothing_else(store: Store, kind: str) -> None:
    content, fault = BAD[kind]
    good = store.write(record_of(spec_of(), 0))
    bad = store.path(spec_of(), 1)
    bad.write_bytes(content)
    assert [record.seed for record in store.records()] == [0]
    (problem,) = store.problems
    assert problem.startswith(f"{bad.relative_to(store.results).as_posix()}: ")
    assert fault in problem
    assert "\n" not in problem
    assert str(store.results) not in problem
    assert store.find(spec_of(), 1) is None
    assert store.blocked(spec_of(), 1) == problem
    assert store.blocked(spec_of(), 0) is None
    with pytest.raises(UserError):
        store.write(record_of(spec_of(), 1))
    assert bad.read_bytes() == content
    assert good.exists()


CUT = [b"", b"{", bytes(99), b'{\n "clock": {\n  "devi', '{\n "a": "\u00fc'.encode()[:-1]]


@pytest.mark.parametrize("content", CUT)
def test_what_a_loss_of_power_left_makes_way_for_the_run_again(store: Store, content: bytes) -> None:
    """tests/faults/test_power_loss.py cuts a record at many places."""
    path = store.path(spec_of(), 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert store.find(spec_of(), 0) is None and store.blocked(spec_of(), 0) is None
    assert store.records() == [] and "cannot be read as JSON" in store.problems[0]
    store.write(record_of(spec_of(), 0))
    assert store.find(spec_of(), 0) is not None and not store.problems
    assert path.with_name(path.name + ".damaged").read_bytes() == content


def test_a_changed_number_is_noticed(store: Store) -> None:
    path = store.write(record_of(spec_of(), top1=50.0))
    path.write_text(path.read_text().replace('"top1": 50.0', '"top1": 99.0', 1))
    assert store.records() == []
    assert "digest" in store.problems[0]


def test_a_record_under_another_name_is_noticed(store: Store) -> None:
    path = store.write(record_of(spec_of()))
    path.rename(path.with_name("0000000000000000-s0.json"))
    assert store.records() == []
    assert "do not belong" in store.problems[0]


def test_an_invalid_value_names_its_place(store: Store) -> None:
    altered(store.write(record_of(spec_of())), seed="none")
    assert store.records() == []
    assert "at seed" in store.problems[0]


def test_a_mended_file_is_read_again(store: Store) -> None:
    path = store.write(record_of(spec_of()))
    content = path.read_bytes()
    path.write_bytes(b"broken")
    assert store.records() == []
    path.write_bytes(content)
    assert len(store.records()) == 1
    assert store.problems == []
    path.unlink()
    assert store.records() == []


def test_unknown_keys_of_a_newer_minor_version_survive(store: Store) -> None:
    altered(store.write(record_of(spec_of())), remark="kept")
    (record,) = store.records()
    assert record.model_dump()["remark"] == "kept"


def test_a_failed_write_leaves_no_trace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.write(record_of(spec_of()))
    assert [path for path in store.results.rglob("*") if path.is_file()] == []


def test_leftovers_of_a_killed_writer_are_no_records(store: Store) -> None:
    path = store.write(record_of(spec_of()))
    path.with_name(f".{path.name}.{os.getpid()}.tmp").write_text('{"half": ')
    assert len(store.records()) == 1
    assert store.problems == []


def test_a_record_that_could_not_be_read_back_is_not_written(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write(record_of(spec_of(), top1=float("nan")))
    assert store.records() == []


def test_machines_are_stored_once(store: Store) -> None:
    first = store.write_machine({"cpu": "one", "cores": 2})
    assert store.write_machine({"cores": 2, "cpu": "one"}) == first
    assert store.write_machine({"cpu": "another", "cores": 2}) != first
    assert store.machine(first) == {"cpu": "one", "cores": 2}
    assert store.machine("unknown") == {}
    assert len(list((store.results / "machines").iterdir())) == 2


def test_a_list_of_numbers_stands_on_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    points = [{"s": [3, 3]}, {"s": [[1, 2], [3]]}]
    document = {"v": [1.5, 2, None], "empty": [], "points": points, "words": ["a,\n [b]", "{", "\n  ]"]}
    path = tmp_path / "one.json"
    write_atomically(path, document)
    text = path.read_text()
    assert json.loads(text) == document
    assert '"v": [1.5, 2, null]' in text and "[1, 2]" in text


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.records() == []
    assert store.find(spec_of(), 0) is None
    assert store.problems == []
    assert not store.results.exists()
