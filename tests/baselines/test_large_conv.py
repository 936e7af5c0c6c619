"""Convolution of large kernels: FFT against direct, against the definition, and against finite differences."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import large_conv
from baselines.large_conv import (
    AutoConv2d,
    by_fft_where_faster,
    conv2d_same,
    fast_period,
    fft_conv,
    fft_is_faster,
    in_usable_layout,
    reachable,
)

SIZES = [(1, 1), (3, 3), (5, 7), (7, 1), (1, 9), (13, 5), (11, 23), (33, 33), (21, 41)]  # up to wider than the image


def slow(x: Tensor, kernel: Tensor) -> Tensor:
    """y[o, i, j] = sum x[c, i + a - (kh - 1) / 2, j + b - (kw - 1) / 2] kernel[o, c, a, b], x = 0 outside."""
    kh, kw = kernel.shape[2:]
    height, width = x.shape[2:]
    padded = torch.zeros(*x.shape[:2], height + kh - 1, width + kw - 1, dtype=x.dtype)
    padded[:, :, kh // 2 : kh // 2 + height, kw // 2 : kw // 2 + width] = x
    y = torch.zeros(len(x), len(kernel), height, width, dtype=x.dtype)
    for a in range(kh):
        for b in range(kw):
            y += torch.einsum("ncij,oc->noij", padded[:, :, a : a + height, b : b + width], kernel[:, :, a, b])
    return y


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("size", SIZES)
def test_both_methods_are_the_definition(size: tuple[int, int], method: str) -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(2, 3, 11, 16).double(), torch.randn(4, 3, *size).double()
    bias = torch.randn(4).double()
    expected = slow(x, kernel) + bias.view(-1, 1, 1)
    torch.testing.assert_close(conv2d_same(x, kernel, bias, method=method), expected, atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("size", [(9, 9), (15, 7), (33, 33), (5, 31)])
def test_fft_is_exact_to_1e_4_in_float32_and_so_are_its_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 32, 32, requires_grad=True)
    kernel, weight = torch.randn(8, 8, *size, requires_grad=True), torch.randn(2, 8, 32, 32)
    found = []
    for method in ("fft", "direct"):
        y = conv2d_same(x, kernel, method=method)
        found.append([y.detach(), *torch.autograd.grad(y, (x, kernel), weight)])
    for ours, direct in zip(*found, strict=True):
        assert float((ours - direct).norm() / direct.norm()) < 1e-6
        assert float((ours - direct).abs().max() / direct.abs().max()) < 1e-5


@pytest.mark.parametrize(("stride", "size"), [(1, (3, 5)), (2, (5, 3)), (1, (1, 13))])
def test_gradients_are_those_of_finite_differences(stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    for method in ("fft", "direct"):
        convolved = partial(conv2d_same, stride=stride, method=method)
        assert torch.autograd.gradcheck(convolved, (x, kernel, bias))


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("height", [7, 8])
def test_a_stride_takes_every_second_row_and_column_from_the_first(method: str, height: int) -> None:
    x, kernel = torch.randn(2, 3, height, 9), torch.randn(4, 3, 5, 3)
    expected = conv2d_same(x, kernel, method="direct")[:, :, ::2, ::2]
    torch.testing.assert_close(conv2d_same(x, kernel, stride=2, method=method), expected, atol=1e-5, rtol=1e-4)


def test_channels_last_inputs_give_the_same() -> None:
    x, kernel = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 7, 7)
    for method in ("direct", "fft"):
        ours = conv2d_same(x.to(memory_format=torch.channels_last), kernel, method=method)
        torch.testing.assert_close(ours, F.conv2d(x, kernel, padding=3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "channels", "side", "stride", "faster"),
    [
        (3, 36, 32, 1, False),
        (5, 36, 32, 1, True),
        (33, 48, 32, 1, True),
        (5, 24, 96, 1, False),
        (7, 24, 96, 1, True),
        (5, 16, 32, 1, False),
        (7, 16, 32, 1, True),
        (9, 3, 32, 1, False),
        (11, 3, 32, 1, True),
        (7, 36, 32, 2, False),
        (11, 36, 32, 2, True),
    ],
)
def test_the_rule_follows_the_measurements(size: int, channels: int, side: int, stride: int, faster: bool) -> None:
    x, kernel = torch.empty(1, channels, side, side), torch.empty(24, channels, size, size)
    assert fft_is_faster(x, kernel, stride) is faster


def test_half_precision_goes_direct() -> None:
    assert not fft_is_faster(torch.empty(1, 36, 32, 32).bfloat16(), torch.empty(36, 36, 33, 33).bfloat16(), 1)


def test_weights_that_only_meet_padding_are_left_out() -> None:
    kernel = torch.arange(33.0 * 9).view(1, 1, 33, 9)
    assert torch.equal(reachable(kernel, 8, 5), kernel[:, :, 9:24])
    assert torch.equal(reachable(kernel, 32, 3), kernel[:, :, :, 2:7])


def test_periods_are_even_and_have_small_factors_only() -> None:
    assert [fast_period(n) for n in (1, 7, 22, 33, 35, 48, 121)] == [2, 8, 24, 36, 36, 48, 126]


def test_bad_arguments_are_refused() -> None:
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="must be odd; got 3 x 4"):
        conv2d_same(x, torch.zeros(1, 1, 3, 4))
    with pytest.raises(ValueError, match="auto, direct, fft; got 'gemm'"):
        conv2d_same(x, torch.zeros(1, 1, 3, 3), method="gemm")


@pytest.mark.parametrize(("size", "kept"), [(13, True), (15, False)])
def test_large_kernels_leave_channels_last_where_the_library_is_slow_with_it(size: int, kept: bool) -> None:
    x = torch.randn(1, 4, 16, 16).contiguous(memory_format=torch.channels_last)
    found = in_usable_layout(x, torch.randn(4, 4, size, size))
    assert found.is_contiguous(memory_format=torch.channels_last) is kept
    assert torch.equal(found, x)


def plain_network() -> nn.Sequential:
    """Of the same size: odd, even to either side, oblong; then some that must stay direct, and one that shifts, too."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(8, 8, 4, bias=False)),
        nn.Sequential(nn.ZeroPad2d((3, 2, 3, 2)), nn.Conv2d(8, 8, 6)),
        nn.Conv2d(8, 8, (3, 7), padding=(1, 3)),
        nn.Conv2d(8, 8, 5, padding=2, stride=2),
        nn.Conv2d(8, 8, 5, padding=1),
        nn.Conv2d(8, 8, 5, padding=2, groups=2),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.Sequential(nn.ZeroPad2d((3, -1, 1, 1)), nn.Conv2d(8, 8, 3)),
    )


def test_plain_layers_that_keep_their_size_go_by_fft_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = plain_network().double()
    ours = by_fft_where_faster(copy.deepcopy(plain))
    assert [place for place, layer in enumerate(ours.children()) if isinstance(layer, AutoConv2d)] == [0, 2, 3, 4, 11]
    taken: list[Tensor] = []
    monkeypatch.setattr(large_conv, "fft_is_faster", lambda *asked: True)

    def recorded(x: Tensor, kernel: Tensor) -> Tensor:
        taken.append(kernel)
        return fft_conv(x, kernel)

    monkeypatch.setattr(large_conv, "fft_conv", recorded)
    x = torch.randn(2, 3, 16, 14, dtype=torch.float64)
    found = []
    for network in (plain, ours):
        y = network(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(network.parameters()))])
    assert [tuple(kernel.shape[2:]) for kernel in taken] == [(5, 5), (5, 5), (7, 7), (3, 7), (3, 7)]
    torch.testing.assert_close(found[1], found[0], atol=1e-11, rtol=1e-10)


def test_plain_layers_stay_direct_where_that_is_faster() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1))
    x = torch.randn(1, 24, 8, 8)
    assert torch.equal(by_fft_where_faster(copy.deepcopy(layer))(x), layer(x))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_by_fft_results_and_gradients_lie_as_the_images_do(layout: torch.memory_format) -> None:
    network = by_fft_where_faster(nn.Sequential(nn.Conv2d(24, 24, 7, padding=3)))
    x = torch.randn(2, 24, 8, 8).contiguous(memory_format=layout).requires_grad_()
    y = network(x)
    seen: list[Tensor] = []
    x.register_hook(seen.append)
    y.sum().backward()
    assert y.is_contiguous(memory_format=layout)
    assert layout == torch.contiguous_format or seen[0].is_contiguous(memory_format=layout)
