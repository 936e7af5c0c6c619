"""VGG-5: both counts, the maps, both heads by hand, initialisation, the sizes that it takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.vgg5 import vgg5


def test_counts() -> None:
    assert sum(p.numel() for p in vgg5().parameters()) == 3_646_154
    assert sum(p.numel() for p in vgg5(head="spinal").parameters()) == 3_629_770


def settled(net: nn.Module) -> nn.Module:
    """In float64 and evaluation, with random running statistics and affine terms in its batch norms."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias, module.weight, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return net.double().eval()


def slow_norm(x: Tensor, norm: Any) -> Tensor:
    """Batch norm with the running statistics, channel by channel."""
    channels = [
        (x[:, c] - norm.running_mean[c]) / (norm.running_var[c] + 1e-5).sqrt() * norm.weight[c] + norm.bias[c]
        for c in range(x.shape[1])
    ]
    return torch.stack(channels, dim=1)


def slow_dense(x: Tensor, layer: Any) -> Tensor:
    """Dropout (none in evaluation), linear, batch norm, ReLU."""
    _, linear, norm, _ = layer
    return slow_norm(x @ linear.weight.T + linear.bias, norm).clamp(min=0)


def test_ten_convolutions_in_four_groups_by_hand() -> None:
    torch.manual_seed(0)
    net: Any = settled(vgg5())
    x = torch.randn(1, 1, 28, 28, dtype=torch.float64)
    y, maps = x, []
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        y = slow_norm(F.conv2d(y, conv.weight, conv.bias, padding=1), norm).clamp(min=0)
        if i in (1, 3, 6, 9):
            half = y.shape[2] // 2
            y = y[:, :, : 2 * half, : 2 * half].unflatten(3, (half, 2)).unflatten(2, (half, 2)).amax(dim=(3, 5))
            maps.append(tuple(y.shape[1:]))
    assert maps == [(64, 14, 14), (128, 7, 7), (256, 3, 3), (256, 1, 1)]
    torch.testing.assert_close(net.features(x), y)


def test_plain_head_by_hand() -> None:
    net: Any = settled(vgg5())
    x = torch.randn(3, 256, dtype=torch.float64)
    dense, _, output = net.head
    torch.testing.assert_close(net.head(x), slow_dense(x, dense) @ output.weight.T + output.bias)


def test_spinal_head_by_hand() -> None:
    net: Any = settled(vgg5(head="spinal"))
    x = torch.randn(3, 256, dtype=torch.float64)
    first, second, third, fourth = net.head.spine
    a, b = x[:, :128], x[:, 128:]
    y1 = slow_dense(a, first)
    y2 = slow_dense(torch.cat([b, y1], dim=1), second)
    y3 = slow_dense(torch.cat([a, y2], dim=1), third)
    y4 = slow_dense(torch.cat([b, y3], dim=1), fourth)
    output = net.head.output[-1]
    expected = torch.cat([y1, y2, y3, y4], dim=1) @ output.weight.T + output.bias
    torch.testing.assert_close(net.head(x), expected)


@pytest.mark.parametrize(("head", "count"), [("plain", 2), ("spinal", 5)])
def test_dropouts(head: Any, count: int) -> None:
    assert [m.p for m in vgg5(head=head).modules() if isinstance(m, nn.Dropout)] == [0.5] * count


def test_initialisation() -> None:
    torch.manual_seed(0)
    convs = [m for m in vgg5().modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 10
    for conv in convs[1:]:
        assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.out_channels)) ** 0.5, rel=0.03)
        assert conv.bias is not None
        assert 0 < conv.bias.abs().max() <= (9 * conv.in_channels) ** -0.5


@pytest.mark.parametrize("size", [16, 31])
@pytest.mark.parametrize("head", ["plain", "spinal"])
def test_logits_at_the_ends_of_the_range(size: int, head: Any) -> None:
    net = vgg5(in_channels=3, num_classes=7, image_size=size, head=head).eval()
    assert net(torch.randn(1, 3, size, size)).shape == (1, 7)


@pytest.mark.parametrize("size", [15, 32])
def test_other_sizes_are_errors(size: int) -> None:
    with pytest.raises(ValueError, match="16 to 31 pixels") as caught:
        vgg5(image_size=size)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="16 to 31 pixels"):
        vgg5()(torch.randn(2, 1, 28, size))


def test_another_head_is_an_error() -> None:
    with pytest.raises(ValueError, match="'plain' or 'spinal'"):
        vgg5(head="spine")  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["plain", "spinal"])
def test_copies_and_state_dict_give_the_same_logits(head: Any) -> None:
    x = torch.randn(2, 1, 28, 28)
    net, other = vgg5(head=head).eval(), vgg5(head=head).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
    assert torch.equal(net(x), copy.deepcopy(net)(x))
