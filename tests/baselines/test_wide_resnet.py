"""Wide ResNet: counts against the authors' logs, shapes for every size, the shortcut by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.wide_resnet import wide_resnet


def total(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def convolutions(net: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}


def test_counts_are_those_of_the_authors() -> None:
    assert total(wide_resnet(28, 1)) == 369_498
    assert total(wide_resnet(28, 1, num_classes=1000)) == 433_848
    assert total(wide_resnet(40, 4)) == 8_949_210


def test_parts_of_wrn_28_1() -> None:
    net = wide_resnet(28, 1)
    weights = {name: conv.weight.numel() for name, conv in convolutions(net).items()}
    projections = [count for name, count in weights.items() if "projection" in name]
    assert weights.pop("conv1") == 432
    assert projections == [512, 2048]
    assert sum(weights.values()) - sum(projections) == 364_032
    assert len(weights) - 2 == 24
    assert sum(p.numel() for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()) == 1_824


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 33, 31), (1, 28, 28)])
def test_logits_for_odd_and_even_sizes_and_images(shape: tuple[int, int, int]) -> None:
    net = wide_resnet(10, 1, in_channels=shape[0], num_classes=7, kernel_sizes=[2, 5, 4, 1, 6, 7])
    assert net(torch.randn(2, *shape)).shape == (2, 7)
    assert [conv.kernel_size[0] for name, conv in convolutions(net).items() if "projection" not in name] == [
        3, 2, 5, 4, 1, 6, 7,
    ]  # fmt: skip


def test_the_shortcut_takes_the_activated_input_where_channels_change_and_the_raw_one_elsewhere() -> None:
    net = wide_resnet(16, 1).eval()
    x = torch.randn(2, 16, 6, 6)
    scale = (1 + 1e-5) ** 0.5
    block: Any = net.layer2[0]
    activated = F.relu(x / scale)
    y = F.relu(F.conv2d(activated, block.conv1.weight, stride=2, padding=1) / scale)
    y = F.conv2d(y, block.conv2.weight, padding=1)
    expected = y + F.conv2d(activated, block.projection.weight, stride=2)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)
    block = net.layer1[0]
    assert block.projection is None
    y = F.conv2d(F.relu(F.conv2d(activated, block.conv1.weight, padding=1) / scale), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), y + x, rtol=1e-4, atol=1e-4)


def test_weights_are_he_normal_with_fan_in_and_the_linear_bias_is_zero() -> None:
    torch.manual_seed(0)
    net = wide_resnet(28, 1)
    assert net.get_parameter("layer3.1.conv1.weight").std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert net.get_parameter("layer3.0.conv1.weight").std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert not net.fc.bias.any()


@pytest.mark.parametrize(("depth", "factor", "message"), [(26, 1, "6n"), (4, 1, "6n"), (28, 0, "widening")])
def test_another_depth_or_factor_is_an_error(depth: int, factor: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wide_resnet(depth, factor)


@pytest.mark.parametrize(("sizes", "message"), [([3] * 7, "6 kernel sizes"), ([3] * 5 + [-1], "positive")])
def test_kernel_sizes_that_do_not_fit_are_errors(sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wide_resnet(10, 1, kernel_sizes=sizes)
