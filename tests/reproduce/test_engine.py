"""The two engines agree: the same images, the same weights; a graph is a replayed step; stopping changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from reproduce.errors import Interrupted, UserError
from reproduce.run import machine
from reproduce.run.batches import Batches
from reproduce.run.datasets import Dataset, Split
from reproduce.run.engine import make_stepper
from reproduce.run.engine.graph import GraphStepper
from reproduce.run.engine.tables import Tables
from reproduce.run.outcome import TrainingResult
from reproduce.run.resume import Slot
from reproduce.run.training import train
from reproduce.specs import ParameterGroup, Recipe
from tests.reproduce.run_samples import Quiet, StopAt, never, recipe, synthetic

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GROUPS = (
    ParameterGroup(names="*.bias", lr_factor=0.5, weight_decay=0.0),
    ParameterGroup(names="head.*", lr_factor=2.0),
)
RECIPES = {
    "adam": recipe(lr=0.003, batch_size=12),
    "adamw": recipe(optimizer="adamw", lr=0.003, weight_decay=0.1, groups=GROUPS, batch_size=12),
    "sgd": recipe(optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3, batch_size=12),
    "groups": recipe(optimizer="sgd", lr=0.05, momentum=0.9, groups=GROUPS, schedule="steps", milestones=(1.5,)),
    "reflected": recipe(augmentation="flip_crop_reflect", drop_last=True, batch_size=12, lr=0.003),
    "distorted": recipe(augmentation="vgg5", lr=0.003),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Net(nn.Module):
    """(N, 3, H, W) -> (N, 10), with batch norm and dropout, in the type of its weights."""

    def __init__(self, *, drop: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(drop)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.body(images.to(self.body.weight.dtype))).relu()
        return self.head(self.drop(x.mean(dim=(2, 3))))


def network(*, drop: float = 0.0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Net(drop=drop)


def on(split: Split, device: torch.device) -> Split:
    return Split(images=split.images.to(device), labels=split.labels.to(device))


def stepped(
    chosen: Recipe,
    engine: str,
    *,
    steps: int = 20,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float64,
    drop: float = 0.0,
    **options: Any,
) -> tuple[nn.Module, list[float]]:
    """The network after so many steps over as many epochs as they need, and the mean loss of each step."""
    net = network(drop=drop).to(dtype)
    data = on(synthetic(40, 1, 12).train, device)
    stepper = make_stepper(net, data, chosen, seed=0, device=device, engine=cast(Any, engine), **options)
    torch.manual_seed(7)
    sums = []
    for step in range(steps):
        epoch, within = divmod(step, stepper.steps)
        if not within:
            stepper.start_epoch(epoch)
        stepper.step()
        sums.append(stepper.sums.clone())
    found = torch.stack(sums).cpu()
    before = torch.where(torch.arange(steps)[:, None] % stepper.steps == 0, 0.0, found.roll(1, 0))
    return net, ((found - before)[:, 0] / (found - before)[:, 2]).tolist()


def furthest(first: nn.Module, second: nn.Module) -> float:
    """The largest difference of any number of two networks."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps_of_both_engines_give_the_same_weights(name: str) -> None:
    """Six epochs with flips, crops, rates that change within an epoch and, but for one recipe, a short last batch."""
    chosen = RECIPES[name].model_copy(update={"epochs": 8})
    plain, losses = stepped(chosen, "plain")
    graph, others = stepped(chosen, "graph")
    assert furthest(plain, graph) < 1e-10
    assert losses == pytest.approx(others, abs=1e-10)
    assert furthest(plain, network().double()) > 1e-3  # both went somewhere


def test_dropout_and_a_redrawn_rate_are_the_same() -> None:
    assert furthest(stepped(recipe(), "plain", drop=0.5)[0], stepped(recipe(), "graph", drop=0.5)[0]) < 1e-10
    data, nets = synthetic().train, [network(), network()]
    for net, engine in zip(nets, ("plain", "graph"), strict=True):
        stepper = make_stepper(net, data, recipe(), seed=0, device=CPU, engine=cast(Any, engine))
        rates = []
        for factor in (1.0, 0.25):
            stepper.start_epoch(1, factor=factor)
            stepper.step()
            rates.append(stepper.lr)
            assert float(stepper.optimizer.param_groups[0]["lr"]) == stepper.lr
        assert rates[1] == 0.25 * rates[0] > 0
    assert furthest(*nets) < 1e-7


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("augmentation", ["none", "flip_crop", "flip_crop_reflect"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tables_give_the_images_of_the_plain_path(
    augmentation: str, layout: torch.memory_format, channels: int
) -> None:
    split = synthetic(22, 1, 9).train
    split = Split(images=split.images[:, :channels, :, :8], labels=torch.arange(22))  # higher than wide
    chosen = recipe(batch_size=5, augmentation=augmentation, normalisation="unit")
    counter = torch.zeros(1, dtype=torch.int64)
    tables = Tables(split, chosen, counter, layout)
    values: dict[str, Any] = {"split": split, "seed": 3, "stream": (), "batch_size": 5, "normalisation": "unit"}
    for epoch in (1, 2):
        batches = Batches(epoch=epoch, augmentation=augmentation, **values)
        tables.start(batches)
        counter.zero_()
        for images, labels in batches:
            mine, numbers = tables.batch(len(labels))
            assert torch.equal(mine, images) and torch.equal(numbers, labels)
            assert mine.is_contiguous(memory_format=layout)
            counter += 1
    assert counter.item() == 5


def trained(folder: Path, engine: str, **changes: Any) -> tuple[TrainingResult, nn.Module]:
    net = network(drop=0.3)
    values: dict[str, Any] = {"resume": Slot(folder / "training.pt", every=1e9), "progress": Quiet(), "stop": never}
    values |= {"recipe": recipe(groups=GROUPS), "engine": engine, "device": CPU}
    values |= changes
    device = values["device"]
    data = synthetic()
    data = Dataset(name="", train=on(data.train, device), test=on(data.test, device), origin=data.origin)
    chosen = values.pop("recipe")
    return train(net, data, chosen, seed=0, **values), net


@pytest.mark.parametrize("augmentation", ["flip_crop", "vgg5"])
def test_stopping_a_graph_run_anywhere_changes_nothing(tmp_path: Path, augmentation: str) -> None:
    chosen = recipe(groups=GROUPS, augmentation=augmentation)
    whole, net = trained(tmp_path / "whole", "graph", recipe=chosen)
    for at in (2, 3, 5, 7):
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            trained(folder, "graph", recipe=chosen, stop=StopAt(at))
        cut, other = trained(folder, "graph", recipe=chosen)
        assert cut.history == whole.history and cut.metrics == whole.metrics
        assert furthest(net, other) == 0.0


def test_a_whole_run_is_the_plain_ones(tmp_path: Path) -> None:
    chosen = recipe(schedule="redrawn", epochs=8, lr=0.1)
    plain, _ = trained(tmp_path / "a", "plain", recipe=chosen)
    graph, _ = trained(tmp_path / "b", "graph", recipe=chosen)
    assert len({point["lr"] for point in plain.history}) > 1
    for mine, theirs in zip(graph.history, plain.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_a_rehearsal_leaves_no_trace() -> None:
    """What a capture is preceded by, between two steps and before the first, while momentum is still to come."""
    chosen = recipe(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3)
    nets = [network(drop=0.5), network(drop=0.5)]
    for net in nets:
        stepper = make_stepper(net, synthetic().train, chosen, seed=0, device=CPU, engine="graph")
        assert isinstance(stepper, GraphStepper)
        torch.manual_seed(7)
        stepper.start_epoch(0)
        for _ in range(3):
            if net is nets[0]:
                stepper.rehearse()
            stepper.step()
    assert furthest(*nets) == 0.0


def test_laps_name_the_parts() -> None:
    for engine, expected in {
        "plain": ["data", "schedule", "forward", "backward", "optimizer", "bookkeeping"],
        "graph": ["tables", "steps"],
    }.items():
        heard: list[str] = []
        stepper = make_stepper(
            network(), synthetic().train, recipe(), seed=0, device=CPU, engine=cast(Any, engine), lap=heard.append
        )
        stepper.start_epoch(0)
        stepper.step()
        assert heard == expected


def test_what_an_engine_cannot_do_names_the_mend() -> None:
    net, data, options = network(), synthetic().train, {"seed": 0, "device": CPU}
    with pytest.raises(UserError, match="float32 alone"):
        make_stepper(net, data, recipe(), precision="bf16", **options)  # type: ignore[arg-type]
    stepper = make_stepper(net, data, recipe(), engine="graph", **options)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="start_epoch"):
        stepper.step()
    net.head.needs_host = True  # type: ignore[assignment]
    with pytest.raises(UserError, match="--engine plain"):
        make_stepper(net, data, recipe(), engine="graph", **options)  # type: ignore[arg-type]
    make_stepper(net, data, recipe(), **options)  # type: ignore[arg-type]


def test_tf32_is_set_only_where_asked() -> None:
    for precision, expected in {"float32": False, "tf32": True, "bf16": False}.items():
        with machine.settings(1, cast(Any, precision)):
            assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is expected


@pytest.mark.cuda
@pytest.mark.parametrize("name", RECIPES)
def test_cuda_twenty_steps_in_float64(name: str) -> None:
    chosen = RECIPES[name].model_copy(update={"lr": 1e-3, "epochs": 8})  # rates are float32 in CUDA's fused optimisers
    with machine.settings(1):
        plain, graph = (stepped(chosen, engine, device=CUDA)[0] for engine in ("plain", "graph"))
    assert furthest(plain, graph) < 1e-8


@pytest.mark.cuda
def test_cuda_gradients_of_one_step_in_float32() -> None:
    chosen = RECIPES["sgd"].model_copy(update={"batch_size": 40})
    with machine.settings(1):
        plain, graph = (
            stepped(chosen, engine, steps=1, device=CUDA, dtype=torch.float32)[0] for engine in ("plain", "graph")
        )
    for (name, mine), other in zip(graph.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        assert (mine.grad - other.grad).norm() <= 1e-4 * other.grad.norm(), name


@pytest.mark.cuda
@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_cuda_a_replay_is_the_step_itself(monkeypatch: pytest.MonkeyPatch, drop: float) -> None:
    """Also with dropout: a replay goes on in the stream of random numbers as a step does."""
    with machine.settings(1):
        captured, losses = stepped(RECIPES["adam"], "graph", device=CUDA, dtype=torch.float32, drop=drop)
        monkeypatch.setattr(GraphStepper, "capture", lambda self: None)
        step_by_step, others = stepped(RECIPES["adam"], "graph", device=CUDA, dtype=torch.float32, drop=drop)
    assert furthest(captured, step_by_step) < 1e-5 and losses == pytest.approx(others, rel=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "band"), [("tf32", 0.002), ("bf16", 0.01)])
def test_cuda_losses_of_twenty_steps_in_lower_precision(precision: Any, band: float) -> None:
    """Within the band, relative to each float32 loss; weights and the statistics of batch norm stay float32."""
    values: dict[str, Any] = {"device": CUDA, "dtype": torch.float32}
    with machine.settings(1):
        _, expected = stepped(RECIPES["adam"], "plain", **values)
    for engine in ("plain", "graph"):
        with machine.settings(1, precision):
            net, losses = stepped(RECIPES["adam"], engine, precision=precision, **values)
        assert losses == pytest.approx(expected, rel=band)
        assert all(value.dtype in (torch.float32, torch.int64) for value in net.state_dict().values())


@pytest.mark.cuda
def test_cuda_the_host_never_waits_within_an_epoch() -> None:
    data = on(synthetic().train, CUDA)
    stepper = make_stepper(network(), data, RECIPES["adam"], seed=0, device=CUDA, engine="graph")
    stepper.start_epoch(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(stepper.steps):
            stepper.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert stepper.sums[2].item() == 40


@pytest.mark.cuda
def test_cuda_a_network_that_asks_the_host_is_refused() -> None:
    class Asking(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float(self.body.weight.sum().item() < 1e9)

    stepper = make_stepper(Asking(), on(synthetic().train, CUDA), recipe(), seed=0, device=CUDA, engine="graph")
    with pytest.raises(UserError, match="--engine plain"):
        stepper.start_epoch(0)


@pytest.mark.cuda
def test_cuda_stopping_a_graph_run_changes_nothing(tmp_path: Path) -> None:
    with machine.settings(1):
        whole, net = trained(tmp_path / "whole", "graph", device=CUDA)
        for at in (2, 5):
            with pytest.raises(Interrupted):
                trained(tmp_path / str(at), "graph", device=CUDA, stop=StopAt(at))
            cut, other = trained(tmp_path / str(at), "graph", device=CUDA)
            assert cut.history == whole.history and furthest(net, other) == 0.0
