"""CIFAR ResNet with FlexConv and CKConv layers: the paper's size, a strided block by hand, what a caller relies on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.flex_resnet import FlexResNet, flex_resnet
from baselines.flexconv import FlexConv2d
from baselines.resnet import shortcut


def total(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def small(layer: str = "flexconv", **options: Any) -> FlexResNet:
    return flex_resnet(8, layer, **{"image_size": 16, **options})


@pytest.mark.parametrize(
    ("layer", "kernel_net", "horizon", "count"),
    [
        ("flexconv", "magnet", None, 2_581_142),
        ("ckconv", "magnet", 3, 2_580_970),
        ("flexconv", "gabor", None, 2_575_638),
        ("flexconv", "siren", 33, 2_455_926),
    ],
)
def test_counts_of_depth_44(layer: str, kernel_net: str, horizon: int | None, count: int) -> None:
    net = flex_resnet(44, layer, kernel_net=kernel_net, horizon=horizon)
    assert total(net) == count
    assert len(net.layers()) == 43
    assert not any(isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) for module in net.modules())


def test_sizes_at_the_start() -> None:
    assert set(flex_resnet(8, "flexconv").kernel_sizes().values()) == {(5, 5)}
    assert set(flex_resnet(8, "ckconv", horizon=3).kernel_sizes().values()) == {(3, 3)}
    assert set(flex_resnet(8, "ckconv", image_size=28).kernel_sizes().values()) == {(29, 29)}


@pytest.mark.parametrize("height", [7, 8])
@pytest.mark.parametrize("layer", ["flexconv", "ckconv"])
def test_a_strided_block_by_hand(layer: str, height: int) -> None:
    net = small(layer).eval()
    block: Any = net.layer2[0]
    x = torch.randn(2, 16, height, 8)
    first, second = block.conv1.kernel(), block.conv2.kernel()
    scale = (1 + 1e-5) ** 0.5
    y = F.conv2d(x, first, block.conv1.bias, padding=first.shape[-1] // 2)[:, :, ::2, ::2]
    y = F.conv2d(torch.relu(y / scale), second, block.conv2.bias, padding=second.shape[-1] // 2) / scale
    padded = torch.zeros_like(y)
    padded[:, 8:24] = x[:, :, ::2, ::2]  # option A: new channels are zero, half of them on each side
    assert torch.equal(padded, shortcut(x, 32, stride=2))
    torch.testing.assert_close(block(x, iter([first, second])), torch.relu(y + padded), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("images", [(1, 3, 8, 8), (2, 3, 9, 7)])
@pytest.mark.parametrize("layer", ["flexconv", "ckconv"])
def test_logits_are_those_of_the_layers_one_by_one(layer: str, images: tuple[int, ...]) -> None:
    net = small(layer, num_classes=4).eval()
    x = torch.randn(images)
    logits = net(x)
    assert logits.shape == (images[0], 4)
    each = [found.kernel() for found in net.layers().values()]
    torch.testing.assert_close(net(x, each), logits, rtol=1e-3, atol=1e-4)
    assert torch.equal(net(x, net.kernels()), logits)
    names = list(net.layers())
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"] and names[-1] == "layer3.0.conv2"


def test_norms_count_every_layer() -> None:
    net = small()
    kernels = net.kernels()
    expected = sum(kernel.square().sum().sqrt() for kernel in kernels)  # biases start at 0
    torch.testing.assert_close(net.kernel_norms(kernels), expected)


def test_full_grid_reaches_every_layer() -> None:
    layers = small(full_grid=True).layers().values()
    assert all(isinstance(layer, FlexConv2d) and layer.full_grid for layer in layers)


def test_state_dict_copy_and_gradients() -> None:
    net, other = small(), small()
    x = torch.randn(3, 3, 8, 8)
    net(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), other.eval()(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 18}, "6n"),
        ({"layer": "conv"}, "flexconv, ckconv"),
        ({"horizon": 4}, "odd"),
        ({"image_size": 0}, "at least 2"),
    ],
)
def test_what_does_not_exist_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        flex_resnet(**{"depth": 8, "layer": "flexconv", **arguments})
    assert "\n" not in str(caught.value)
