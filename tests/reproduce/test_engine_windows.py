"""FlexNet whose masks learn, under the graph engine: the plain engine's weights, also when crops outgrow windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from baselines.flexnet import FlexNet, horizon_of, layer_maker
from baselines.njet_resnet import njet_resnet
from reproduce.errors import Interrupted, UserError
from reproduce.run import machine
from reproduce.run.datasets import Dataset
from reproduce.run.engine import make_stepper, windows
from reproduce.run.engine.graph import GraphStepper
from reproduce.run.engine.windows import WindowStepper
from reproduce.run.outcome import TrainingResult
from reproduce.run.resume import Slot
from reproduce.run.splits import Split
from reproduce.run.training import train
from reproduce.specs import ParameterGroup, Recipe
from tests.reproduce.run_samples import Quiet, StopAt, never, recipe, synthetic

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def repeats(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The margins with which spans were taken anew."""
    found: list[int] = []
    whole = WindowStepper.repeat

    def noting(stepper: WindowStepper) -> None:
        whole(stepper)
        found.append(cast(int, stepper.model.margin))

    monkeypatch.setattr(WindowStepper, "repeat", noting)
    return found


def moving(factor: float = 40.0, **changes: Any) -> Recipe:
    """FlexNet's recipe in small. Masks learn much faster than the rest, and Adam's eps is large: rounding stays so."""
    masks = ParameterGroup(names="*mask_params", lr_factor=factor)
    values: dict[str, Any] = {"groups": (masks,), "batch_size": 4, "lr": 1e-3, "adam_eps": 1e-3, "epochs": 2}
    return recipe(**(values | {"kernel_penalty": 1e-4} | changes))


ADAM, FAST, SGD = moving(), moving(60.0), moving(optimizer="sgd", momentum=0.5, lr=5e-4)


def network(*, drop: float = 0.0, dtype: torch.dtype = torch.float64, image_size: int = 24) -> FlexNet:
    """Sizes from 3 to 9. Biases are not 0: there the slope of their norm is mere rounding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        make = layer_maker("flexconv", "magnet", horizon=horizon_of(image_size))
        net = FlexNet(4, [4, 6], make, in_channels=3, num_classes=10, dropout=drop).to(dtype)
        with torch.no_grad():
            for i, layer in enumerate(windows.masks_of(net)):
                layer.bias.normal_()
                layer.mask_params[:, 1] = torch.tensor([0.06 + 0.03 * (i % 4), 0.16 - 0.03 * (i % 4)])
    net.register_forward_pre_hook(lambda _, given: (given[0].to(dtype), *given[1:]))
    return net


def data(device: torch.device = CPU) -> Dataset:
    found = synthetic(40, 10, 10)
    parts = {"train": found.train, "test": found.test}
    there = {name: Split(images=one.images.to(device), labels=one.labels.to(device)) for name, one in parts.items()}
    return Dataset(name="", origin=found.origin, **there)


def stepped(
    chosen: Recipe, engine: str, net: FlexNet, *, steps: int = 20, device: torch.device = CPU
) -> tuple[FlexNet, set[int], dict[int, float]]:
    """The network after so many steps, 10 an epoch; all sides that its kernels had; the epoch's loss after steps."""
    stepper = make_stepper(net, data(device).train, chosen, seed=0, device=device, engine=cast(Any, engine))
    sides: set[int] = set()
    losses = {}
    torch.manual_seed(7)
    for step in range(steps):
        if step % stepper.steps == 0:
            stepper.start_epoch(step // stepper.steps)
        stepper.step()
        sides |= {side for size in net.kernel_sizes().values() for side in size}
        if stepper.settled:
            losses[step] = stepper.sums[0].item()
    return net, sides, losses


def furthest(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(
    ("chosen", "span", "margins"),
    [
        (ADAM, 50, [4]),
        pytest.param(ADAM, 3, [], marks=pytest.mark.slow),
        (SGD, 3, []),
        pytest.param(moving(30.0, augmentation="vgg5"), 50, [4], marks=pytest.mark.slow),
    ],
)
def test_twenty_steps_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, repeats: list[int], chosen: Recipe, span: int, margins: list[int]
) -> None:
    """Crops grow and shrink; where an epoch is one span, some outgrow their windows."""
    monkeypatch.setattr(windows, "SPAN", span)
    plain, sides, expected = stepped(chosen, "plain", network())
    graph, _, losses = stepped(chosen, "graph", network())
    assert furthest(plain, graph) < 1e-10
    assert repeats == margins
    assert losses == pytest.approx({step: expected[step] for step in losses}, abs=1e-9) and {9, 19} <= losses.keys()
    assert len(sides) > 4 and plain.kernel_sizes() == graph.kernel_sizes() != network().kernel_sizes()


@pytest.mark.parametrize(("span", "margins"), [pytest.param(50, [4], marks=pytest.mark.slow), (3, [])])
def test_dropout_draws_the_same(
    monkeypatch: pytest.MonkeyPatch, repeats: list[int], span: int, margins: list[int]
) -> None:
    """Where the method of convolution is fixed: on the CPU numbers meet positions as these lie in memory, and that is
    the method's choice.
    """
    monkeypatch.setattr(windows, "SPAN", span)
    nets = [network(drop=0.5, image_size=12) for _ in range(2)]
    for net, engine in zip(nets, ("plain", "graph"), strict=True):
        net.use("direct")
        stepped(ADAM, engine, net)
    assert furthest(*nets) < 1e-10 and repeats == margins


def test_an_epoch_may_be_left_before_its_end(repeats: list[int]) -> None:
    """As a clock does that takes full batches alone."""
    nets = [network(), network()]
    for net, engine in zip(nets, ("plain", "graph"), strict=True):
        stepper = make_stepper(net, data().train, FAST, seed=0, device=CPU, engine=cast(Any, engine))
        for epoch, steps in ((0, 9), (1, 2)):
            stepper.start_epoch(epoch)
            for _ in range(steps):
                stepper.step()
        stepper.start_epoch(0)
    assert furthest(*nets) < 1e-10 and len(repeats) == 1


def trained(
    folder: Path, *, device: torch.device = CPU, chosen: Recipe = FAST, **changes: Any
) -> tuple[TrainingResult, FlexNet]:
    net = network(drop=0.2)
    values: dict[str, Any] = {"resume": Slot(folder / "training.pt", every=1e9), "progress": Quiet(), "stop": never}
    options: dict[str, Any] = {"seed": 0, "device": device, "engine": "graph"} | values | changes
    return train(net, data(device), chosen, **options), net


@pytest.mark.parametrize("span", [pytest.param(50, marks=pytest.mark.slow), 4])
def test_stopping_anywhere_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeats: list[int], span: int
) -> None:
    """Also within a span that is then taken anew."""
    monkeypatch.setattr(windows, "SPAN", span)
    whole, net = trained(tmp_path / "whole")
    assert bool(repeats) == (span == 50)
    for at in (3, 14) if span == 50 else (8,):
        with pytest.raises(Interrupted):
            trained(tmp_path / str(at), stop=StopAt(at))
        repeats.clear()
        cut, other = trained(tmp_path / str(at))
        assert bool(repeats) == (span == 50 and at == 3)
        assert cut.history == whole.history and cut.metrics == whole.metrics
        assert furthest(net, other) == 0.0 and net.reserved() == other.reserved()


def test_state_without_windows_is_of_another_version(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "training.pt", every=1e9)
    with pytest.raises(Interrupted):
        trained(tmp_path, stop=StopAt(3))
    slot.save({**cast(Any, slot.load(CPU)), "stepper": {}})
    with pytest.raises(UserError, match="of another version"):
        trained(tmp_path)


def test_within_a_span_the_host_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = make_stepper(network(), data().train, ADAM, seed=0, device=CPU, engine="graph")
    stepper.start_epoch(0)

    def refuse(*_: object) -> None:
        raise AssertionError("the host waits for the device")

    with monkeypatch.context() as watched:
        for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero"):
            watched.setattr(Tensor, name, refuse)
        for _ in range(stepper.steps - 1):
            stepper.step()
        with pytest.raises(AssertionError, match="waits"):
            stepper.step()  # the last one ends in a look


def test_a_look_leaves_alone_what_a_graph_holds() -> None:
    """Windows that fit stay; the tensors of a graph do so in any case, or what outgrew would be noted elsewhere."""
    net = network()
    net.reserve(2)
    held, windows_before = (net.windows, net.outgrown), net.reserved()
    layer = windows.masks_of(net)[0]
    for sigma, changed in ((0.09, False), (0.17, True), (0.06, True)):
        with torch.no_grad():
            layer.mask_params[:, 1] = sigma
        assert net.look(range(1, 5)).changed == changed
        assert (net.reserved() == windows_before) != changed
        assert net.windows is held[0] and net.outgrown is held[1]
        windows_before = net.reserved()


@pytest.mark.slow
def test_a_run_that_diverges_ends(tmp_path: Path) -> None:
    """Masks that are no numbers count as the horizon, which no window lacks."""
    found, net = trained(tmp_path, chosen=moving(optimizer="sgd", lr=1e300, schedule="constant"))
    assert "not finite" in found.diverged and set(net.reserved()) == {(25, 25)}


def test_which_networks_have_windows() -> None:
    options: dict[str, Any] = {"seed": 0, "device": CPU, "engine": "graph"}
    net = network()
    assert type(make_stepper(net, data().train, ADAM, **options)) is WindowStepper
    assert net.margin == 2 and type(make_stepper(net, data().train, ADAM, **options)) is WindowStepper
    net.hold(5)
    assert type(make_stepper(net, data().train, ADAM, **options)) is GraphStepper
    with pytest.raises(UserError, match="asks the host within a step"):
        make_stepper(njet_resnet(8, 1, in_channels=3, num_classes=10, image_size=10), data().train, recipe(), **options)


@pytest.mark.cuda
@pytest.mark.parametrize("span", [50, 3])
def test_cuda_twenty_steps_in_float64(monkeypatch: pytest.MonkeyPatch, repeats: list[int], span: int) -> None:
    monkeypatch.setattr(windows, "SPAN", span)
    with machine.settings(1):
        plain, graph = (stepped(ADAM, engine, network(), device=CUDA)[0] for engine in ("plain", "graph"))
    assert furthest(plain, graph) < 1e-8 and bool(repeats) == (span == 50)


@pytest.mark.cuda
def test_cuda_the_host_never_waits_within_a_span() -> None:
    net = network(drop=0.2, dtype=torch.float32)
    stepper = make_stepper(net, data(CUDA).train, ADAM, seed=0, device=CUDA, engine="graph")
    stepper.start_epoch(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(stepper.steps - 1):
            stepper.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stepper.step()
    assert stepper.settled and stepper.sums[2].item() == 40


@pytest.mark.cuda
def test_cuda_stopping_changes_nothing(tmp_path: Path) -> None:
    with machine.settings(1):
        whole, net = trained(tmp_path / "whole", device=CUDA)
        for at in (4, 16):
            with pytest.raises(Interrupted):
                trained(tmp_path / str(at), device=CUDA, stop=StopAt(at))
            cut, other = trained(tmp_path / str(at), device=CUDA)
            assert cut.history == whole.history and furthest(net, other) == 0.0
