"""A run that is stopped or killed at any moment ends with the record of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reproduce.errors import Interrupted, UserError
from reproduce.records import RunRecord
from reproduce.run.resume import Notes, Slot
from reproduce.run.runner import run
from reproduce.specs import RunSpec
from reproduce.store import Store
from reproduce.traces import hold
from tests.reproduce.run_samples import StopAt, content, context, learning, spec

CPU = torch.device("cpu")
BOTH_STAGES = spec(learning())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(BOTH_STAGES, 0, context(tmp_path_factory.mktemp("whole"), keep_weights=True))


def weights(results: Path, wanted: RunSpec) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(Store(results).weights_path(wanted, 0), weights_only=True)
    return loaded


# Stage 1 has 8 steps and asks once in each; stage 2 asks once more before each of its 2 epochs of 4 steps.
@pytest.mark.parametrize("at", [1, 2, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 17])
def test_stopped_once(whole: RunRecord, tmp_path: Path, at: int) -> None:
    with pytest.raises(Interrupted):
        run(BOTH_STAGES, 0, context(tmp_path, stop=StopAt(at)))
    record = run(BOTH_STAGES, 0, context(tmp_path))
    assert content(record) == content(whole)
    assert record.clock.resumed == 1
    assert record.clock.size_learning is not None and len(record.clock.size_learning.epoch_seconds) == 2
    assert len(record.clock.training.epoch_seconds) == 2
    assert all(s > 0 for s in record.clock.size_learning.epoch_seconds + record.clock.training.epoch_seconds)


def test_stopped_again_and_again_and_weights_too(whole: RunRecord, tmp_path: Path) -> None:
    kept = context(tmp_path / "whole", keep_weights=True)
    run(BOTH_STAGES, 0, kept)
    stops = 0
    while True:
        try:
            record = run(BOTH_STAGES, 0, context(tmp_path / "cut", keep_weights=True, stop=StopAt(3)))
            break
        except Interrupted:
            stops += 1
            assert stops < 30
    assert stops >= 5 and record.clock.resumed == stops
    assert content(record) == content(whole)
    ours, theirs = weights(tmp_path / "cut", BOTH_STAGES), weights(tmp_path / "whole", BOTH_STAGES)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_saving_at_every_step_changes_nothing(whole: RunRecord, tmp_path: Path) -> None:
    assert content(run(BOTH_STAGES, 0, context(tmp_path, save_every=0.0))) == content(whole)


def test_a_damaged_state_gives_way_to_the_one_before(whole: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(BOTH_STAGES, 0, context(tmp_path, save_every=0.0, stop=StopAt(13)))
    state = Store(tmp_path).resume_dir(BOTH_STAGES, 0) / "training.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert content(run(BOTH_STAGES, 0, context(tmp_path))) == content(whole)


KILLED = """
import sys
from pathlib import Path
from reproduce.run.runner import run
from tests.reproduce.run_samples import context, learning, spec
if __name__ == "__main__":
    run(spec(learning()), 0, context(Path(sys.argv[1]), save_every=0.0))
"""


@pytest.mark.parametrize(("file", "wait"), [("size_learning.pt", 0.05), ("training.pt", 0.0), ("training.pt", 0.1)])
def test_killed(whole: RunRecord, tmp_path: Path, file: str, wait: float) -> None:
    """kill -9 soon after the first state of a stage is on the disk: perhaps within a save, perhaps after the end."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, env={**os.environ})
    state = Store(tmp_path).resume_dir(BOTH_STAGES, 0) / file
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    record = run(BOTH_STAGES, 0, context(tmp_path))
    assert content(record) == content(whole)
    assert not Store(tmp_path).problems and not Store(tmp_path).resume_dir(BOTH_STAGES, 0).exists()


def test_a_slot_keeps_the_version_before(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "state.pt", every=1000.0)
    assert slot.load(CPU) is None
    slot.save({"step": 1, "weights": torch.ones(2)})
    slot.save({"step": 2, "weights": torch.zeros(2)})
    loaded = slot.load(CPU)
    assert loaded is not None and loaded["step"] == 2
    slot.path.write_bytes(slot.path.read_bytes()[:-1] + b"x")
    loaded = slot.load(CPU)
    assert loaded is not None and loaded["step"] == 1 and torch.equal(loaded["weights"], torch.ones(2))
    assert not slot.path.exists()  # put aside; as after a kill between the two renames
    assert slot.load(CPU) is not None
    slot.previous.write_bytes(b"")
    assert slot.load(CPU) is None


def test_a_slot_is_due_after_its_time(tmp_path: Path) -> None:
    assert Slot(tmp_path / "a", every=0.0).due() and not Slot(tmp_path / "b", every=1e9).due()


def test_notes_survive_nonsense(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes.json")
    assert notes.load() == {}
    notes.save({"a": [1, 2.5]})
    assert notes.load() == {"a": [1, 2.5]}
    notes.path.write_text("[")
    assert notes.load() == {}


def test_state_of_another_version_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(spec(), 0, context(tmp_path, stop=StopAt(3)))
    slot = Slot(Store(tmp_path).resume_dir(spec(), 0) / "training.pt", every=0.0)
    slot.save({"state": {"unheard": 1}})
    with pytest.raises(UserError, match="delete that folder"):
        run(spec(), 0, context(tmp_path))


def test_one_run_belongs_to_one_process(tmp_path: Path) -> None:
    with hold(tmp_path / "run"), pytest.raises(UserError, match="another process"), hold(tmp_path / "run"):
        pass
