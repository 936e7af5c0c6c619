"""Eq. 8 and Algorithm 1: the gradients of one step, what is used and reported, what stops it, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from effconv import BudgetError, DivergedError, KernelSizes, Readings, Settings, SizeLearner, Step, learn_kernel_sizes
from effconv.budget import BUDGET_SCOPES, BUDGET_VALUES
from effconv.conversion import PADDINGS
from effconv.kernel_predictor import KERNEL_PREDICTORS
from effconv.mask import MASK_CENTRES, MASK_DENOMINATORS, size_mask
from effconv.size_predictor import SIZE_PREDICTORS
from effconv.snapping import READOUTS
from tests.effconv.helpers import TINY_BUDGET, Batch, TinyNet, random_batches

NAMES = ["first", "second"]


def _learn(**options: Any) -> KernelSizes:
    """Equal networks each time, whatever the caller's random state, which moves on from call to call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyNet()
    torch.rand(1)
    arguments: dict[str, Any] = {"model": model, "batches": random_batches(), "budget": TINY_BUDGET, "epochs": 2}
    arguments |= options
    return learn_kernel_sizes(arguments.pop("model"), arguments.pop("batches"), **arguments)


# ---------------------------------------------------------------- one step


def _learner(budget: int = TINY_BUDGET, lam: float = 2.0, **readings: str) -> SizeLearner:
    torch.manual_seed(0)
    model = TinyNet().double().train()
    model.drop.p = 0.0
    return SizeLearner(model, NAMES, Settings(budget=budget, lam=lam, tolerance=1.0), Readings(**readings))


def _class_loss(learner: SizeLearner, kernels: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """L_class of `TinyNet`, written out; each kernel stands in the middle of a 7 x 7 one."""
    net: Any = learner.cnn
    largest = []
    for kernel in kernels:
        size = kernel.shape[2]
        near, far = 3 - (size - 1) // 2, 3 - size // 2
        largest.append(F.pad(kernel, (near, far, near, far)))
    x = torch.relu(net.stem(images))
    x = torch.relu(net.norm(F.conv2d(x, largest[0], padding=3)))
    x = torch.relu(F.conv2d(x, largest[1], net.second.bias, stride=2, padding=3))
    return F.cross_entropy(net.head(x.mean((2, 3))), labels)


def _budget_loss(v: Tensor, budget: int) -> Tensor:
    """L_param with s in its value and v in its gradient."""
    s = v + (torch.floor(v + 0.5) - v).detach()
    p_pr = 16 * s[0] * s[0] + 32 * s[1] * s[1]
    return torch.log(p_pr / budget) if p_pr > budget else torch.log(budget / p_pr)


@pytest.mark.parametrize("budget", [150, 1_500])  # the sizes start above the one and below the other
@pytest.mark.parametrize("lam", [0.0, 0.3, 2.0])
def test_gradients_are_those_of_equation_8(budget: int, lam: float) -> None:
    learner = _learner(budget, lam)
    images, labels = random_batches(1)[0]
    images = images.double()
    v = learner.size_predictor()
    sizes = [math.floor(soft + 0.5) for soft in v.tolist()]
    predicted = learner.kernel_predictor(sizes)
    kernels = [size_mask(v[index], sizes[index]) * predicted[index] for index in range(2)]
    class_loss, budget_loss = _class_loss(learner, kernels, images, labels), _budget_loss(v, budget)
    parts = (learner.size_predictor, learner.kernel_predictor, learner.cnn)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    loss = class_loss + lam * budget_loss
    expected = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    (class_grad,) = torch.autograd.grad(class_loss, v, retain_graph=True)
    (budget_grad,) = torch.autograd.grad(lam * budget_loss, v)

    seen = learner.step(images, labels, F.cross_entropy)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-12, rtol=1e-9)
    assert class_grad.abs().min() > 1e-6  # else a flipped sign would pass
    torch.testing.assert_close(seen["class_grad"], class_grad, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(seen["budget_grad"], budget_grad, atol=1e-12, rtol=1e-9)
    assert seen["loss"] == pytest.approx(class_loss.item()) and seen["s"] == sizes
    assert seen["budget_loss"].item() == pytest.approx(budget_loss.item())
    assert seen["budget_error"] == pytest.approx((16 * sizes[0] ** 2 + 32 * sizes[1] ** 2) / budget - 1)


def test_class_gradient_on_v_is_that_of_finite_differences() -> None:
    learner = _learner()
    images, labels = random_batches(1)[0]
    v = learner.size_predictor().detach()
    sizes = [math.floor(soft + 0.5) for soft in v.tolist()]
    predicted = [kernel.detach() for kernel in learner.kernel_predictor(sizes)]

    def loss(v: Tensor) -> float:
        kernels = [size_mask(v[index], sizes[index]) * predicted[index] for index in range(2)]
        return _class_loss(learner, kernels, images.double(), labels).item()

    eps = torch.tensor([1e-5, 0.0], dtype=torch.float64), torch.tensor([0.0, 1e-5], dtype=torch.float64)
    expected = [(loss(v + e) - loss(v - e)) / 2e-5 for e in eps]
    seen = learner.step(images.double(), labels, F.cross_entropy)
    assert seen["class_grad"].tolist() == pytest.approx(expected, rel=1e-4)


def test_one_step_is_adamw_at_the_papers_rates() -> None:
    """1e-4 for whatever is not a predicted kernel, 1e-3 for the kernel predictor, weight decay 1e-3 for both."""
    learner = _learner()
    rates = [(learner.size_predictor, 1e-4), (learner.cnn, 1e-4), (learner.kernel_predictor, 1e-3)]
    before = [[parameter.detach().clone() for parameter in part.parameters()] for part, _ in rates]
    images, labels = random_batches(1)[0]
    learner.step(images.double(), labels, F.cross_entropy)
    for (part, lr), old_values in zip(rates, before, strict=True):
        for parameter, old in zip(part.parameters(), old_values, strict=True):
            assert parameter.grad is not None
            # the first step of Adam: both moments, freed from their bias, are g and g^2
            expected = old * (1 - lr * 1e-3) - lr * parameter.grad / (parameter.grad.abs() + 1e-8)
            torch.testing.assert_close(parameter.detach(), expected, atol=1e-12, rtol=1e-9)


def test_without_a_mask_the_class_loss_says_nothing_about_sizes() -> None:
    learner = _learner(300, mask_centre="none")
    images, labels = random_batches(1)[0]
    seen = learner.step(images.double(), labels, F.cross_entropy)
    assert not seen["class_grad"].any() and seen["budget_grad"].all()


# ---------------------------------------------------------------- what is used and what is reported


class _Shuffled(Dataset[Batch]):
    """Twelve images, augmented at random."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 8, 8, generator=generator)
        return image + 0.1 * torch.randn(3, 8, 8), torch.tensor(index % 3)


def _loader() -> DataLoader[Batch]:
    return DataLoader(_Shuffled(), batch_size=4, shuffle=True)


def test_every_batch_of_every_epoch_is_used_in_order() -> None:
    batches = random_batches(4)
    seen: list[Tensor] = []

    def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return F.cross_entropy(outputs, labels)

    steps: list[Step] = []
    _learn(batches=batches, epochs=3, loss_fn=loss_fn, callback=steps.append)
    assert [id(labels) for labels in seen] == [id(labels) for _ in range(3) for _, labels in batches]
    assert [(step.epoch, step.epochs, step.step) for step in steps] == [
        (e, 3, b) for e in (1, 2, 3) for b in (1, 2, 3, 4)
    ]


def test_a_callable_is_called_once_for_each_epoch_which_may_differ() -> None:
    calls: list[int] = []

    def batches() -> Iterator[Batch]:
        calls.append(len(calls))
        return iter(random_batches(1 + calls[-1]))

    steps: list[Step] = []
    _learn(batches=batches, epochs=3, callback=steps.append)
    assert calls == [0, 1, 2]
    assert [(step.epoch, step.step) for step in steps] == [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)]


def test_a_shuffling_loader_gives_each_epoch_another_order_and_all_its_images() -> None:
    seen: list[Tensor] = []

    def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return F.cross_entropy(outputs, labels)

    _learn(batches=_loader(), loss_fn=loss_fn)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(index % 3 for index in range(12))
    assert first.tolist() != second.tolist()


def test_callback_and_history_tell_the_same_story() -> None:
    steps: list[Step] = []
    result = _learn(callback=steps.append)
    assert len(result.history) == len(steps) == 6
    for point, step in zip(result.history, steps, strict=True):
        assert (point["epoch"], point["step"], point["loss"], point["s"]) == (
            step.epoch,
            step.step,
            step.loss,
            step.sizes,
        )
        assert point["s"] == [math.floor(v + 0.5) for v in point["v"]]
        p_pr = 16 * point["s"][0] ** 2 + 32 * point["s"][1] ** 2
        assert point["budget_error"] == step.budget_error == pytest.approx(p_pr / TINY_BUDGET - 1)
        assert point["budget_loss"] == pytest.approx(abs(math.log(p_pr / TINY_BUDGET)), abs=1e-6)
        assert len(point["class_grad"]) == len(point["budget_grad"]) == 2
        assert step.accuracy is not None and step.accuracy * 4 == round(step.accuracy * 4)


def test_sizes_are_read_from_the_moving_average_of_v_and_snapped() -> None:
    result = _learn(epochs=4, lr=1e-2)
    ema = list(result.history[0]["v"])
    for point in result.history:
        ema = [0.99 * old + 0.01 * new for old, new in zip(ema, point["v"], strict=True)]
    assert result.snapped.soft == pytest.approx(ema, abs=1e-5)
    assert list(result.sizes.values()) == result.snapped.sizes and list(result.sizes) == NAMES
    assert result.params == 16 * result.sizes["first"] ** 2 + 32 * result.sizes["second"] ** 2
    assert abs(result.params / TINY_BUDGET - 1) <= 0.01
    last = _learn(epochs=4, lr=1e-2, readings=Readings(readout="last"))
    assert last.snapped.soft == pytest.approx(last.history[-1]["v"])


def test_outputs_that_are_no_class_scores_have_no_accuracy() -> None:
    class Pair(TinyNet):
        def forward(self, images: Tensor) -> Any:
            scores = super().forward(images)
            return scores, scores

    steps: list[Step] = []
    _learn(model=Pair(), loss_fn=lambda outputs, labels: F.cross_entropy(outputs[1], labels), callback=steps.append)
    assert {step.accuracy for step in steps} == {None}


def test_equal_calls_give_equal_bits_and_other_seeds_other_ones() -> None:
    results = [_learn(batches=_loader(), seed=seed) for seed in (3, 3, 4)]
    assert results[0] == results[1]
    assert results[0].history[0]["v"] != results[2].history[0]["v"]


def test_the_start_depends_on_the_seed_and_not_on_the_data() -> None:
    starts = [
        _learn(batches=batches).history[0]["v"] for batches in (random_batches(), random_batches(1, 2), _loader())
    ]
    assert starts[0] == starts[1] == starts[2]


REGISTRIES: dict[str, Any] = {
    "size_predictor": SIZE_PREDICTORS,
    "kernel_predictor": KERNEL_PREDICTORS,
    "budget_value": BUDGET_VALUES,
    "budget_scope": BUDGET_SCOPES,
    "readout": READOUTS,
    "mask_centre": MASK_CENTRES,
    "mask_denominator": MASK_DENOMINATORS,
    "padding": PADDINGS,
}


@pytest.mark.parametrize(
    ("field", "name"), [(field, name) for field, registry in REGISTRIES.items() for name in registry]
)
def test_each_reading_runs_and_builds(field: str, name: str) -> None:
    budget = TINY_BUDGET + (200 if name == "total" else 0)
    result = _learn(budget=budget, epochs=1, readings=Readings(**{field: name}), tolerance=0.1)
    assert result.settings[field] == name and len(result.history) == 3
    assert result.build()(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_the_total_scope_counts_every_trainable_parameter() -> None:
    everything = sum(parameter.numel() for parameter in TinyNet().parameters())
    result = _learn(budget=everything, readings=Readings(budget_scope="total"), tolerance=0.001)
    assert result.params == TINY_BUDGET
    assert sum(parameter.numel() for parameter in result.build().parameters()) == everything


def test_double_precision_networks_work() -> None:
    batches = [(images.double(), labels) for images, labels in random_batches()]
    result = _learn(model=TinyNet().double(), batches=batches, device="cpu")
    assert result.build()(torch.zeros(2, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64


# ---------------------------------------------------------------- what stops it


@pytest.mark.parametrize(
    "batches", [iter(random_batches()), (batch for batch in random_batches())], ids=["iter", "generator"]
)
def test_an_iterator_is_good_for_one_pass_only(batches: Iterator[Batch]) -> None:
    with pytest.raises(ValueError, match="iterator"):
        _learn(batches=batches)
    assert len(list(batches)) == 3  # and nothing was taken from it


def test_an_epoch_without_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="epoch 1"):
        _learn(batches=[])
    once = iter(random_batches())
    with pytest.raises(ValueError, match="epoch 2"):
        _learn(batches=lambda: once)


def test_a_budget_out_of_reach_is_an_error_before_the_first_step() -> None:
    for budget, nearest in ((20, 48), (10_000, 48 * 49), (80, 96)):
        with pytest.raises(BudgetError, match=f"nearest reachable: .*{nearest:,}"):
            _learn(budget=budget, callback=lambda step: pytest.fail("no step should be taken"))


def test_a_loss_that_is_not_finite_stops_it() -> None:
    images, labels = random_batches(1)[0]
    with pytest.raises(DivergedError, match="nan"):
        _learn(batches=[(images * math.nan, labels)])
    with pytest.raises(DivergedError, match="inf"):
        _learn(loss_fn=lambda outputs, labels: outputs.sum() * 0 + math.inf)


def test_an_unknown_reading_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="mask_centre: no reading 'middle'; there are pixel, printed"):
        Readings(mask_centre="middle")


# ---------------------------------------------------------------- resuming


class _Stop(Exception):
    pass


def _stop_at(*places: tuple[int, int]) -> Callable[[Step], None]:
    """A callback that stops at each of the given (epoch, step)s the first time it comes there."""
    left = list(places)

    def callback(step: Step) -> None:
        if (step.epoch, step.step) in left:
            left.remove((step.epoch, step.step))
            raise _Stop

    return callback


def _learn_with_stops(checkpoint: Path, *places: tuple[int, int], **options: Any) -> KernelSizes:
    callback = _stop_at(*places)
    for _ in places:
        with pytest.raises(_Stop):
            _learn(checkpoint=checkpoint, callback=callback, **options)
    return _learn(checkpoint=checkpoint, callback=callback, **options)


@pytest.mark.parametrize(
    "places",
    [[(1, 1)], [(1, 2)], [(1, 3)], [(2, 1)], [(2, 2)], [(3, 3)], [(1, 2), (1, 3), (2, 1), (3, 2)]],
    ids=lambda places: "-".join(f"{epoch}.{step}" for epoch, step in places),
)
def test_a_resumed_run_equals_an_uninterrupted_one(places: list[tuple[int, int]], tmp_path: Path) -> None:
    options = {"batches": _loader(), "epochs": 3, "lr": 1e-2}
    result = _learn_with_stops(tmp_path / "deep" / "run.pt", *places, **options)
    assert result == _learn(**options)
    assert [(point["epoch"], point["step"]) for point in result.history] == [
        (e, b) for e in (1, 2, 3) for b in (1, 2, 3)
    ]


def test_resuming_calls_a_callable_for_the_epochs_already_done_as_well(tmp_path: Path) -> None:
    def counting() -> tuple[list[int], Callable[[], list[Batch]]]:
        calls: list[int] = []

        def batches() -> list[Batch]:
            calls.append(len(calls))
            return random_batches(3)[calls[-1] :]  # an epoch of its own each time

        return calls, batches

    expected = _learn(batches=counting()[1], epochs=3)
    callback = _stop_at((2, 1))
    with pytest.raises(_Stop):
        _learn(batches=counting()[1], epochs=3, checkpoint=tmp_path / "run.pt", callback=callback)
    calls, batches = counting()
    assert _learn(batches=batches, epochs=3, checkpoint=tmp_path / "run.pt", callback=callback) == expected
    assert calls == [0, 1, 2]


def test_a_crash_between_saves_goes_on_from_the_last_one(tmp_path: Path) -> None:
    """`checkpoint_every=0` saves after each step; what raises here is no callback, so nothing saves at the crash."""
    left = [5]

    def crashing(outputs: Tensor, labels: Tensor) -> Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise _Stop
        return F.cross_entropy(outputs, labels)

    options = {"batches": _loader(), "epochs": 2, "loss_fn": crashing}
    with pytest.raises(_Stop):
        _learn(checkpoint=tmp_path / "run.pt", checkpoint_every=0.0, **options)
    steps: list[Step] = []
    resumed = _learn(checkpoint=tmp_path / "run.pt", callback=steps.append, **options)
    assert [(step.epoch, step.step) for step in steps] == [(2, 2), (2, 3)]
    assert resumed == _learn(**options)


def test_a_finished_checkpoint_gives_its_result_at_once(tmp_path: Path) -> None:
    first = _learn(checkpoint=tmp_path / "run.pt")
    assert _learn(checkpoint=tmp_path / "run.pt", callback=lambda step: pytest.fail("nothing is left to do")) == first
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]  # no half-written file is left


def test_without_a_checkpoint_an_exception_in_the_callback_just_passes() -> None:
    with pytest.raises(_Stop):
        _learn(callback=_stop_at((1, 1)))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"epochs": 3},
        {"lam": 1.0},
        {"readings": Readings(mask_centre="fixed")},
        {"layers": "first", "budget": 144},
        {"model": TinyNet(width=8), "budget": 4 * TINY_BUDGET},
        {"model": TinyNet(classes=5)},
        {"model": TinyNet(kernel_size=5)},
    ],
    ids=["seed", "epochs", "lambda", "reading", "layers", "width", "classes", "kernel-size"],
)
def test_the_checkpoint_of_another_call_is_an_error(other: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(_Stop):
        _learn(checkpoint=tmp_path / "run.pt", callback=_stop_at((1, 2)))
    with pytest.raises(ValueError, match=r"run\.pt"):
        _learn(checkpoint=tmp_path / "run.pt", **other)


def test_a_damaged_checkpoint_is_an_error_that_names_the_mend(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    _learn(checkpoint=file)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint", whole[:100] + b"x" * 900 + whole[1000:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="delete it"):
            _learn(checkpoint=file)
    torch.save(nn.Linear(1, 1).state_dict(), file)
    with pytest.raises(ValueError, match="delete it"):
        _learn(checkpoint=file)
