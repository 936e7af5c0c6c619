"""Several seeds side by side: each network's weights are those that it has alone; their time is marked as shared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from baselines.flexnet import flexnet
from reproduce.cli import main
from reproduce.errors import UserError
from reproduce.report.shelf import Shelf
from reproduce.run import machine
from reproduce.run.engine import make_stepper, make_together
from reproduce.run.engine.together import Together
from reproduce.run.splits import Split
from reproduce.run.streams import stream_seed
from reproduce.run.timing import stage_clock
from reproduce.specs import DATASETS, Recipe
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import row_timing_id
from tests.reproduce.factory import spec_of
from tests.reproduce.run_samples import recipe, synthetic

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SEEDS = (0, 3, 5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Net(nn.Module):
    """(N, 3, H, W) -> (N, 10), with batch norm and dropout, in the type of its weights."""

    def __init__(self, seed: int, drop: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.drop, self.head = nn.Dropout(drop), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.body(images.to(self.body.weight.dtype))).relu()
        return self.head(self.drop(x.mean(dim=(2, 3))))


def networks(drop: float) -> list[nn.Module]:
    return [Net(seed, drop).double() for seed in SEEDS]


def data(device: torch.device = CPU) -> Split:
    split = synthetic(40, 1, 12).train
    return Split(images=split.images.to(device), labels=split.labels.to(device))


def alone(chosen: Recipe, drop: float, device: torch.device = CPU) -> list[nn.Module]:
    """Each after 20 steps as `train` takes them: dropout's stream is the seed's and the epoch's own."""
    nets = networks(drop)
    for seed, net in zip(SEEDS, nets, strict=True):
        stepper = make_stepper(net, data(device), chosen, seed=seed, device=device, engine="graph")
        for step in range(20):
            epoch, within = divmod(step, stepper.steps)
            if not within:
                torch.manual_seed(stream_seed(seed, "noise", epoch + 1))
                stepper.start_epoch(epoch)
            stepper.step()
    return nets


def side_by_side(chosen: Recipe, drop: float, device: torch.device = CPU) -> list[nn.Module]:
    nets = networks(drop)
    work = make_together(nets, data(device), chosen, seeds=SEEDS, device=device)
    for step in range(20):
        epoch, within = divmod(step, work.steps)
        if not within:
            work.start_epoch(epoch)
        work.step()
    return nets


def furthest(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "momentum": 0.9}, {"augmentation": "vgg5"}])
def test_each_is_what_it_is_alone(changes: dict[str, Any]) -> None:
    """To the bit, with dropout, over epochs with a short last batch; torch's own generator stays as it was."""
    chosen = recipe(epochs=8, batch_size=12, **changes)
    expected = alone(chosen, 0.5)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    found = side_by_side(chosen, 0.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert [furthest(*pair) for pair in zip(found, expected, strict=True)] == [0.0] * 3
    assert furthest(found[0], found[1]) > 1e-3


def test_steps_end_with_the_epoch_and_laps_name_them() -> None:
    heard: list[str] = []
    chosen = recipe(batch_size=20)
    work = make_together(networks(0.0), data(), chosen, seeds=SEEDS, device=CPU, lap=heard.append)
    with pytest.raises(RuntimeError, match="start_epoch"):
        work.step()
    work.start_epoch(0)
    work.step()
    work.step()
    with pytest.raises(RuntimeError, match="the epoch is over"):
        work.step()
    assert heard == ["tables", "steps", "steps"]


def test_kernels_that_move_are_held_or_alone() -> None:
    nets = [flexnet(3, 4, image_size=12) for _ in SEEDS]
    options: dict[str, Any] = {"seeds": SEEDS, "device": CPU}
    with pytest.raises(UserError, match="hold them"):
        make_together(nets, data(), recipe(), **options)
    for net in nets:
        net.hold(3)
    assert len(make_together(nets, data(), recipe(), **options).steppers) == 3


@pytest.mark.cuda
def test_cuda_each_is_what_it_is_alone() -> None:
    chosen = recipe(epochs=8, batch_size=12, lr=1e-3)
    with machine.settings(1):
        for pair in zip(side_by_side(chosen, 0.0, CUDA), alone(chosen, 0.0, CUDA), strict=True):
            assert furthest(*pair) < 1e-10


@pytest.mark.cuda
def test_cuda_the_host_never_waits_within_an_epoch() -> None:
    nets = [Net(seed, 0.5) for seed in SEEDS]
    work = make_together(nets, data(CUDA), recipe(batch_size=12), seeds=SEEDS, device=CUDA)
    work.start_epoch(0)
    assert isinstance(work, Together) and set(work.graphs) == {12, 4}
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(work.steps):
            work.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [stepper.sums[2].item() for stepper in work.steppers] == [40.0] * 3


# The timing


@pytest.fixture
def reproduce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`reproduce time` on a CIFAR-10 of 70 training images, 8 x 8."""
    facts = DATASETS["cifar10"].model_copy(update={"image_size": 8, "train_images": 70, "test_images": 10})
    monkeypatch.setitem(DATASETS, "cifar10", facts)
    monkeypatch.setattr(stage_clock, "MOST_EPOCHS", 2)
    monkeypatch.setattr("reproduce.run.machine.keep_freed_memory", lambda: None)

    def run(*arguments: str) -> Result:
        command = ["time", *arguments, "--device", "cpu", "--results", str(tmp_path), "--no-ceilings"]
        found = CliRunner().invoke(main, command)
        assert found.exception is None or isinstance(found.exception, SystemExit), found.output
        return found

    return run


ROW = ("table2", "--rows", "control: ResNet-20", "--engine", "graph")


def test_shared_time_stands_apart(reproduce: Callable[..., Result], tmp_path: Path) -> None:
    reproduce(*ROW)
    found = reproduce(*ROW, "--side-by-side", "3")
    assert found.exit_code == 0, found.output
    assert "1 of 1: control: ResNet-20, CIFAR-10, 3 side by side" in found.stderr
    assert "s/epoch per seed, 3 share the device" in found.stderr
    lines = found.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line.startswith("CIFAR-10: per seed, 3 share the device")]) == 1
    assert len([line for line in lines if line.startswith("control: ResNet-20")]) == 3  # alone, apart, shared
    solo, shared = sorted(TimingStore(tmp_path).rows(), key=lambda row: row.together)
    assert (solo.together, shared.together) == (1, 3) and solo.timing_id != shared.timing_id
    assert shared.size_learning is None and shared.training is not None and solo.training is not None
    assert shared.training.evaluation_seconds is None
    assert sum(shared.training.parts.values()) == pytest.approx(shared.training.seconds, rel=1e-6)
    assert "nothing to time" in reproduce(*ROW, "--side-by-side", "3").stderr
    assert "to be timed" in reproduce(*ROW, "--side-by-side", "2", "--dry-run").stdout
    assert "share the device" not in reproduce(*ROW).stdout
    document = json.loads(reproduce(*ROW, "--side-by-side", "3", "--json").stdout)
    assert [row["together"] for row in document["rows"]] == [1, 3]
    (shelved,) = Shelf.of(Store(tmp_path)).timings(solo.spec)
    assert shelved == solo


def test_the_seconds_are_those_of_all_divided(
    reproduce: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that every step of a network moves by 6 seconds: 2 steps an epoch, whatever their number."""
    now = [0.0]

    def step(work: Together) -> None:
        for stepper in work.steppers:
            stepper.done += 1
            now[0] += 6.0

    monkeypatch.setattr(Together, "step", step)
    monkeypatch.setattr("reproduce.run.timing.stopwatch.Stopwatch.__init__.__kwdefaults__", {"clock": lambda: now[0]})
    reproduce(*ROW, "--side-by-side", "3")
    (row,) = TimingStore(tmp_path).rows()
    assert row.training is not None and row.training.seconds == 12.0
    assert row.training.samples == [12.0, 12.0] and row.training.parts == {
        "tables": 0.0,
        "start of the epoch": 0.0,
        "rest": 12.0,
    }


@pytest.mark.parametrize(
    ("extra", "mend"),
    [
        ((), "--engine graph"),
        (("--engine", "graph", "--ladder"), "drop --ladder"),
        (("--engine", "graph", "--ladder-only"), "drop"),
    ],
)
def test_what_several_at_once_cannot_be_asked(
    reproduce: Callable[..., Result], extra: tuple[str, ...], mend: str
) -> None:
    found = reproduce("table2", "--side-by-side", "2", *extra)
    assert found.exit_code == 2 and mend in found.stderr and len(found.stderr.splitlines()) == 1


def test_ids_of_records_stay() -> None:
    """Those of the timings that are committed: one network alone has no say in its id."""
    spec = spec_of("EffConv-20 0.66M", source="random")
    assert row_timing_id(spec, "cpu") == row_timing_id(spec, "cpu", 1) != row_timing_id(spec, "cpu", 3)
    for row in TimingStore(Path(__file__).parents[2] / "results").rows():
        assert row.timing_id == row_timing_id(row.spec, row.device) and row.together == 1
