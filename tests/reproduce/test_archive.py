"""`export` and `import`: what travels, what is refused, and that a run goes on elsewhere as if it had stayed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reproduce import archive, study_plans
from reproduce.archive import export, merge
from reproduce.cli import main
from reproduce.errors import Interrupted, UserError
from reproduce.known_answers import KnownStore
from reproduce.run.runner import run
from reproduce.size_records import SizeStore
from reproduce.store import Store
from reproduce.study_plans import Asked, StudyPlan
from reproduce.timing_store import TimingStore
from reproduce.timings import Certificate, RowTiming, row_timing_id
from reproduce.traces import hold
from tests.reproduce.hall_samples import record_of, spec_of
from tests.reproduce.run_samples import StopAt, content, context, learning, spec
from tests.reproduce.test_known_answers import a_case, answer
from tests.reproduce.test_label_test import made

RUN = spec(learning(epochs=1), epochs=1)


def silent(line: str) -> None:
    pass


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def timing(*, seconds: float = 2.0, invalid: str = "") -> RowTiming:
    """A timing without stages, whose time of start alone tells it from another."""
    row = spec_of(protocol="paper", source="random")
    return RowTiming(
        name="EffConv-20 0.66M",
        timing_id=row_timing_id(row, "cpu"),
        spec=row,
        device="cpu",
        certificate=Certificate(device="CPU", threads=1, load_before=0.0, load_after=seconds, invalid=invalid),
        machine="0123456789ab",
        code={"commit": "unknown", "dirty": None},
        started="2030-01-01T00:00:00+00:00",
        finished="2030-01-01T00:01:00+00:00",
    )


def state(results: Path, content: bytes, saved: int, run_id: str = "0123456789abcdef-s0") -> Path:
    """Made-up resume state, saved at a time in seconds since 1970."""
    path = results / ".resume" / run_id / "training.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (saved, saved))
    return path


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A results folder with two records, a timing, a machine and an unfinished run."""
    results = tmp_path / "full"
    store = Store(results)
    for seed in (0, 1):
        store.write(record_of(spec_of(), seed, top1=50.0 + seed))
    store.write_machine({"cpu": "Example CPU"})
    TimingStore(results).write(timing())
    state(results, b"weights", 2_000_000_000)
    return results


def files(results: Path) -> dict[str, bytes]:
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_a_round_trip_brings_everything_back(full: Path, tmp_path: Path) -> None:
    (full / ".resume/0123456789abcdef-s0/lock").touch()
    file, again = tmp_path / "x/out.zip", tmp_path / "again.zip"
    line = export(file, full, err=silent)
    assert "2 records, 1 timing record, 1 machine file, 1 unfinished run;" in line
    export(again, full, err=silent)
    assert file.read_bytes() == again.read_bytes()
    assert zipfile.ZipFile(file).read("FORMAT") == b"reproduce-archive 1\n"
    assert not any(name.startswith("/") or "lock" in name for name in zipfile.ZipFile(file).namelist())
    assert str(merge(file, tmp_path / "new", err=silent)) == "5 added, 0 same, 0 refused"
    assert files(tmp_path / "new") == files(full)
    assert str(merge(file, tmp_path / "new", err=silent)) == "0 added, 5 same, 0 refused"
    export(again, tmp_path / "new", err=silent)
    assert file.read_bytes() == again.read_bytes()


def test_a_stopped_run_goes_on_from_the_archive(tmp_path: Path) -> None:
    whole = run(RUN, 0, context(tmp_path / "whole"))
    for at, name in ((3, "size_learning.pt"), (8, "training.pt")):
        here, there = tmp_path / f"here{at}", tmp_path / f"there{at}"
        with pytest.raises(Interrupted):
            run(RUN, 0, context(here, stop=StopAt(at)))
        assert (Store(here).resume_dir(RUN, 0) / name).exists()
        export(tmp_path / "state.zip", here, err=silent)
        assert merge(tmp_path / "state.zip", there, err=silent).added == 2  # the state, and the machine that it notes
        asked = StopAt(1_000)
        record = run(RUN, 0, context(there, stop=asked))
        assert content(record) == content(whole) and record.clock.resumed == 1
        assert not Store(there).resume_dir(RUN, 0).exists()
        # The run is recorded there by now, so its old state is of no use.
        assert str(merge(tmp_path / "state.zip", there, err=silent)) == "0 added, 2 same, 0 refused"
        assert not Store(there).resume_dir(RUN, 0).exists()


def test_a_conflict_is_refused_and_named_and_the_rest_comes_in(full: Path, tmp_path: Path) -> None:
    file, here = str(tmp_path / "out.zip"), tmp_path / "here"
    assert reproduce("export", file, "--results", str(full)).exit_code == 0
    path = Store(here).write(record_of(spec_of(), 1, top1=77.0))
    before = path.read_bytes()
    result = reproduce("import", file, "--results", str(here))
    assert result.exit_code == 1
    assert result.stdout == f"{file}: 4 added, 0 same, 1 refused\n"
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"refused: {path.relative_to(here).as_posix()}: conflicts with")
    assert path.read_bytes() == before and len(Store(here).records()) == 2


def test_the_same_result_of_another_day_is_the_same(full: Path, tmp_path: Path) -> None:
    export(tmp_path / "out.zip", full, err=silent)
    path = Store(tmp_path / "here").write(record_of(spec_of(), 1, top1=51.0, machine="ba9876543210"))
    before = path.read_bytes()
    assert str(merge(tmp_path / "out.zip", tmp_path / "here", err=silent)) == "4 added, 1 same, 0 refused"
    assert path.read_bytes() == before


@pytest.mark.parametrize(("ours", "theirs", "kept"), [("failed", "finished", 1), ("finished", "failed", 0)])
def test_a_failed_run_gives_way_to_a_result_and_never_the_reverse(
    tmp_path: Path, ours: str, theirs: str, kept: int
) -> None:
    Store(tmp_path / "theirs").write(record_of(spec_of(), status=theirs))
    Store(tmp_path / "ours").write(record_of(spec_of(), status=ours))
    export(tmp_path / "out.zip", tmp_path / "theirs", err=silent)
    assert merge(tmp_path / "out.zip", tmp_path / "ours", err=silent).added == kept
    (record,) = Store(tmp_path / "ours").records()
    assert record.outcome.status == "finished"


@pytest.mark.parametrize(
    ("ours", "theirs", "tally"),
    [
        (timing(), timing(), "0 added, 1 same, 0 refused"),
        (timing(), timing(seconds=3.0), "0 added, 0 same, 1 refused"),
        (timing(invalid="busy"), timing(seconds=3.0), "1 added, 0 same, 0 refused"),
        (timing(), timing(seconds=3.0, invalid="busy"), "0 added, 1 same, 0 refused"),
    ],
)
def test_timings(tmp_path: Path, ours: RowTiming, theirs: RowTiming, tally: str) -> None:
    TimingStore(tmp_path / "ours").write(ours)
    TimingStore(tmp_path / "theirs").write(theirs)
    export(tmp_path / "out.zip", tmp_path / "theirs", err=silent)
    assert str(merge(tmp_path / "out.zip", tmp_path / "ours", err=silent)) == tally


@pytest.mark.parametrize(("saved", "taken"), [(1_999_999_000, False), (2_000_001_000, True)])
def test_the_state_that_was_saved_later_stays(tmp_path: Path, saved: int, taken: bool) -> None:
    here = state(tmp_path / "here", b"ours", 2_000_000_000)
    said: list[str] = []
    here.with_name("sizes.json").write_text("{}")
    os.utime(here.with_name("sizes.json"), (1_000_000_000, 1_000_000_000))
    state(tmp_path / "there", b"theirs", saved)
    export(tmp_path / "out.zip", tmp_path / "there", err=silent)
    tally = merge(tmp_path / "out.zip", tmp_path / "here", err=said.append)
    assert here.read_bytes() == (b"theirs" if taken else b"ours")
    assert here.with_name("sizes.json").exists() is not taken  # one state or the other, no mixture
    assert (tally.added, len(said)) == (1, 0) if taken else (0, 1)


def test_the_state_of_a_run_under_way_is_refused(tmp_path: Path) -> None:
    here = state(tmp_path / "here", b"ours", 2_000_000_000)
    state(tmp_path / "there", b"theirs", 2_000_001_000)
    export(tmp_path / "out.zip", tmp_path / "there", err=silent)
    with hold(here.parent):
        tally = merge(tmp_path / "out.zip", tmp_path / "here", err=silent)
    assert "under way in another process" in tally.refused[0] and here.read_bytes() == b"ours"


def edited(file: Path, name: str, content: bytes) -> None:
    """Rewrite an archive with one entry replaced."""
    with zipfile.ZipFile(file) as old:
        entries = {each: old.read(each) for each in old.namelist()} | {name: content}
    with zipfile.ZipFile(file, "w") as new:
        for each, raw in entries.items():
            new.writestr(each, raw)


def test_an_altered_record_is_refused_and_the_rest_comes_in(full: Path, tmp_path: Path) -> None:
    file, path = tmp_path / "out.zip", Store(full).path(spec_of(), 1)
    export(file, full, err=silent)
    name = path.relative_to(full).as_posix()
    edited(file, name, path.read_bytes().replace(b"51.0", b"99.0"))
    tally = merge(file, tmp_path / "here", err=silent)
    assert tally.added == 4 and tally.refused[0].startswith(f"{name}: its content does not match its digest")
    assert len(Store(tmp_path / "here").records()) == 1


@pytest.mark.parametrize(
    "name",
    ["../escape.json", "runs/../../../escape.json", "/escape.json", "escape.json", r"runs/..\escape.json"],
)
def test_a_path_out_of_the_folder_is_refused_whole(full: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "out.zip"
    export(file, full, err=silent)
    with zipfile.ZipFile(file, "a") as grown:
        grown.writestr(name, b"{}")
    result = reproduce("import", str(file), "--results", str(tmp_path / "a/b/here"))
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "nothing was taken" in result.stderr
    assert not (tmp_path / "a").exists() and not list(tmp_path.rglob("*escape*"))


def test_a_record_cannot_choose_a_place_outside(tmp_path: Path) -> None:
    """The path follows from the record's content, so that is looked at as well."""
    spec_outside = spec_of().model_copy(update={"protocol": "../../../../escape"})
    record = record_of(spec_outside)
    there = tmp_path / "there/runs/cifar10/x/tiny"
    there.mkdir(parents=True)
    record = record.model_copy(update={"digest": record.computed_digest()})
    (there / f"{record.run_id}.json").write_text(record.model_dump_json())
    export(tmp_path / "out.zip", tmp_path / "there", err=silent)
    tally = merge(tmp_path / "out.zip", tmp_path / "here", err=silent)
    assert "no place below" in tally.refused[0] and not (tmp_path / "here").exists()
    assert not list(tmp_path.rglob("escape"))


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "text", "no format", "newer"])
def test_a_damaged_archive_is_one_line_and_changes_nothing(full: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "out.zip"
    export(file, full, err=silent)
    raw = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(raw[: len(raw) // 2])
    elif damage == "altered":
        raw[raw.index(b"weights")] ^= 1
        file.write_bytes(raw)
    elif damage in ("empty", "text"):
        file.write_text("" if damage == "empty" else "no archive")
    elif damage == "newer":
        edited(file, "FORMAT", b"reproduce-archive 2\n")
    else:
        with zipfile.ZipFile(file, "w") as other:
            other.writestr("runs/x.json", "{}")
    result = reproduce("import", str(file), "--results", str(tmp_path / "here"))
    assert result.exit_code == 1 and result.stdout == "" and not (tmp_path / "here").exists()
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert ("newer version" if damage == "newer" else "damaged or no archive") in result.stderr


def test_export_leaves_out_what_cannot_be_read_and_overwrites_archives_alone(full: Path, tmp_path: Path) -> None:
    Store(full).path(spec_of(), 0).write_text("{")
    file = tmp_path / "out.zip"
    result = reproduce("export", str(file), "--results", str(full))
    assert result.exit_code == 0 and "left out: runs/" in result.stderr
    assert reproduce("export", str(file), "--results", str(full)).exit_code == 0
    precious = tmp_path / "thesis.txt"
    precious.write_text("words")
    with pytest.raises(UserError, match="no archive"):
        export(precious, full, err=silent)
    with pytest.raises(UserError, match="nothing to export"):
        export(tmp_path / "new.zip", tmp_path / "nowhere", err=silent)
    assert precious.read_text() == "words" and not (tmp_path / "new.zip").exists()


def test_the_spare_version_travels_only_when_the_state_itself_is_missing(tmp_path: Path) -> None:
    path = state(tmp_path, b"new", 2_000_000_000)
    path.with_name("training.pt.previous").write_bytes(b"old")
    assert [name.name for name in archive._state_files(path.parent)] == ["training.pt"]
    path.unlink()
    assert [name.name for name in archive._state_files(path.parent)] == ["training.pt.previous"]


def test_known_answers_and_size_records_travel_and_conflicts_are_named(tmp_path: Path) -> None:
    here, there, other = tmp_path / "here", tmp_path / "there", tmp_path / "other"
    case = a_case()
    for results, accuracy in ((here, 90.0), (other, 80.0)):
        KnownStore(results).write(answer(case, [5], accuracy))
        SizeStore(results).write(made("true", 0, [3.0, accuracy]))
    line = export(tmp_path / "out.zip", here, err=silent)
    assert "1 known answer, 1 size record;" in line
    assert str(merge(tmp_path / "out.zip", there, err=silent)) == "2 added, 0 same, 0 refused"
    assert files(there) == files(here)
    assert str(merge(tmp_path / "out.zip", there, err=silent)) == "0 added, 2 same, 0 refused"
    tally = merge(tmp_path / "out.zip", other, err=silent)
    assert (tally.added, tally.same) == (0, 0)
    assert all("conflicts with the record here" in line for line in tally.refused) and len(tally.refused) == 2


def test_unfinished_size_learning_travels_and_gives_way_to_its_record(tmp_path: Path) -> None:
    here, there, done = tmp_path / "here", tmp_path / "there", tmp_path / "done"
    record = made("true", 0, [3.0, 4.0])
    run_id = SizeStore(here).resume_dir(record.case).name
    state(here, b"steps", 1_000_000_000, run_id)
    SizeStore(done).write(record)
    export(tmp_path / "out.zip", here, err=silent)
    assert str(merge(tmp_path / "out.zip", there, err=silent)) == "1 added, 0 same, 0 refused"
    assert (there / ".resume" / run_id / "training.pt").read_bytes() == b"steps"
    assert str(merge(tmp_path / "out.zip", done, err=silent)) == "0 added, 1 same, 0 refused"
    assert not (done / ".resume").exists()


def test_a_plan_travels_and_is_never_replaced(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    asked = Asked(protocol="paper", source="canonical", steps=100)
    first = StudyPlan(
        name="first", claim="f3c-first-layers", rule="mostly", rows=(), n=2, seeds=(5, 6), dataset="cifar10",
        asked=asked, power=0.8, written="2030-01-01T00:00:00+00:00",
    )  # fmt: skip
    study_plans.write(here, first)
    export(tmp_path / "out.zip", here, err=silent)
    assert str(merge(tmp_path / "out.zip", there, err=silent)) == "1 added, 0 same, 0 refused"
    assert study_plans.plans(there) == study_plans.plans(here) and files(there) == files(here)
    study_plans.folder(there).joinpath("first.json").unlink()
    study_plans.write(there, first.model_copy(update={"seeds": (7, 8)}))
    (line,) = merge(tmp_path / "out.zip", there, err=silent).refused
    assert "a plan is never changed" in line and study_plans.plans(there)[0].seeds == (7, 8)
