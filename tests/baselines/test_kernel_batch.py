"""All kernels in one batched pass against each layer's own, in float64: values, gradients, grouping, transfers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from baselines.ckconv import CKConv2d
from baselines.flexconv import FlexConv2d
from baselines.kernel_batch import (
    CPU,
    FEW,
    KernelLayer,
    area,
    batched_kernels,
    crop_sizes,
    groups,
    hull,
    make_job,
)
from baselines.kernel_network import KernelNetwork

HORIZON = 33
STEP = 2 / (HORIZON - 1)
PAIRS = [(1, 4), (4, 4), (4, 2), (2, 3)]  # channels in and out

# The sides of each layer's kernel: equal, differing little and much, not square, at one position, the whole grid.
SIZES = {
    "equal": [(5, 5)] * 4,
    "similar": [(5, 7), (5, 5), (7, 5), (9, 3)],
    "different": [(3, 3), (33, 5), (5, 21), (21, 21)],
    "single": [(1, 1), (1, 7), (5, 5), (3, 1)],
    "all": [(33, 33), (33, 33), (31, 33), (33, 33)],
}


def sigma(side: int) -> float:
    """In the middle of those that give this side."""
    return 0.9 if side == HORIZON else side * STEP / 2 / math.sqrt(-2 * math.log(0.1))


def flexconvs(sizes: list[tuple[int, int]], kernel_net: str = "magnet", **options: Any) -> list[KernelLayer]:
    layers: list[KernelLayer] = []
    for (c_in, c_out), sides in zip(PAIRS, sizes, strict=True):
        layer = FlexConv2d(c_in, c_out, horizon=HORIZON, kernel_net=kernel_net, **options)
        with torch.no_grad():
            for axis, side in enumerate(sides):
                mean = 0.01 if side > 1 else 0.0
                layer.mask_params[axis] = torch.tensor([mean, sigma(side)])
        layers.append(layer)
    return layers


def assert_same(layers: list[KernelLayer]) -> None:
    """The kernels and their gradients are those of the layers one by one."""
    for layer in layers:
        layer.double()
    found, expected = batched_kernels(layers), [layer.kernel() for layer in layers]
    weights = [torch.randn_like(kernel) for kernel in expected]
    for kernel, other in zip(found, expected, strict=True):
        torch.testing.assert_close(kernel, other, rtol=1e-12, atol=1e-12)
    parameters = [p for layer in layers for name, p in layer.named_parameters() if name != "bias"]
    gradients = (torch.autograd.grad(kernels, parameters, weights) for kernels in (found, expected))
    for gradient, other in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kernel_net", ["magnet", "gabor", "fourier", "siren"])
def test_masked_kernels_are_those_of_the_layers(kernel_net: str, sizes: str) -> None:
    layers = flexconvs(SIZES[sizes], kernel_net)
    assert crop_sizes(layers) == SIZES[sizes] == [layer.kernel_size() for layer in layers]
    assert_same(layers)


@pytest.mark.parametrize("kernel_net", ["magnet", "gabor", "fourier", "siren"])
@pytest.mark.parametrize("horizon", [3, 21])
def test_kernels_without_mask_are_those_of_the_layers(kernel_net: str, horizon: int) -> None:
    assert_same([CKConv2d(c_in, c_out, horizon=horizon, kernel_net=kernel_net) for c_in, c_out in PAIRS])


@pytest.mark.parametrize("options", [{"full_grid": True}, {"regrow": False}])
@pytest.mark.parametrize("sizes", ["different", "single"])
def test_options_of_the_layers_count(options: dict[str, Any], sizes: str) -> None:
    assert_same(flexconvs(SIZES[sizes], **options))


def test_full_grid_evaluates_all_positions() -> None:
    for full_grid, extent in ((True, (33, 33)), (False, (5, 21))):
        (*_, layer) = flexconvs([(3, 3)] * 3 + [(5, 21)], full_grid=full_grid)
        job = make_job(0, layer, (5, 21))
        assert job.extent == extent and job.window == (5, 21)


def test_without_gradients_a_kernel_has_the_size_of_the_crop() -> None:
    layers = flexconvs(SIZES["single"])
    assert [kernel.shape[2:] for kernel in batched_kernels(layers)] == [(3, 3), (3, 7), (5, 5), (3, 3)]
    with torch.no_grad():
        found = batched_kernels(layers)
        assert [kernel.shape[2:] for kernel in found] == SIZES["single"]
        for kernel, layer in zip(found, layers, strict=True):
            torch.testing.assert_close(kernel, layer.kernel())


def test_a_mask_at_one_position_may_grow_again() -> None:
    layer, *_ = layers = flexconvs([(1, 1)] * 4)
    assert isinstance(layer, FlexConv2d)
    batched_kernels(layers)[0].square().sum().backward()
    assert layer.mask_params.grad is not None and not layer.mask_params.grad.any()  # zeros have no slope in the square
    layer.mask_params.grad = None
    batched_kernels(layers)[0].sum().backward()
    assert layer.mask_params.grad is not None and layer.mask_params.grad[:, 1].all()


def test_layers_of_different_kinds() -> None:
    others = [*flexconvs(SIZES["similar"], "gabor"), CKConv2d(2, 3, horizon=9), CKConv2d(2, 3, horizon=11)]
    narrow = FlexConv2d(2, 3, horizon=HORIZON)
    narrow.kernel_net = type(narrow.kernel_net)(6, hidden=8, layers=2)  # type: ignore[call-arg]
    layers = [others[0], narrow, *flexconvs(SIZES["similar"]), *others[1:]]
    assert_same(layers)
    assert sum(map(len, groups([make_job(0, layer, layer.kernel_size()) for layer in layers]))) == len(layers)


def test_layers_of_one_size_go_together_and_little_is_evaluated_in_vain() -> None:
    def grouped(sizes: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        layers = flexconvs(sizes)
        found = groups([make_job(i, layer, size) for i, (layer, size) in enumerate(zip(layers, sizes, strict=True))])
        return [[job.extent for job in group] for group in found]

    assert len(grouped(SIZES["equal"])) == 1
    assert len(grouped([(33, 33)] * 4)) == 1
    assert len(grouped([(3, 3), (3, 3), (33, 33), (33, 33)])) == 2
    layers = flexconvs([(33, 33)] * 4) * 10
    found = groups([make_job(i, layer, (33, 33)) for i, layer in enumerate(layers)])
    assert len(found) > 1 and max(len(group) * area(hull(group)) for group in found) <= CPU.most


def test_both_forms_of_the_last_layer_are_tried() -> None:
    areas = [area(size) for sizes in SIZES.values() for size in sizes]
    assert min(areas) < FEW < max(areas)


class Transfers(TorchFunctionMode):
    """Counts what waits for the device."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waiting = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero")
        self.count += getattr(func, "__name__", "") in waiting
        return func(*args, **(kwargs or {}))


class Chain(KernelNetwork):
    """Two layers, one after the other, the second inside another module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = FlexConv2d(2, 3, horizon=9)
        self.rest = nn.Sequential(nn.ReLU(), FlexConv2d(3, 2, horizon=9, stride=2))

    def forward(self, x: Tensor, kernels: list[Tensor] | None = None) -> Tensor:
        given = self.each_kernel(kernels)
        return self.rest[1](self.rest[0](self.first(x, next(given))), next(given))


@pytest.mark.parametrize("sizes", SIZES)
def test_one_transfer_for_all_crop_sizes(sizes: str) -> None:
    layers = flexconvs(SIZES[sizes])
    with Transfers() as transfers:
        batched_kernels(layers)
    assert transfers.count == 1


def test_a_network_of_such_layers() -> None:
    net = Chain()
    x = torch.randn(2, 2, 8, 8)
    assert list(net.layers()) == ["first", "rest.1"]
    assert net.kernel_sizes() == {name: layer.kernel_size() for name, layer in net.layers().items()}
    kernels = net.kernels()
    expected = net.rest(net.first(x))
    torch.testing.assert_close(net(x), expected)
    assert torch.equal(net(x, kernels), net(x))
    doubled = [2 * kernel for kernel in kernels]
    torch.testing.assert_close(net(x, doubled), 4 * expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="one kernel is needed for each of 2 layers; got 1"):
        net(x, kernels[:1])


def test_norms_of_kernels_and_biases() -> None:
    net = Chain()
    with torch.no_grad():
        net.first.bias.copy_(torch.tensor([3.0, 0.0, -4.0]))
    kernels = [torch.full((3, 2, 1, 1), -2.0, requires_grad=True), torch.zeros(2, 3, 1, 1)]
    norms = net.kernel_norms(kernels)
    assert norms.item() == pytest.approx(24**0.5 + 5)
    norms.backward()
    assert kernels[0].grad is not None
    torch.testing.assert_close(kernels[0].grad, kernels[0].detach() / 24**0.5)
    gradient = net.get_parameter("rest.1.bias").grad
    assert gradient is not None and gradient.tolist() == [0, 0]  # not NaN at zero


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    layers = [layer.cuda() for layer in flexconvs(SIZES["different"])]
    for kernel, layer in zip(batched_kernels(layers), layers, strict=True):
        torch.testing.assert_close(kernel, layer.kernel(), rtol=1e-4, atol=1e-5)
