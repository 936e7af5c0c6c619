"""Any CNN: which convolutions are chosen and why the others are not, and that the caller's network stays as it was."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from effconv import KernelSizes, Readings, Settings, SizeLearner, learn_kernel_sizes
from effconv.conversion import find_learnable
from effconv.snapping import count
from tests.effconv.helpers import TINY_BUDGET, TinyNet, UserCNN, convolutions, random_batches

LEFT_ALONE = {
    "entry": "the first convolution",
    "depthwise": "depthwise",
    "pointwise": "1 x 1",
    "grouped": "grouped",
    "dilated": "dilated",
    "circular": "padding mode 'circular'",
    "oblong": "not square",
    "up": "transposed",
    "spare": "never called",
}
LEARNABLE = {"plain": 64, "strided": 256, "shared": 256, "unpadded": 64}  # c_l c_{l-1}, in forward order
BUDGET = count([3, 4, 3, 5], list(LEARNABLE.values()))


def _learn(**options: Any) -> KernelSizes:
    torch.manual_seed(0)
    batches = random_batches(2, side=16, classes=10)
    return learn_kernel_sizes(UserCNN(), batches, **({"budget": BUDGET, "epochs": 1} | options))


def test_a_network_of_the_users_own() -> None:
    result = _learn()
    assert list(result.sizes) == list(LEARNABLE)
    assert result.left_alone == LEFT_ALONE
    assert abs(result.params / BUDGET - 1) <= 0.01
    network = result.build()
    for name, size in result.sizes.items():
        (conv,) = convolutions(network.get_submodule(name))
        assert conv.kernel_size == (size, size)
    for side in (12, 15, 16):
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)


def test_sizes_begin_at_the_networks_own() -> None:
    for seed in range(3):
        v = _learn(seed=seed).history[0]["v"]
        assert v == pytest.approx([3, 4, 3, 5], abs=1.0)


def test_a_convolution_used_twice_has_one_size_and_is_still_used_twice() -> None:
    torch.manual_seed(0)
    learner = SizeLearner(UserCNN(), list(LEARNABLE), Settings(budget=BUDGET), Readings())
    shapes: list[torch.Size] = []
    for conv in learner.predicted:
        conv.register_forward_hook(lambda conv, images, output: shapes.append(conv.kernel.shape))
    seen = learner.step(*random_batches(1, side=16, classes=10)[0], F.cross_entropy)
    plain, strided, shared, unpadded = seen["s"]
    assert [shape[2] for shape in shapes] == [plain, strided, shared, shared, unpadded]


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("s*", ["strided", "shared"]),
        (["plain", "unpadded"], ["plain", "unpadded"]),
        ("*", ["entry", *LEARNABLE]),  # the first one too, where the caller asks for it
        (lambda name, module: module.bias is not None and module.in_channels == 8, ["plain", "unpadded"]),
    ],
)
def test_layers_chooses_among_the_possible_ones(layers: Any, chosen: list[str]) -> None:
    costs = {"entry": 24, **LEARNABLE}
    own = {"entry": 5, "plain": 3, "strided": 4, "shared": 3, "unpadded": 5}
    budget = count([own[name] for name in chosen], [costs[name] for name in chosen])
    result = _learn(layers=layers, budget=budget)
    assert list(result.sizes) == chosen
    left = [name for name in own if name not in chosen]
    assert {name: result.left_alone[name] for name in left} == dict.fromkeys(left, "not selected")
    assert {name: why for name, why in LEFT_ALONE.items() if name != "entry"}.items() <= result.left_alone.items()


def test_a_selection_that_chooses_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'conv\*' matches none of entry, plain, strided, shared, unpadded"):
        _learn(layers=["plain", "conv*"])
    with pytest.raises(ValueError, match="'depthwise' matches none"):
        _learn(layers="depthwise")
    with pytest.raises(ValueError, match="no convolution of this network"):
        _learn(layers=lambda name, module: False)
    with pytest.raises(ValueError, match="0: the first convolution"):
        learn_kernel_sizes(nn.Sequential(nn.Conv2d(3, 8, 3)), random_batches(), budget=216)
    with pytest.raises(ValueError, match="there is no convolution"):
        learn_kernel_sizes(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), random_batches(), budget=216)


def _contents(model: nn.Module) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state | {f"{name}.grad": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [True, False])
def test_the_callers_network_and_random_states_stay_as_they_were(training: bool) -> None:
    torch.manual_seed(0)
    model = TinyNet()
    model(random_batches()[0][0]).sum().backward()
    model.train(training)
    model.drop.eval()  # a mode of its own
    model.stem.weight.requires_grad_(False)
    calls: list[str] = []
    handles = [model.first.register_forward_hook(lambda *_: calls.append("forward"))]
    handles.append(model.second.register_full_backward_hook(lambda *_: calls.append("backward")))
    before = _contents(model)
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    modes = {name: module.training for name, module in modules.items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]

    result = learn_kernel_sizes(model, random_batches(), budget=TINY_BUDGET, epochs=1)
    calls.clear()
    result.build()

    after = _contents(model)
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert dict(model.named_modules()) == modules
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not model.stem.weight.requires_grad and model.first.weight.requires_grad
    assert torch.equal(model.first.weight.grad, before["first.weight.grad"])  # type: ignore[arg-type]
    assert [handle.id in modules["first"]._forward_hooks for handle in handles[:1]] == [True]
    model.train()(random_batches()[0][0]).sum().backward()
    assert calls == ["forward", "backward"]
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index, union-attr]


def test_the_random_state_stays_as_it_was() -> None:
    torch.manual_seed(5)
    model = TinyNet()
    state = torch.get_rng_state()
    learn_kernel_sizes(model, random_batches(), budget=TINY_BUDGET, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="weights within"):
        learn_kernel_sizes(model, random_batches(), budget=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_looking_for_learnable_layers_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = TinyNet().eval()
    before = _contents(model)
    assert find_learnable(model, random_batches(1)[0][0])[0] == ["first", "second"]
    assert all(torch.equal(value, before[name]) for name, value in _contents(model).items())
    assert not any(module.training or module._forward_pre_hooks for module in model.modules())


def test_a_frozen_parameter_stays_frozen_while_sizes_are_learned() -> None:
    torch.manual_seed(0)
    model = TinyNet()
    model.head.weight.requires_grad_(False)
    learner = SizeLearner(model, ["first", "second"], Settings(budget=TINY_BUDGET), Readings())
    learner.step(*random_batches(1)[0], F.cross_entropy)
    assert torch.equal(learner.cnn.get_parameter("head.weight"), model.head.weight)
    assert not torch.equal(learner.cnn.get_parameter("head.bias"), model.head.bias)


def test_torchvisions_resnet18() -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    before = copy.deepcopy(model.state_dict())
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    budget = sum(model.get_parameter(f"{name}.weight").numel() for name in names)
    result = learn_kernel_sizes(model, random_batches(2, 2, side=32, classes=10), budget=budget, epochs=1)
    assert list(result.sizes) == names and len(names) == 16
    reasons = {"conv1": "the first convolution"}
    reasons |= {f"layer{stage}.0.downsample.0": "1 x 1" for stage in (2, 3, 4)}
    assert result.left_alone == reasons
    assert abs(result.params / budget - 1) <= 0.01
    network = result.build()
    assert [convolutions(network.get_submodule(n))[0].kernel_size[0] for n in names] == list(result.sizes.values())
    assert network(torch.zeros(2, 3, 33, 40)).shape == (2, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
