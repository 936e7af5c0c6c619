"""Kernels with the gradient written by hand against the plain form, and against finite differences, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from baselines.filter_products import AxisMasks, axis_positions, masked_features, on_axes
from baselines.flexconv import FlexConv2d, centre, grid
from baselines.kernel_nets import FourierNet, GaborNet, MAGNet, MultiplicativeNet
from baselines.masks import axis_masks, sigma_of
from baselines.pointwise import LastLayer

NETS = {"magnet": MAGNet, "gabor": GaborNet, "fourier": FourierNet}
HORIZON = 17


def slow_waves(net: MultiplicativeNet) -> None:
    """Finite differences mean nothing at the waves' initial frequencies."""
    with torch.no_grad():
        for each in net.filters:
            weight = each.get_parameter("linear.weight")
            weight.copy_(weight / weight.abs().max() * 3)


@pytest.mark.parametrize("size", [(3, 5), (5, 3), (3, 3), (1, 3)])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_finite_differences(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    nets = [NETS[name](1, hidden=2, layers=2).double() for _ in range(2)]
    for net in nets:
        slow_waves(net)
    x = axis_positions(grid(7).double(), size)
    masks = torch.rand(2, 2, len(x), dtype=torch.float64, requires_grad=True)
    parameters = [p for net in nets for key, p in net.named_parameters() if not key.startswith("output")]

    def features(masks: Tensor, *_: Tensor) -> Tensor:
        return masked_features(nets, x, size, masks)

    assert torch.autograd.gradcheck(features, (masks, *parameters))


def test_gradients_of_the_last_layer_and_of_the_masks() -> None:
    torch.manual_seed(0)
    shapes = (3, 5), (4, 2, 1, 1), (4,)
    features, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.autograd.gradcheck(LastLayer.apply, (features, weight, bias))
    x = torch.linspace(-1, 1, 5).double()
    params = torch.tensor([[[0.1, 0.3], [-0.2, -0.5]], [[0.0, 0.2], [0.3, 0.9]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(AxisMasks.apply, (x, params.requires_grad_()))
    with torch.no_grad():
        params[0, 0, 1] = 1e-5
    ours, plain = AxisMasks.apply(x, params), axis_masks(on_axes(x), params).squeeze(-1)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn_like(ours)
    gradients = (torch.autograd.grad(masks, params, weight) for masks in (ours, plain))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("full_grid", [False, True])
@pytest.mark.parametrize("size", [(5, 5), (3, 9), (15, 7), (1, 5), (17, 17)])
@pytest.mark.parametrize("name", NETS)
def test_a_layers_kernel_and_gradients_are_those_of_the_plain_form(
    name: str, size: tuple[int, int], full_grid: bool
) -> None:
    torch.manual_seed(0)
    layer = FlexConv2d(3, 4, horizon=HORIZON, kernel_net=name, full_grid=full_grid)
    with torch.no_grad():
        for axis, side in enumerate(size):
            layer.mask_params[axis] = torch.tensor([0.003, sigma_of(side, HORIZON)])
    assert layer.kernel_size() == size
    plain = copy.deepcopy(layer)
    layer.fused = True
    assert layer.multiplies() and not plain.multiplies()
    in_single, expected = layer.kernel(), plain.kernel()
    torch.testing.assert_close(in_single, expected, rtol=1e-6, atol=1e-6 * float(expected.detach().abs().max()))
    kernels = [each.double().kernel() for each in (layer, plain)]
    torch.testing.assert_close(*kernels, rtol=1e-12, atol=1e-13)
    weight = torch.randn_like(kernels[0])
    for kernel in kernels:
        (kernel * weight).sum().backward()
    for (key, ours), other in zip(layer.named_parameters(), plain.parameters(), strict=True):
        if key != "bias":
            assert ours.grad is not None and other.grad is not None and other.grad.any()
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-10, atol=1e-11, msg=key)


def test_a_siren_stays_with_the_plain_form() -> None:
    layer = FlexConv2d(3, 4, horizon=HORIZON, kernel_net="siren")
    layer.fused = True
    assert not layer.multiplies()


def test_positions_are_those_of_the_crop() -> None:
    points = grid(HORIZON)
    for size in ((3, 5), (7, 1)):
        cropped, x = centre(points, size), axis_positions(points, size)
        k = len(x)
        assert torch.equal(cropped[0, :, 0], x[(k - size[0]) // 2 : (k + size[0]) // 2])
        assert torch.equal(cropped[1, 0], x[(k - size[1]) // 2 : (k + size[1]) // 2])
