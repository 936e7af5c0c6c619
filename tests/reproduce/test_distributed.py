"""One run in several processes: the same steps as in one, resumable, and none of them survives another alone."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError

from reproduce import experiments
from reproduce.cli import main
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.records import RunRecord
from reproduce.report.shelf import Way, question
from reproduce.run import ranks
from reproduce.run.batches import Batches
from reproduce.run.context import Run
from reproduce.run.distributed import Group, check_parts
from reproduce.run.engine import make_stepper
from reproduce.run.outcome import StepDone
from reproduce.run.runner import run
from reproduce.specs import Processes, Protocol, RunSpec
from reproduce.store import Store
from tests.reproduce import shared_work
from tests.reproduce.run_samples import Quiet, content, context, learning, recipe, spec, synthetic

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
STAGES_2 = spec(learning()).model_copy(update={"processes": Processes(count=2, batch_size=8)})


def in_processes(work: Callable[..., None], size: int, folder: Path, *arguments: Any) -> None:
    folder.mkdir(exist_ok=True)
    torch.multiprocessing.spawn(work, (size, folder, *arguments), nprocs=size)


def loaded(path: Path) -> Any:
    return torch.load(path, weights_only=False)


def equal_to(a: Any, b: Any, tolerance: float) -> None:
    """Every number in lists and dicts, at any depth."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal_to(a[key], b[key], tolerance)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            equal_to(one, other, tolerance)
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)
    else:
        assert a == b


# --- what a process is given


@pytest.mark.parametrize(("images", "size"), [(16, 2), (11, 2), (11, 3), (2048, 8), (3, 3)])
def test_the_parts_of_a_batch_are_the_batch(images: int, size: int) -> None:
    parts = [range(images)[Group(rank=rank, size=size).part(images)] for rank in range(size)]
    assert [image for part in parts for image in part] == list(range(images))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("augmentation", ["none", "flip_crop", "vgg5"])
def test_processes_see_the_images_that_one_sees(augmentation: str) -> None:
    def batches(**changes: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        values: dict[str, Any] = {"seed": 1, "stream": (), "epoch": 2, "batch_size": 16, "normalisation": "imagenet"}
        return list(Batches(split=synthetic(43).train, augmentation=augmentation, **(values | changes)))

    parts = [batches(part=Group(rank=rank, size=2).part) for rank in range(2)]
    for whole, first, second in zip(batches(), *parts, strict=True):
        for one, a, b in zip(whole, first, second, strict=True):
            assert torch.equal(one, torch.cat((a, b)))
    assert [len(labels) for _, labels in parts[1]] == [8, 8, 5]


# --- specs


def test_specs_of_one_process_keep_their_ids() -> None:
    shuffled = experiments.rows("table2", Protocol(base="tiny"))[-1]
    assert shuffled.spec.run_id(0) == "49d58f29515ccd7a-s0"  # from before there could be more
    assert "processes" not in shuffled.spec.model_dump() and "processes" not in shuffled.spec.model_dump(mode="json")
    assert shuffled.spec.world_size == 1 and not shuffled.spec.sync_bn


def test_every_record_of_this_repository_is_found() -> None:
    store = Store(ROOT / "results")
    records = store.records()
    assert records and not store.problems
    for record in records:
        assert store.find(record.spec, record.seed) == record
        assert "processes" not in record.spec.model_dump(mode="json")


def test_processes_are_part_of_a_spec() -> None:
    assert STAGES_2.model_dump(mode="json")["processes"] == {"count": 2, "batch_size": 8, "sync_bn": False}
    assert RunSpec.model_validate_json(STAGES_2.model_dump_json()) == STAGES_2
    assert STAGES_2.world_size == 2 and STAGES_2.spec_id != spec(learning()).spec_id
    synced = STAGES_2.model_copy(update={"processes": Processes(count=2, batch_size=8, sync_bn=True)})
    assert synced.sync_bn and synced.spec_id != STAGES_2.spec_id


def test_a_cell_takes_such_runs_and_says_so() -> None:
    assert question(STAGES_2) == question(spec(learning()))
    assert Way.of(STAGES_2).remarks == ["2 processes, batch norm in each"]
    assert Way.of(STAGES_2).rank < Way.of(spec(learning())).rank and not Way.of(spec(learning())).remarks


def test_batches_that_are_not_those_of_the_stages_are_no_spec() -> None:
    values = spec(learning()).model_dump()
    for processes in ({"count": 2, "batch_size": 7}, {"count": 1, "batch_size": 16}):
        with pytest.raises(ValidationError):
            RunSpec.model_validate(values | {"processes": processes})


def test_rows_of_table_4_can_be_shared() -> None:
    protocol = Protocol(base="paper")
    shared = experiments.rows("table4", protocol, gpus_per_run=4, sync_bn=True)
    for row, alone in zip(shared, experiments.rows("table4", protocol), strict=True):
        found = row.spec.processes
        assert found is not None and found.count * found.batch_size == row.spec.training.batch_size and found.sync_bn
        assert row.spec.model_copy(update={"processes": None}) == alone.spec


@pytest.mark.parametrize(
    ("experiment", "asked", "line"),
    [
        ("table4", {"gpus_per_run": 3}, r"--gpus-per-run 3 does not divide .* batch of 2048; take one of 2, 4, 8"),
        ("table4", {"sync_bn": True}, r"add --gpus-per-run 2 or more"),
        ("table4", {"gpus_per_run": 2, "engine": "graph"}, r"for table4 \(ImageNet-32\) and --engine plain"),
        ("table2", {"gpus_per_run": 2}, r"for table4 \(ImageNet-32\) and --engine plain"),
    ],
)
def test_usage_errors_say_what_works(experiment: str, asked: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        experiments.rows(experiment, Protocol(base="paper"), **asked)


def test_the_command_line_passes_them_on(tmp_path: Path) -> None:
    words = ["table4", "--protocol", "tiny", "--dry-run", "--json", "--rows", "EffConv*", "--results", str(tmp_path)]
    shared = CliRunner().invoke(main, [*words, "--seeds", "0", "--gpus-per-run", "2"])
    row = next(row for row in experiments.rows("table4", Protocol(base="tiny"), gpus_per_run=2) if "Eff" in row.name)
    assert shared.exit_code == 0 and row.spec.run_id(0) in shared.stdout
    refused = CliRunner().invoke(main, ["table2", "--dry-run", "--gpus-per-run", "2"])
    assert refused.exit_code == 2 and refused.stderr.startswith("error: --gpus-per-run is for table4")
    assert len(refused.stderr.splitlines()) == 1


# --- what cannot be


def of(wanted: RunSpec, folder: Path, **changes: Any) -> Run:
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {"context": context(folder), "device": CPU, "folder": folder, "dataset": synthetic(64)}
    return Run(name="", spec=wanted, seed=0, **(values | changes))


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = STAGES_2.model_copy(update={"processes": Processes(count=2, batch_size=8, sync_bn=True)})
    with pytest.raises(UserError, match="--sync-bn needs CUDA"):
        ranks.check(of(synced, tmp_path))
    with pytest.raises(UserError, match="--engine plain alone"):
        ranks.check(of(STAGES_2.model_copy(update={"engine": "graph"}), tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="1 can be seen here"):
        ranks.check(of(STAGES_2, tmp_path, device=torch.device("cuda")))
    with pytest.raises(UserError, match="1 of 65 images, too few for 2 processes"):
        ranks.check(of(STAGES_2, tmp_path, dataset=synthetic(65)))
    ranks.check(of(STAGES_2, tmp_path))
    check_parts(65, 16, 2, drop_last=True)


def test_a_graph_has_no_shared_steps() -> None:
    with pytest.raises(UserError, match="--engine plain"):
        make_stepper(
            shared_work.network(8),
            synthetic().train,
            recipe(),
            seed=0,
            device=CPU,
            engine="graph",
            group=Group(rank=0, size=2),
        )


# --- two processes against one


@pytest.mark.slow
@pytest.mark.parametrize("images", [80, 75])  # 5 steps; the last one of 16, or of 6 images and 5
def test_training_is_that_of_one_process(tmp_path: Path, images: int) -> None:
    in_processes(shared_work.trained, 2, tmp_path / "two", images)
    (tmp_path / "one").mkdir()
    shared_work.trained(0, 1, tmp_path / "one", images)
    one = loaded(tmp_path / "one" / "0.pt")
    start = shared_work.network().state_dict()
    assert any((start[name] - value).abs().max() > 1e-3 for name, value in one["weights"].items())
    for rank in range(2):
        equal_to(loaded(tmp_path / "two" / f"{rank}.pt"), one, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("images", [80, 75])
def test_size_learning_is_that_of_one_process(tmp_path: Path, images: int) -> None:
    """All weights, v, and what both losses say of v, at each of 5 steps."""
    found = {}
    for size, name in ((2, "two"), (1, "one")):
        in_processes(shared_work.learned, size, tmp_path / name, images)
        found[name] = loaded(tmp_path / name / "0.pt")
        payload = (tmp_path / name / "size_learning.pt").read_bytes().partition(b"\n")[2]
        (tmp_path / "state.pt").write_bytes(payload)
        state = loaded(tmp_path / "state.pt")
        found[name]["state"] = [state[part] for part in ("epoch", "batch", "learner", "history")]
    assert len(found["one"]["history"]) == 5
    assert any(abs(value) > 1e-6 for value in found["one"]["history"][-1]["class_grad"])
    equal_to(found["two"], found["one"], 1e-10)
    other = loaded(tmp_path / "two" / "1.pt")
    assert other["history"] == loaded(tmp_path / "two" / "0.pt")["history"]  # v to the bit


# --- resumed


@pytest.mark.slow
@pytest.mark.parametrize(("size", "family"), [(2, "cifar_resnet"), (3, "cifar_resnet"), (2, "flexnet")])
def test_interrupted_training_ends_as_uninterrupted(tmp_path: Path, size: int, family: str) -> None:
    """To the bit, with dropout and batch norm by process. The last batch is uneven for 3."""
    in_processes(shared_work.stopped_and_resumed, size, tmp_path / "whole", family, ())
    in_processes(shared_work.stopped_and_resumed, size, tmp_path / "cut", family, (3, 4))
    for rank in range(size):
        whole, cut = (loaded(tmp_path / name / f"{rank}.pt") for name in ("whole", "cut"))
        equal_to(cut, whole, 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(STAGES_2, 0, context(tmp_path_factory.mktemp("whole")))


class After(Quiet):
    """Stops a run that was heard of so often, when it is then asked so often."""

    def __init__(self, updates: int, asked: int) -> None:
        super().__init__()
        self.wanted, self.asked = updates, asked

    def __call__(self) -> bool:
        self.asked -= len(self.updates) >= self.wanted
        return self.asked <= 0


# Stage 1 tells of each of its 8 steps, stage 2 of its 2 epochs of 4 steps.
@pytest.mark.slow
@pytest.mark.parametrize(("updates", "asked"), [(0, 3), (5, 1), (8, 4)])
def test_a_run_of_both_stages_ends_as_uninterrupted(whole: RunRecord, tmp_path: Path, updates: int, asked: int) -> None:
    assert whole.outcome.status == "finished" and whole.spec.world_size == 2
    stop = After(updates, asked)
    with pytest.raises(Interrupted):
        run(STAGES_2, 0, context(tmp_path, progress=stop, stop=stop))
    assert len(stop.updates) == updates
    assert not multiprocessing.active_children()
    record = run(STAGES_2, 0, context(tmp_path))
    assert content(record) == content(whole)
    assert not multiprocessing.active_children()


# --- one ends before its time


class Killer(Quiet):
    """Kills the other process of the run at an update of a stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage, self.killed = stage, 0

    def update(self, at: StepDone, *, run: str | None = None) -> None:
        super().update(at, run=run)
        if at.stage == self.stage and not self.killed:
            (other,) = multiprocessing.active_children()
            other.kill()
            self.killed += 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sizes", "training"])
def test_a_killed_process_ends_the_run_which_goes_on_later(whole: RunRecord, tmp_path: Path, stage: str) -> None:
    killer = Killer(stage)
    with pytest.raises(ranks.ProcessLost, match=r"^process 2 of 2 .* killed \(signal 9\).*the same command goes on$"):
        run(STAGES_2, 0, context(tmp_path, progress=killer))
    assert killer.killed == 1 and not multiprocessing.active_children()
    assert Store(tmp_path).find(STAGES_2, 0) is None
    assert content(run(STAGES_2, 0, context(tmp_path))) == content(whole)


@pytest.mark.slow
def test_what_another_process_raises_is_the_reason(tmp_path: Path) -> None:
    this = of(STAGES_2, tmp_path)
    with (
        pytest.raises(ranks.ProcessFailed, match=r"^process 2 of 2: ValueError: the second one$"),
        ranks.beside(this, shared_work.fail_in_second) as group,
    ):
        shared_work.fail_in_second(this, group)
    assert not multiprocessing.active_children()
    assert not list(tmp_path.glob(f"{ranks.MEETING}*"))


ALONE = """
import sys
from pathlib import Path
from tests.reproduce import shared_work
from tests.reproduce.test_distributed import STAGES_2, of
from reproduce.run import ranks
if __name__ == "__main__":
    this = of(STAGES_2, Path(sys.argv[1]))
    with ranks.beside(this, shared_work.wait_for_ever) as group:
        shared_work.wait_for_ever(this, group)
"""


@pytest.mark.slow
def test_the_others_end_with_the_first(tmp_path: Path) -> None:
    """Killed, it cannot tell them."""
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    first = subprocess.Popen([sys.executable, str(script), str(tmp_path)], cwd=ROOT)
    try:
        until(lambda: all((tmp_path / f"pid{rank}").exists() for rank in range(2)), "both processes to be at work")
        until(lambda: bool((tmp_path / "pid1").read_text()), "the second one's number")
        other = int((tmp_path / "pid1").read_text())
        assert alive(other)
    finally:
        first.kill()
        first.wait()
    until(lambda: not alive(other), "the second process to end")


def until(true: Callable[[], bool], what: str, limit: float = 300.0) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, f"waited {limit:.0f} s for {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Not gone, and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_processes_notice_that_they_differ(tmp_path: Path) -> None:
    in_processes(shared_work.out_of_step, 2, tmp_path / "off")
    for rank in range(2):
        assert "weights of the 2 processes" in (tmp_path / "off" / f"{rank}.txt").read_text()


@pytest.mark.slow
def test_means_weigh_images(tmp_path: Path) -> None:
    in_processes(shared_work.means, 2, tmp_path / "means")
    for rank in range(2):
        a, b = loaded(tmp_path / "means" / f"{rank}.pt")
        assert a.tolist() == [[3.0], [8.0]] and b.item() == -3.0
