"""Engine `graph`, all sizes in one form of operations, and engine `loop`, layer by layer, equal the plain engine."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv import DivergedError, KernelSizes, Readings, Settings, SizeLearner, Step, learn_kernel_sizes
from effconv.conversion import PADDINGS, PredictedConv2d
from effconv.embedded import Embedding, canvas_steps
from effconv.kernel_predictor import GRUPredictor, Layer, grid_positions, per_position
from effconv.mask import mask_profiles
from tests.effconv.helpers import TINY_BUDGET, Batch, TinyNet, random_batches


class Mixed(nn.Module):
    """Learnable convolutions of odd and even sizes, strides 1 and 2, too much and too little padding. 3 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.usual = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.wide = nn.Conv2d(4, 6, 4, stride=2, padding=3)
        self.same = nn.Conv2d(6, 4, 2, padding="same")
        self.narrow = nn.Conv2d(4, 5, 5, stride=2, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem(images))
        x = torch.relu(self.norm(self.usual(x)))
        x = torch.relu(self.same(torch.relu(self.wide(x))))
        scores: Tensor = self.head(self.narrow(x).mean((2, 3)))
        return scores


OTHERS = {"padding": "alternate", "mask_centre": "printed", "budget_value": "hard_sq"}
LAYERS = ["usual", "wide", "same", "narrow"]
BUDGET = 1_500


def _learner(
    engine: str, dtype: torch.dtype = torch.float64, device: str = "cpu", **readings: Any
) -> SizeLearner:
    torch.manual_seed(0)
    model = Mixed().to(dtype).train()
    settings = Settings(budget=BUDGET, lr=2e-2, tolerance=1.0)
    learner = SizeLearner(model, LAYERS, settings, Readings(**readings), engine, report_every=7)
    if device != "cpu":  # made on the CPU, for equal starts
        moved = SizeLearner(model.to(device), LAYERS, settings, Readings(**readings), engine, report_every=7)
        moved.load_state(learner.state())
        return moved
    return learner


def _parameters(learner: SizeLearner) -> list[tuple[str, nn.Parameter]]:
    parts = {"theta_sp": learner.size_predictor, "theta_kp": learner.kernel_predictor, "theta_c": learner.cnn}
    return [(f"{part}.{name}", value) for part, net in parts.items() for name, value in net.named_parameters()]


def _course(learner: SizeLearner, steps: int = 20, short_last: bool = False) -> list[dict[str, Any]]:
    like = learner.cost_tensor
    found: list[dict[str, Any]] = []
    for step in range(steps):
        torch.manual_seed(step)
        size = 2 if short_last and step % 4 == 3 else 4
        images, labels = torch.randn(size, 3, 8, 8, dtype=like.dtype), torch.randint(3, (size,))
        if step % 2 and not short_last:  # else there would be more kinds of batches than graphs
            images = images.contiguous(memory_format=torch.channels_last)
        found += learner.advance(images.to(like.device), labels.to(like.device), F.cross_entropy)
    return found + learner.flush()


def _assert_same_course(a: list[dict[str, Any]], b: list[dict[str, Any]], tolerance: float) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys() and one["s"] == other["s"]
        assert one["accuracy"] == pytest.approx(other["accuracy"])
        for key in one.keys() - {"s", "accuracy"}:
            wanted, got = (torch.as_tensor(point[key], dtype=torch.float64).cpu() for point in (one, other))
            torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance, msg=key)


def _assert_same_weights(a: SizeLearner, b: SizeLearner, tolerance: float) -> None:
    for (name, one), (_, other) in zip(_parameters(a), _parameters(b), strict=True):
        torch.testing.assert_close(other.cpu(), one.cpu(), atol=tolerance, rtol=tolerance, msg=name)
    torch.testing.assert_close(b.ema.cpu(), a.ema.cpu(), atol=tolerance, rtol=tolerance)


# ---------------------------------------------------------------- kernels on canvases


@pytest.mark.parametrize("max_size", [5, 6, 7])
def test_canvases_have_the_kernels_places(max_size: int) -> None:
    for size in range(1, max_size + 1):
        steps = canvas_steps(size, max_size)
        assert [steps[place] for place in grid_positions(size, max_size)] == list(range(size * size))
        assert steps.count(max_size**2) == max_size**2 - size * size
    assert canvas_steps(2, 5, extra_left=True)[6:8] == [0, 1] and canvas_steps(2, 5)[12:14] == [0, 1]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("max_size", [6, 7])
def test_a_canvas_convolves_as_its_kernel(max_size: int, padding: str) -> None:
    """All sizes at once, for the paddings and strides that `Mixed` has, and its gradients to states and masks."""
    torch.manual_seed(0)
    convs = [conv for name in LAYERS if isinstance(conv := Mixed().double().get_submodule(name), nn.Conv2d)]
    predictor = per_position([Layer(c.out_channels, c.in_channels, c.kernel_size[0]) for c in convs], max_size)
    predictor.double()
    assert isinstance(predictor, GRUPredictor)
    v = (torch.rand(4, dtype=torch.float64) * (max_size - 1) + 1).requires_grad_()
    inputs = [torch.randn(2, c.in_channels, side, side).double() for c, side in zip(convs, (5, 8, 9, 6), strict=True)]
    layers = [
        PredictedConv2d(conv, max_size, extra_left=PADDINGS[padding](index)) for index, conv in enumerate(convs)
    ]

    def run(kernels: list[Tensor]) -> list[Tensor]:
        outputs = []
        for layer, kernel, images in zip(layers, kernels, inputs, strict=True):
            layer.kernel = kernel
            outputs.append(layer(images))
        loss = torch.stack([(out * out.detach().cos()).sum() for out in outputs]).sum()
        return outputs + list(torch.autograd.grad(loss, [v, *predictor.parameters()]))

    for first in range(max_size):  # each layer sees each size
        sizes = [(first + 2 * index) % max_size + 1 for index in range(4)]
        s = torch.tensor(sizes)
        g = mask_profiles(v, s, max_size, centre="pixel")
        masks = g.unsqueeze(2) * g.unsqueeze(1)
        wanted = run(predictor.modulated(sizes, masks))
        g = mask_profiles(v, s, max_size, centre="pixel")
        got = run(Embedding(predictor, PADDINGS[padding]).kernels(s, g.unsqueeze(2) * g.unsqueeze(1)))
        for a, b in zip(wanted, got, strict=True):
            torch.testing.assert_close(b, a, atol=1e-10, rtol=1e-10)


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize(("engine", "readings"), [("graph", {}), ("graph", OTHERS), ("loop", {})])
def test_twenty_steps_equal_those_of_the_plain_engine(engine: str, readings: dict[str, Any]) -> None:
    plain, other = _learner("plain", **readings), _learner(engine, **readings)
    wanted, got = _course(plain), _course(other)
    seen = {size for point in wanted for size in point["s"]}
    moved = sum(a["s"] != b["s"] for a, b in itertools.pairwise(wanted))
    assert len(seen) >= 4 and moved >= 5  # else nothing would be shown of sizes that move
    _assert_same_course(wanted, got, 1e-10)
    _assert_same_weights(plain, other, 1e-10)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(other.cnn(images), plain.cnn(images), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("engine", ["graph", "loop"])
def test_gradients_of_one_step_in_single_precision(engine: str) -> None:
    plain, other = _learner("plain", torch.float32), _learner(engine, torch.float32)
    _course(plain, 1)
    _course(other, 1)
    for (name, one), (_, two) in zip(_parameters(plain), _parameters(other), strict=True):
        assert one.grad is not None and two.grad is not None, name
        assert (two.grad - one.grad).norm() <= 1e-4 * one.grad.norm(), name


def test_kernels_of_the_loop_in_single_precision() -> None:
    plain, loop = _learner("plain", torch.float32), _learner("loop", torch.float32)
    plain.set_kernels()
    loop.set_kernels()
    for one, other in zip(plain.predicted, loop.predicted, strict=True):
        torch.testing.assert_close(other.kernel, one.kernel, atol=1e-6, rtol=1e-6)


def test_a_mask_of_ones_says_nothing_about_sizes() -> None:
    (seen,) = _course(_learner("graph", mask_centre="none"), 1)
    assert not any(seen["class_grad"]) and all(seen["budget_grad"])


def test_findings_come_in_order_when_there_is_no_more_room() -> None:
    learner = _learner("graph")
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(3, (4,))
    counts = [len(learner.advance(images, labels, F.cross_entropy)) for _ in range(16)]
    assert counts == [0] * 6 + [7] + [0] * 6 + [7, 0, 0]
    assert len(learner.flush()) == 2 and learner.flush() == []
    assert learner.step(images, labels, F.cross_entropy)["loss"] > 0


def test_engines_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="no engine 'fast'; there are plain, graph, loop"):
        _learner("fast")
    for engine in ("graph", "loop"):
        with pytest.raises(ValueError, match="kernel predictor 'free'; use engine='plain'"):
            _learner(engine, kernel_predictor="free")
    with pytest.raises(ValueError, match="report_every is 0"):
        SizeLearner(Mixed(), LAYERS, Settings(budget=BUDGET, tolerance=1.0), Readings(), "graph", report_every=0)


# ---------------------------------------------------------------- from start to end


class _Stop(Exception):
    pass


def _learn(engine: str = "graph", **options: Any) -> KernelSizes:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyNet().double()
    batches: list[Batch] = [(images.double(), labels) for images, labels in random_batches(5)]
    arguments: dict[str, Any] = {"batches": batches, "budget": TINY_BUDGET, "epochs": 3, "lr": 1e-2, "report_every": 3}
    arguments |= options
    return learn_kernel_sizes(model, arguments.pop("batches"), engine=engine, **arguments)


def test_history_and_callbacks_equal_those_of_the_plain_engine() -> None:
    told: dict[str, list[Step]] = {"plain": [], "graph": []}
    found = {engine: _learn(engine, callback=told[engine].append) for engine in told}
    plain, graph = ([point | {"accuracy": None} for point in found[engine].history] for engine in told)
    _assert_same_course(plain, graph, 1e-10)
    assert found["graph"].sizes == found["plain"].sizes
    assert found["graph"].snapped.soft == pytest.approx(found["plain"].snapped.soft, abs=1e-10)
    for one, other in zip(*told.values(), strict=True):
        assert (one.epoch, one.step, one.sizes, one.accuracy) == (other.epoch, other.step, other.sizes, other.accuracy)
        assert one.loss == pytest.approx(other.loss, abs=1e-10) and one.budget_error == other.budget_error


def test_a_loss_that_is_not_finite_is_noticed_when_it_is_read() -> None:
    batches = [(images.double(), labels) for images, labels in random_batches(5)]
    batches[1] = (batches[1][0] * math.nan, batches[1][1])
    steps: list[Step] = []
    with pytest.raises(DivergedError, match="nan"):
        _learn(batches=batches, callback=steps.append)
    assert not steps
    with pytest.raises(DivergedError, match="inf"):
        _learn(loss_fn=lambda outputs, labels: outputs.sum() * 0 + math.inf, report_every=1)


@pytest.mark.parametrize("places", [[(1, 1)], [(2, 2), (3, 5)]], ids=str)
def test_a_resumed_run_equals_an_uninterrupted_one(places: list[tuple[int, int]], tmp_path: Path) -> None:
    left = list(places)

    def callback(step: Step) -> None:
        if (step.epoch, step.step) in left:
            left.remove((step.epoch, step.step))
            raise _Stop

    for _ in places:
        with pytest.raises(_Stop):
            _learn(checkpoint=tmp_path / "run.pt", callback=callback)
    assert _learn(checkpoint=tmp_path / "run.pt", checkpoint_every=0.0) == _learn()


def test_a_checkpoint_of_another_engine_is_an_error(tmp_path: Path) -> None:
    for one, other in (("graph", "plain"), ("plain", "graph")):
        _learn(one, epochs=1, checkpoint=tmp_path / one)
        with pytest.raises(ValueError, match="differs in: engine"):
            _learn(other, epochs=1, checkpoint=tmp_path / one)


# ---------------------------------------------------------------- CUDA


@pytest.mark.cuda
def test_captured_steps_equal_the_plain_ones() -> None:
    plain, graph = _learner("plain", device="cuda"), _learner("graph", device="cuda")
    wanted, got = _course(plain, 24, short_last=True), _course(graph, 24, short_last=True)
    assert graph.graph is not None and len(graph.graph.run.graphs) == 2
    _assert_same_course(wanted, got, 1e-8)
    _assert_same_weights(plain, graph, 1e-8)


@pytest.mark.cuda
def test_replays_do_not_wait_for_the_device() -> None:
    learner = _learner("graph", torch.float32, "cuda")
    images, labels = torch.randn(4, 3, 8, 8, device="cuda"), torch.randint(3, (4,), device="cuda")
    for _ in range(7):  # eager, captured, replayed, and read
        learner.advance(images, labels, F.cross_entropy)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):
            assert learner.advance(images, labels, F.cross_entropy) == []
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(learner.flush()) == 6


@pytest.mark.cuda
def test_a_step_that_cannot_be_captured_names_the_mend() -> None:
    learner = _learner("graph", torch.float32, "cuda")
    images, labels = torch.randn(4, 3, 8, 8, device="cuda"), torch.randint(3, (4,), device="cuda")

    def waiting(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels) * (1.0 if outputs.sum().item() else 2.0)

    with pytest.raises(RuntimeError, match="use engine='plain'"):
        for _ in range(4):
            learner.advance(images, labels, waiting)


@pytest.mark.parametrize("engine", ["plain", "graph"])
def test_autocast_computes_the_cnn_alone_in_bfloat16(engine: str) -> None:
    torch.manual_seed(0)
    model, seen = Mixed().train(), set()
    readings, settings = Readings(), Settings(budget=BUDGET, tolerance=1.0)

    def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.add(outputs.dtype)
        return F.cross_entropy(outputs, labels)

    exact, rough = (
        SizeLearner(model, LAYERS, settings, readings, engine, autocast=kind) for kind in (None, torch.bfloat16)
    )
    rough.load_state(exact.state())
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    found = rough.step(images, labels, loss_fn)
    assert seen == {torch.bfloat16}
    assert found["loss"] == pytest.approx(exact.step(images, labels, F.cross_entropy)["loss"], rel=0.02)
    assert all(parameter.dtype == torch.float32 for _, parameter in _parameters(rough))
