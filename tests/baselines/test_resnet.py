"""CIFAR ResNet: counts against the released checkpoints, shapes for every size, option A and the padding by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.resnet import cifar_resnet, conv, shortcut

# depth: all parameters, residual convolutions, batch norm, all with 1000 classes
COUNTS = {
    20: (269_722, 267_264, 1_376, 334_072),
    26: (366_938, 364_032, 1_824, 431_288),
    32: (464_154, 460_800, 2_272, 528_504),
    38: (561_370, 557_568, 2_720, 625_720),
    44: (658_586, 654_336, 3_168, 722_936),
    50: (755_802, 751_104, 3_616, 820_152),
    56: (853_018, 847_872, 4_064, 917_368),
    110: (1_727_962, 1_718_784, 8_096, 1_792_312),
}
SIZES = [1, 2, 3, 4, 5, 6, 7, 2, 4, 6, 1, 3]


def total(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def count(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(p.numel() for m in net.modules() if isinstance(m, kind) for p in m.parameters(recurse=False))


@pytest.mark.parametrize("depth", COUNTS)
def test_counts_are_those_of_the_released_networks(depth: int) -> None:
    everything, residual, batch_norm, thousand = COUNTS[depth]
    net = cifar_resnet(depth)
    assert total(net) == everything
    assert count(net, nn.Conv2d) - net.get_parameter("conv1.weight").numel() == residual
    assert count(net, nn.BatchNorm2d) == batch_norm
    assert total(cifar_resnet(depth, num_classes=1000)) == thousand


def test_counts_with_one_channel_and_with_other_sizes() -> None:
    assert total(cifar_resnet(20, in_channels=1)) == 269_722 - 2 * 16 * 9
    net = cifar_resnet(14, kernel_sizes=SIZES)
    squares = [size**2 for size in SIZES]
    expected = 256 * sum(squares[:4]) + 512 * squares[4] + 1024 * sum(squares[5:8]) + 2048 * squares[8]
    expected += 4096 * sum(squares[9:])
    assert count(net, nn.Conv2d) - 432 == expected


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [7, 8, 15, 28, 32])
def test_every_size_gives_the_resolution_of_the_shortcut(size: int, stride: int, height: int) -> None:
    layer = conv(4, 8, size=size, stride=stride)
    x = torch.randn(2, 4, height, height + 1)
    assert layer(x).shape == shortcut(x, 8, stride=2).shape if stride == 2 else layer(x).shape[2:] == x.shape[2:]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 4, 6])
def test_an_even_kernel_is_the_next_odd_one_with_a_zero_row_and_column_at_the_left(size: int, stride: int) -> None:
    layer = conv(3, 5, size=size, stride=stride)
    kernel = next(m for m in layer.modules() if isinstance(m, nn.Conv2d)).weight
    x = torch.randn(2, 3, 9, 10)
    embedded = F.pad(kernel, (1, 0, 1, 0))  # the centre of the odd kernel is where the even one has its left middle
    expected = F.conv2d(x, embedded, stride=stride, padding=size // 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 33, 31), (1, 28, 28), (3, 96, 96)])
def test_logits_for_odd_and_even_sizes_and_images(shape: tuple[int, int, int]) -> None:
    net = cifar_resnet(14, in_channels=shape[0], num_classes=7, kernel_sizes=SIZES)
    assert net(torch.randn(2, *shape)).shape == (2, 7)


def test_option_a_by_hand() -> None:
    x = torch.arange(1.0, 37.0).view(1, 4, 3, 3)
    y = shortcut(x, 8, stride=2)
    assert y.shape == (1, 8, 2, 2)
    assert y[0, 2].tolist() == [[1, 3], [7, 9]]  # channel 0, rows and columns 0 and 2
    assert y[0, 5].tolist() == [[28, 30], [34, 36]]  # channel 3
    assert not y[0, [0, 1, 6, 7]].any()
    assert shortcut(x, 4, stride=1) is x


@pytest.mark.parametrize(("c_in", "c_out", "before"), [(3, 8, 2), (4, 7, 1), (4, 5, 0), (5, 5, 0), (2, 12, 5)])
def test_option_a_with_channels_that_do_not_double(c_in: int, c_out: int, before: int) -> None:
    x = 1 + torch.rand(2, c_in, 5, 4)
    y = shortcut(x, c_out, stride=2)
    assert y.shape == (2, c_out, 3, 2)
    assert torch.equal(y[:, before : before + c_in], x[:, :, ::2, ::2])
    assert y.count_nonzero() == x[:, :, ::2, ::2].numel()  # the rest, the one more of an odd number behind, is zero


@pytest.mark.parametrize("widths", [(25, 50, 101), (5, 8, 8), (3, 3, 4)])
def test_other_widths(widths: tuple[int, int, int]) -> None:
    a, b, c = widths
    net = cifar_resnet(14, widths=widths, num_classes=7)
    residual = 9 * (4 * a * a + a * b + 3 * b * b + b * c + 3 * c * c)
    assert count(net, nn.Conv2d) == residual + 9 * 3 * a
    assert total(net) == count(net, nn.Conv2d) + 2 * (5 * a + 4 * b + 4 * c) + 7 * c + 7
    assert net(torch.randn(1, 3, 9, 9)).shape == (1, 7)
    assert net(torch.randn(2, 3, 9, 9)).sum().backward() is None


def test_no_widths_are_the_papers_to_the_bit() -> None:
    torch.manual_seed(0)
    first, x = cifar_resnet(14, kernel_sizes=SIZES), torch.randn(2, 3, 16, 16)
    torch.manual_seed(0)
    second = cifar_resnet(14, kernel_sizes=SIZES, widths=[16, 32, 64])
    assert torch.equal(first(x), second(x))


def test_widths_and_sizes_together() -> None:
    net = cifar_resnet(8, widths=(4, 9, 10), kernel_sizes=[1, 2, 3, 4, 5, 6])
    counts = [w.numel() for name, w in net.named_parameters() if "conv" in name][1:]
    assert counts == [16, 4 * 16, 9 * 36, 16 * 81, 25 * 90, 36 * 100]
    assert net(torch.randn(2, 3, 15, 15)).shape == (2, 10)


@pytest.mark.parametrize("widths", [(16, 32), (16, 32, 64, 128), (0, 1, 2), (16, 32, 31), (16.0, 32, 64), (True, 2, 3)])
def test_widths_that_do_not_fit_are_errors(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three positive integers") as caught:
        cifar_resnet(8, widths=widths)
    assert "\n" not in str(caught.value)


def test_a_block_by_hand() -> None:
    block: Any = cifar_resnet(8).layer2[0].eval()
    x = torch.randn(2, 16, 6, 6)
    y = F.conv2d(x, block.conv1.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5
    y = F.conv2d(F.relu(y), block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    expected = F.relu(y + shortcut(x, 32, stride=2))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_kaiming_normal_with_fan_in() -> None:
    torch.manual_seed(0)
    net = cifar_resnet(20)
    weight = net.get_parameter("layer3.1.conv1.weight")
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert net.fc.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.15)
    assert 0 < net.fc.bias.abs().max() <= 1 / 8


def test_names_read_well() -> None:
    names = [name for name, module in cifar_resnet(8).named_modules() if isinstance(module, nn.Conv2d)]
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]


@pytest.mark.parametrize("depth", [0, 2, 18, 21, -4])
def test_another_depth_is_an_error(depth: int) -> None:
    with pytest.raises(ValueError, match="6n"):
        cifar_resnet(depth)


@pytest.mark.parametrize(
    ("sizes", "message"), [([3] * 5, "6 kernel sizes"), ([3] * 5 + [0], "positive"), ([3.0] * 6, "3.0")]
)
def test_kernel_sizes_that_do_not_fit_are_errors(sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        cifar_resnet(8, kernel_sizes=sizes)
    assert "\n" not in str(caught.value)
