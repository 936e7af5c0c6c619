"""Table 3's 'CIFARResNet-18': both counts, what tells it from a CIFAR ResNet, other channels, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from baselines.resnet18 import resnet18


def total(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_printed_size_is_that_of_a_thousand_classes() -> None:
    assert total(resnet18(num_classes=1000)) == 11_689_512
    assert total(resnet18()) == 11_181_642


def test_stem_and_stages_on_stl10() -> None:
    net: Any = resnet18().eval()
    maps: list[tuple[int, ...]] = []
    for layer in (net.conv1, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4):
        layer.register_forward_hook(lambda module, args, out: maps.append(tuple(out.shape[1:])))
    assert net(torch.randn(1, 3, 96, 96)).shape == (1, 10)
    assert maps == [(64, 48, 48), (64, 24, 24), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3)]


def test_another_number_of_channels() -> None:
    torch.manual_seed(0)
    net: Any = resnet18(in_channels=1, image_size=28)
    assert total(net) == 11_181_642 - 2 * 64 * 49
    assert net.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert net.eval()(torch.randn(1, 1, 28, 28)).shape == (1, 10)


def test_takes_every_size() -> None:
    assert resnet18(image_size=1).eval()(torch.randn(1, 3, 1, 1)).shape == (1, 10)
    with pytest.raises(ValueError, match="1 pixel or more"):
        resnet18(image_size=0)


def test_state_dict_round_trip() -> None:
    x = torch.randn(1, 3, 32, 32)
    net, other = resnet18().eval(), resnet18().eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
