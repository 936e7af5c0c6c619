"""Network in Network: the count, the maps of the paper, a slow evaluation, initialisation, sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.nin import nin


def slow_pool(x: Tensor) -> Tensor:
    """3x3 maxima at every second place, over what of the window lies inside, until every pixel is covered."""
    rows, columns = (math.ceil((side - 3) / 2) + 1 for side in x.shape[2:])
    out = x.new_empty(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax(dim=(2, 3))
    return out


def test_count() -> None:
    net = nin()
    assert sum(p.numel() for p in net.parameters()) == 349_674
    assert sum(p.numel() for p in nin(in_channels=3).parameters()) == 349_674 + 2 * 96 * 25


def test_maps_go_from_28_to_14_to_7() -> None:
    net = nin().eval()
    maps: list[tuple[int, ...]] = []
    for block in (net.block1, net.block2, net.block3):
        block.register_forward_hook(lambda module, args, out: maps.append(tuple(out.shape[1:])))
    assert net(torch.randn(1, 1, 28, 28)).shape == (1, 10)
    assert maps == [(48, 28, 28), (48, 14, 14), (96, 7, 7)]


def test_against_a_slow_evaluation() -> None:
    torch.manual_seed(0)
    net = nin(in_channels=2, num_classes=5).double().eval()
    x = torch.randn(3, 2, 13, 10, dtype=torch.float64)
    weights = iter([m for m in net.modules() if isinstance(m, nn.Conv2d)])

    def conv_relu(x: Tensor) -> Tensor:
        layer = next(weights)
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2).clamp(min=0)

    y = slow_pool(conv_relu(conv_relu(conv_relu(x))))
    y = slow_pool(conv_relu(conv_relu(conv_relu(y))))
    y = conv_relu(conv_relu(conv_relu(y)))
    assert next(weights, None) is None
    torch.testing.assert_close(net(x), y.flatten(2).mean(dim=2))


def test_last_layer_has_a_name_of_its_own_and_ends_in_relu() -> None:
    net = nin().eval()
    assert [name for name, p in net.named_parameters() if p.shape[0] == 10] == ["head.weight", "head.bias"]
    nn.init.constant_(net.get_parameter("head.bias"), -1e3)
    assert not net(torch.randn(2, 1, 28, 28)).any()


def test_half_is_dropped_after_each_of_two_pools_when_training() -> None:
    net = nin()
    counts: list[float] = []
    net.dropout.register_forward_hook(
        lambda module, args, out: counts.append(
            ((out == 0) & (args[0] != 0)).sum().item() / (args[0] != 0).sum().item()
        )
    )
    net(torch.randn(8, 1, 28, 28))
    assert counts == pytest.approx([0.5, 0.5], abs=0.03)


def test_initialisation() -> None:
    torch.manual_seed(0)
    for module in nin().modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None and not module.bias.any()
            assert module.weight.std().item() == pytest.approx(0.05, rel=0.08)


@pytest.mark.parametrize("size", [4, 5, 32])
def test_other_sizes(size: int) -> None:
    assert nin(image_size=size).eval()(torch.randn(1, 1, size, size)).shape == (1, 10)


def test_too_small_an_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 pixels or more") as caught:
        nin(image_size=3)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="4 pixels or more"):
        nin()(torch.randn(1, 1, 28, 3))


def test_state_dict_round_trip() -> None:
    x = torch.randn(2, 1, 28, 28)
    net, other = nin().eval(), nin().eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
