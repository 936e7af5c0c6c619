"""A network whose kernel sizes the host knows: held, or reserved while masks learn. Against the plain path, float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.ckcnn7 import ckcnn7
from baselines.flex_resnet import flex_resnet
from baselines.flexconv import FlexConv2d
from baselines.flexnet import FlexNet, flexnet
from baselines.kernel_network import KernelNetwork
from baselines.masks import crop_reach, crop_side

SIDE = 8  # of the images; horizon 17
MODES = list(product(("auto", "direct", "fft"), (True, False), (True, False)))  # method, batched, fused


def small(**options: Any) -> FlexNet:
    torch.manual_seed(0)
    return flexnet(3, 4, **{"image_size": 16, "num_classes": 5, "dropout": 0.0, **options})


def masked(net: KernelNetwork) -> list[FlexConv2d]:
    return [layer for layer in net.layers().values() if isinstance(layer, FlexConv2d)]


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, whatever the host does to see a tensor's values fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("the host waits for the device")

    def start() -> None:
        for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero"):
            monkeypatch.setattr(Tensor, name, refuse)

    return start


@pytest.mark.parametrize("size", [1, 3, 5, 9, 15, 17])
@pytest.mark.parametrize("make", [small, lambda: flex_resnet(8, "flexconv", image_size=16, num_classes=5)])
def test_a_held_size_is_the_crop_of_every_mask(make: Callable[[], KernelNetwork], size: int) -> None:
    net = make()
    with torch.no_grad():
        masked(net)[0].mask_params.fill_(0.2)
    net.hold(size)
    assert set(net.kernel_sizes().values()) == {(size, size)}
    for layer in masked(net):
        assert layer.mask_params[:, 0].tolist() == [0, 0]
        sigma = float(layer.mask_params.detach()[0, 1])
        barely_less, barely_more = (crop_side(0.0, sigma + d, 17) for d in (-0.028, 0.028))
        assert barely_less == size if size < 17 else barely_less >= 15  # steps of sigma are 0.0582
        assert barely_more == size
    net.hold(None)
    assert set(net.kernel_sizes().values()) == {(size, size)}  # now looked up
    with torch.no_grad():
        masked(net)[0].mask_params.fill_(0.2)
    assert net.kernel_sizes()["conv1"] == (11, 11)


def test_all_modes_give_the_same_logits_and_gradients() -> None:
    net = small().double()
    net.hold(9)
    x = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)
    found = []
    for method, batched, fused in MODES:
        net.use(method)
        net.fuse(fused)
        net.batched = batched
        logits = net(x)
        found.append([logits.detach(), *torch.autograd.grad(logits.logsumexp(1).sum(), list(net.parameters()))])
    for others in found[1:]:
        for ours, first in zip(others, found[0], strict=True):
            torch.testing.assert_close(ours, first, rtol=1e-5, atol=1e-12 + 1e-5 * float(first.abs().max()))


@pytest.mark.parametrize("full_grid", [False, True])
def test_all_modes_give_the_same_logits_in_float32(full_grid: bool) -> None:
    net = small(full_grid=full_grid).eval()
    net.hold(5)
    x = torch.randn(2, 3, SIDE, SIDE)
    expected = net(x)
    for method, batched, fused in MODES:
        net.use(method)
        net.fuse(fused)
        net.batched = batched
        torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


def test_the_method_and_the_batch_are_really_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = small(), list[str]()

    def recorded(x: Tensor, kernel: Tensor) -> Tensor:
        calls.append("fft")
        return F.conv2d(x, kernel)

    monkeypatch.setattr("baselines.large_conv.fft_conv", recorded)
    x = torch.randn(2, 3, SIDE, SIDE)
    net.hold(1)
    net.eval().requires_grad_(False)
    for method, count in (("auto", 0), ("direct", 0), ("fft", 7)):
        calls.clear()
        net.use(method)
        net(x)
        assert len(calls) == count
    monkeypatch.setattr(FlexConv2d, "kernel", lambda layer: calls.append("kernel"))
    calls.clear()
    net.kernels()
    assert calls == []
    net.batched = False
    net.kernels()
    assert calls == ["kernel"] * 7


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("batched", [True, False])
def test_with_a_held_size_the_host_never_waits(size: int, batched: bool, no_look: Callable[[], None]) -> None:
    net = small()
    net.hold(size)
    net.batched = batched
    x = torch.randn(2, 3, SIDE, SIDE)
    no_look()
    kernels = net.kernels()
    loss = net(x, kernels).logsumexp(1).sum() + net.kernel_norms(kernels)
    torch.autograd.backward(loss, inputs=list(net.parameters()))


def test_what_cannot_be_held() -> None:
    net, without_masks = small(), ckcnn7(image_size=16)
    before = [layer.mask_params.clone() for layer in masked(net)]
    for size, message in ((4, "odd sizes only.*got 4"), (0, "got 0"), (19, "up to the horizon, 17; got 19")):
        with pytest.raises(ValueError, match=message) as caught:
            net.hold(size)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(layer.mask_params, old) for layer, old in zip(masked(net), before, strict=True))
    with pytest.raises(ValueError, match="method must be one of auto, direct, fft; got 'gemm'"):
        net.use("gemm")
    for ask in (without_masks.hold, without_masks.reserve):
        with pytest.raises(ValueError, match=r"layers with masks.*blocks\.0\.conv1 is a CKConv"):
            ask(3)
        ask(None)
    without_masks.use("fft")
    assert {layer.method for layer in without_masks.layers().values()} == {"fft"}
    with pytest.raises(ValueError, match="0 positions or more; got -1"):
        net.reserve(-1)
    with pytest.raises(ValueError, match="before reserve"):
        net.look()


# Masks that move: the crop on the device


def test_the_device_finds_the_crop_of_the_host() -> None:
    torch.manual_seed(0)
    for horizon in (5, 17, 33, 97):
        params = torch.rand(60, 2, 2) * torch.tensor([0.4, 0.5])
        params[:9] = torch.tensor([0.0, 0.1])
        params[:5, 0] = torch.tensor([[0.0, 0.0], [0.9, 0.4], [float("nan"), 0.1], [0.0, float("inf")], [-0.1, -0.1]])
        sides = [[crop_side(mean, sigma, horizon) for mean, sigma in axes] for axes in params.tolist()]
        assert (2 * crop_reach(params, horizon) + 1).tolist() == sides


def moving(net: FlexNet, steps: int, *, look_every: int, rate: float = 0.02) -> tuple[list[str], set[int]]:
    """Plain gradient steps in which masks move by `rate` along each gradient's sign. What outgrew, and all sides."""
    torch.manual_seed(1)
    x, target = torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64), torch.randint(0, 5, (4,))
    outgrown, sides = [], set()
    for step in range(steps):
        if net.margin is not None and step % look_every == 0:
            outgrown += net.look().outgrown
        sides |= {side for size in net.kernel_sizes().values() for side in size}
        kernels = net.kernels()
        loss = F.cross_entropy(net(x, kernels), target) + 1e-3 * net.kernel_norms(kernels)
        names, parameters = zip(*net.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
                parameter -= rate * gradient.sign() if "mask" in name else 0.01 * gradient
    return outgrown + (net.look().outgrown if net.margin is not None else []), sides


def with_masks(options: dict[str, Any]) -> FlexNet:
    """Sizes that differ, among them 1, in float64. Biases are not 0: there the slope of their norm is mere rounding."""
    net = small(**options).double()
    with torch.no_grad():
        for i, layer in enumerate(masked(net)):
            layer.bias.normal_()
            layer.mask_params[0, 1], layer.mask_params[1, 1] = 0.02 + 0.05 * (i % 4), 0.2 - 0.05 * (i % 4)
    return net


@pytest.mark.parametrize(
    ("options", "batched"), [({}, True), ({}, False), ({"regrow": False}, True), ({"full_grid": True}, True)]
)
def test_twenty_steps_with_moving_masks_are_those_of_the_plain_path(options: dict[str, Any], batched: bool) -> None:
    plain = with_masks(options)
    reserved = copy.deepcopy(plain)
    reserved.reserve(2)
    reserved.batched = batched
    _, sides = moving(plain, 20, look_every=1)
    outgrown, _ = moving(reserved, 20, look_every=4)
    assert outgrown == [] and {1, 3, 5, 7, 9} <= sides
    assert plain.kernel_sizes() == reserved.kernel_sizes()
    for (name, ours), other in zip(reserved.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10, msg=name)


def test_a_mask_of_one_position_grows_out_of_a_window_as_it_does_without() -> None:
    """R-24: gradients to all parameters at 1x1, on windows of 3, 5 and 9."""
    net = small().double()
    net.hold(1)
    net.hold(None)
    x = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(net(x).logsumexp(1).sum(), list(net.parameters()))

    expected = gradients()
    assert all(g.any() for g, (name, _) in zip(expected, net.named_parameters(), strict=True) if "mask" in name)
    for margin, side in ((0, 3), (2, 5), (4, 9)):
        net.reserve(margin)
        assert {kernel.shape[2] for kernel in net.kernels()} == {side}
        for ours, plain in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_a_crop_that_outgrows_its_window_is_reported_until_the_next_look() -> None:
    net = small()
    net.reserve(1)
    layer = masked(net)[2]
    assert layer.reserved == (5, 5) and net.look() == ([], False)
    with torch.no_grad():
        layer.mask_params[1, 1] = 0.25
    assert net.kernels()[2].shape[2:] == (5, 5)
    with torch.no_grad():
        layer.mask_params[1, 1] = 0.075
    net.kernels()
    assert net.look() == (["blocks.0.conv2"], False)
    with torch.no_grad():
        layer.mask_params[1, 1] = 0.25
    assert net.look() == ([], True)  # no kernel was made with it
    assert layer.reserved == (5, 11) and net.kernel_sizes()["blocks.0.conv2"] == (3, 9)
    net.kernels()
    assert net.look() == ([], False)
    net.reserve(None)
    assert layer.reserved is None and net.kernels()[2].shape[2:] == (3, 9)


def test_reserving_and_holding_end_each_other() -> None:
    net = small()
    net.reserve(1)
    net.hold(5)
    assert net.margin is None and net.kernels()[0].shape[2:] == (5, 5)
    net.reserve(1)
    assert masked(net)[0].held is None and net.kernels()[0].shape[2:] == (7, 7)
    assert not any("windows" in name or "outgrown" in name for name in net.state_dict())


@pytest.mark.parametrize("batched", [True, False])
def test_between_looks_the_host_never_waits(batched: bool, no_look: Callable[[], None]) -> None:
    net = small()
    net.reserve(2)
    net.batched = batched
    x = torch.randn(2, 3, SIDE, SIDE)
    no_look()
    torch.autograd.backward(net(x).logsumexp(1).sum(), inputs=list(net.parameters()))
