"""Files cut short by a loss of power: found by their checksum, put aside, and the run goes on from the state before."""

from __future__ import annotations

import io
import json
import logging
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reproduce.errors import Interrupted, UserError
from reproduce.records import RunRecord
from reproduce.run.resume import HEADER, Notes, Slot, checked_payload
from reproduce.run.runner import run
from reproduce.store import Store, result_of
from tests.faults.recorder import FULL, POWER, Recorder
from tests.reproduce.run_samples import StopAt, context, learning, spec

CPU = torch.device("cpu")
BOTH_STAGES = spec(learning())
STOPS = {"size_learning.pt": 5, "training.pt": 15}  # looks at `stop` until both files of a state are of that stage
RESUMED = 200 if FULL else 12  # runs that go on from a checkpoint that was cut
CUTS = 200  # at least, of each checkpoint; in the full run every border is among them


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run that nothing disturbed."""
    results = tmp_path_factory.mktemp("whole")
    run(BOTH_STAGES, 0, context(results))
    return results


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each stage, the results of a run that was stopped in it: its state and the one before are there."""
    found = {}
    for name, looks in STOPS.items():
        found[name] = tmp_path_factory.mktemp("stopped")
        with pytest.raises(Interrupted):
            run(BOTH_STAGES, 0, context(found[name], save_every=0.0, stop=StopAt(looks)))
    return found


def record_in(results: Path) -> RunRecord:
    (record,) = Store(results).records()
    return record


def borders(content: bytes) -> list[int]:
    """Where the parts of a checkpoint begin: our header, each entry's local header and data, the directory, its end."""
    start = content.index(b"\n") + 1
    found = [0, len(HEADER), start, len(content) - 22, len(content) - 1]
    with zipfile.ZipFile(io.BytesIO(content[start:])) as archive:
        for entry in archive.infolist():
            local = start + entry.header_offset
            lengths = (int.from_bytes(content[local + at : local + at + 2], "little") for at in (26, 28))
            data = local + 30 + sum(lengths)
            found += [local, data, data + entry.file_size]
        found.append(start + archive.start_dir)
    return sorted(set(found))


def offsets(content: bytes, count: int) -> list[int]:
    """Every border, and random ones until there are `count`."""
    found, draw = set(borders(content)), random.Random(len(content))
    while len(found) < count:
        found.add(draw.randrange(len(content)))
    return sorted(found)


def test_borders_are_those_of_the_parts(stopped: dict[str, Path]) -> None:
    content = state_file(stopped["training.pt"], "training.pt").read_bytes()
    found = borders(content)
    assert sum(content[at : at + 4] == b"PK\x03\x04" for at in found) == content.count(b"PK\x03\x04") > 20
    assert sum(content[at : at + 4] in (b"PK\x01\x02", b"PK\x05\x06") for at in found) == 2


def state_file(results: Path, name: str) -> Path:
    return Store(results).resume_dir(BOTH_STAGES, 0) / name


def test_a_record_cut_at_every_64th_byte(
    whole: Path, tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Never read as a result; put aside, whole as it is, by the run that is done in its place."""
    record = record_in(whole)
    path = Store(tmp_path).write(record)
    content, lost = path.read_bytes(), []
    cuts = range(0, len(content) - 1, 64)
    for cut in cuts:
        path.write_bytes(content[:cut])
        store, aside = Store(tmp_path), path.with_name(path.name + ".damaged")
        hidden = store.find(record.spec, 0) is None and store.records() == [] and len(store.problems) == 1
        caplog.clear()
        store.write(record)
        told = [one.getMessage() for one in caplog.records]
        kept = aside.read_bytes() == content[:cut] and path.read_bytes() == content
        if not (hidden and kept and len(told) == 1 and aside.name in told[0] and not Store(tmp_path).problems):
            lost.append(cut)
        aside.unlink()
    recorder.tried(POWER, "a record cut at every 64th byte", len(cuts), lost)


def test_a_record_that_was_cut_is_made_again(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / "runs").rglob("*.json")
    path.write_bytes(path.read_bytes()[:2000])
    again = run(BOTH_STAGES, 0, context(tmp_path))
    assert result_of(again) == result_of(record_in(whole)) and record_in(tmp_path) == again
    assert path.with_name(path.name + ".damaged").stat().st_size == 2000
    assert f"{path.name} was cut short; it is put aside as {path.name}.damaged" in caplog.text


def read_after(cuts: Iterator[bytes] | list[bytes], folder: Path, before: bytes, known: object) -> list[int]:
    """Puts each content in the place of a state whose version before is whole; which were not passed over rightly."""
    path, aside = folder / "state.pt", folder / "state.pt.damaged"
    path.with_name("state.pt.previous").write_bytes(before)
    lost = []
    for number, content in enumerate(cuts):
        path.write_bytes(content)
        found = Slot(path, every=0.0).load(CPU)
        if not (same(found, known) and not path.exists() and aside.read_bytes() == content):
            lost.append(number)
        aside.unlink()
    return lost


def same(a: object, b: object) -> bool:
    """Equal, to the bit, whatever tensors there are within."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_small_checkpoint_cut_at_every_64th_byte(
    tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    slot = Slot(tmp_path / "small.pt", every=0.0)
    states = [{"step": step, "weights": torch.full((32, 32), float(step))} for step in (1, 2)]
    for state in states:
        slot.save(state)
    content = slot.path.read_bytes()
    cuts = [content[:cut] for cut in range(0, len(content), 64)]
    lost = read_after(cuts, tmp_path, slot.previous.read_bytes(), states[0])
    assert len(caplog.records) == len(cuts) and all("is put aside as" in one.getMessage() for one in caplog.records)
    recorder.tried(POWER, "a small checkpoint cut at every 64th byte", len(cuts), lost)


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPS)
def test_a_checkpoint_cut_at_its_borders(
    stopped: dict[str, Path], tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """What is read then is the state before."""
    caplog.set_level(logging.ERROR)
    path = state_file(stopped[name], name)
    content, before = path.read_bytes(), path.with_name(name + ".previous").read_bytes()
    payload = checked_payload(path.with_name(name + ".previous"))
    assert payload is not None
    known = torch.load(io.BytesIO(payload), weights_only=True)
    cuts = offsets(content, CUTS)
    cuts = cuts if FULL else random.Random(9).sample(cuts, CUTS)
    lost = read_after((content[:cut] for cut in cuts), tmp_path, before, known)
    case = "a real checkpoint cut at the borders of its sections: the state before is read"
    recorder.tried(POWER, case, len(cuts), lost, "all of them" if FULL else "some of them")


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPS)
def test_a_run_goes_on_from_the_state_before(
    whole: Path, stopped: dict[str, Path], tmp_path: Path, recorder: Recorder, name: str
) -> None:
    content, expected = state_file(stopped[name], name).read_bytes(), result_of(record_in(whole))
    cuts, lost = random.Random(7).sample(offsets(content, CUTS), RESUMED // 2), []
    for cut in cuts:
        results = tmp_path / str(cut)
        shutil.copytree(stopped[name], results)
        state_file(results, name).write_bytes(content[:cut])
        if result_of(run(BOTH_STAGES, 0, context(results))) != expected:
            lost.append(cut)
        shutil.rmtree(results)
    recorder.tried(POWER, "a real checkpoint cut: the run ends with the record of one that was not", len(cuts), lost)


@pytest.mark.parametrize("name", STOPS)
def test_without_any_whole_state_the_stage_begins_anew(
    whole: Path, stopped: dict[str, Path], tmp_path: Path, recorder: Recorder, name: str
) -> None:
    results = tmp_path / "results"
    shutil.copytree(stopped[name], results)
    for path in state_file(results, name).parent.glob("*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = run(BOTH_STAGES, 0, context(results))
    lost = [] if result_of(again) == result_of(record_in(whole)) else [name]
    recorder.tried(POWER, "all files of an unfinished run cut in half", 1, lost)


def test_notes_are_believed_only_with_their_checksum(tmp_path: Path, recorder: Recorder) -> None:
    """A changed number in `sizes.json` is as bad as a cut: other sizes would be trained."""
    notes = Notes(tmp_path / "sizes.json")
    notes.save({"sizes": {"conv1": 3}, "clock": [1.5]})
    content, lost = notes.path.read_bytes(), []
    altered = [content[:cut] for cut in range(len(content))]
    altered += [content.replace(b"3}", b"5}"), content.replace(b"[1.5]", b"[2.5]")]
    for wrong in altered:
        notes.path.write_bytes(wrong)
        if notes.load() != {}:
            lost.append(wrong)
    notes.path.write_bytes(content)
    assert notes.load() == json.loads(content)["values"]
    recorder.tried(POWER, "notes of a stage cut at every byte, or with another number", len(altered), lost)


def test_saving_never_overwrites_the_one_state_that_is_whole(tmp_path: Path) -> None:
    """The damaged one must not become the version before: a kill between the two renames would leave nothing."""
    slot = Slot(tmp_path / "state.pt", every=0.0)
    for step in (1, 2):
        slot.save({"step": step})
    slot.path.write_bytes(slot.path.read_bytes()[:-1])
    again = Slot(slot.path, every=0.0)
    assert again.load(CPU) == {"step": 1}
    again.save({"step": 2})
    again.path.unlink()  # killed between the two renames
    assert again.load(CPU) == {"step": 1}


def test_a_state_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    path.write_bytes(b"reproduce-state-2 " + b"0" * 64 + b"\n" + b"weights")
    with pytest.raises(UserError, match="newer version; update this checkout") as caught:
        Slot(path, every=0.0).load(CPU)
    assert "\n" not in str(caught.value) and path.read_bytes().endswith(b"weights")
