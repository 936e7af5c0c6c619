"""FlexConv: mask, crop and layer against the equations in float64; regrowth, tiny sigmas, the full-grid form."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.flexconv import FlexConv2d, grid
from baselines.kernel_nets import KERNEL_NETS
from baselines.masks import crop_size, gaussian_mask

MASKS = [
    [[0.0, 0.075], [0.0, 0.075]],
    [[0.1, 0.05], [-0.2, 0.3]],
    [[-0.3, 0.02], [0.0, -0.2]],
    [[0.0, 0.5], [0.9, 0.1]],
]


def layer_with(mask: list[list[float]], *, horizon: int = 17, double: bool = True, **options: object) -> FlexConv2d:
    torch.manual_seed(2)
    layer = FlexConv2d(3, 4, horizon=horizon, **options).to(torch.float64 if double else torch.float32)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.mask_params.copy_(torch.tensor(mask, dtype=torch.float64))
        layer.bias.normal_()
    return layer


def kept(horizon: int, mean: float, sigma: float) -> list[int]:
    """Which positions of an axis stay: |x| < r, and all if r >= 1; the centre always."""
    r = max(abs(sign * math.sqrt(-2 * math.log(0.1)) * abs(sigma) + mean) for sign in (-1, 1))
    x = [-1 + 2 * i / (horizon - 1) for i in range(horizon)]
    return [i for i in range(horizon) if r >= 1 or abs(x[i]) < r or i == horizon // 2]


def slow_mask(points: Tensor, mask: list[list[float]]) -> Tensor:
    def at(p: list[float]) -> float:
        return math.exp(-sum(((p[d] - mask[d][0]) / mask[d][1]) ** 2 / 2 for d in (0, 1)))

    values = [at(p) for p in points.flatten(1).t().tolist()]
    return torch.tensor(values, dtype=torch.float64).view(points.shape[1:])


def slow_kernel(layer: FlexConv2d, mask: list[list[float]]) -> Tensor:
    """All positions, one float64 evaluation; then the mask; then the crop."""
    points = layer.positions
    kernel = layer.kernel_net(points).detach() * slow_mask(points, mask)
    rows, columns = (kept(layer.horizon, mean, sigma) for mean, sigma in mask)
    return kernel[:, rows][:, :, columns].view(4, 3, len(rows), len(columns))


def test_the_grid_has_rows_first() -> None:
    points = grid(5)
    assert points.shape == (2, 5, 5)
    assert points[0, :, 2].tolist() == points[1, 3].tolist() == [-1, -0.5, 0, 0.5, 1]


@pytest.mark.parametrize("horizon", [-3, 0, 1, 2, 32])
def test_a_horizon_that_is_not_odd_is_refused(horizon: int) -> None:
    with pytest.raises(ValueError, match=f"odd number of 3 or more.*got {horizon}"):
        FlexConv2d(3, 4, horizon=horizon)


@pytest.mark.parametrize("mask", MASKS)
def test_the_mask_is_the_equation(mask: list[list[float]]) -> None:
    points = torch.rand(2, 4, 7, dtype=torch.float64) * 2 - 1
    found = gaussian_mask(points, torch.tensor(mask, dtype=torch.float64))
    torch.testing.assert_close(found, slow_mask(points, mask))


@pytest.mark.parametrize("horizon", [5, 17, 29, 33, 97])
def test_crop_sizes_are_the_positions_within_reach(horizon: int) -> None:
    generator = torch.Generator().manual_seed(horizon)
    means = (torch.rand(40, generator=generator) * 1.6 - 0.8) * (torch.rand(40, generator=generator) < 0.7)
    for mean, sigma in zip(means.tolist(), (torch.rand(40, generator=generator) * 0.5).tolist(), strict=True):
        size = crop_size(torch.tensor([[mean, sigma], [0.0, 0.1]], dtype=torch.float64), horizon)
        assert size == (len(kept(horizon, mean, sigma)), len(kept(horizon, 0.0, 0.1)))


def test_crop_sizes_that_the_authors_layer_has() -> None:
    first = torch.tensor([[0.0, 0.075], [0.0, 0.075]])
    assert [crop_size(first, horizon)[0] for horizon in (17, 29, 33, 97)] == [3, 5, 5, 15]
    by_sigma = {0.05: 3, 0.1: 7, 0.15: 11, 0.2: 13, 0.3: 21, 0.4: 27, 0.46: 31, 0.466: 33}
    assert {s: crop_size(torch.tensor([[0.0, s], [0.0, -s]]), 33) for s in by_sigma} == {
        s: (k, k) for s, k in by_sigma.items()
    }
    assert crop_size(torch.tensor([[0.1, 0.05], [-0.2, 0.3]]), 33) == (7, 27)


@pytest.mark.parametrize("full_grid", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_kernel_and_output_are_the_equations(mask: list[list[float]], full_grid: bool) -> None:
    layer = layer_with(mask, full_grid=full_grid)
    expected = slow_kernel(layer, mask)
    assert layer.kernel_size() == tuple(expected.shape[2:])
    assert layer.points().shape[1:] == expected.shape[2:]
    torch.testing.assert_close(layer.kernel(), expected, atol=1e-12, rtol=1e-10)
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    padding = (expected.shape[2] // 2, expected.shape[3] // 2)
    y = F.conv2d(x, expected, layer.bias, padding=padding)
    torch.testing.assert_close(layer(x), y, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(layer(x, expected), y, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("mask", [*MASKS, [[0.0, 0.01], [0.0, 0.2]]])
def test_the_full_grid_gives_the_same_gradients(mask: list[list[float]]) -> None:
    cropped, full = (layer_with(mask, full_grid=full_grid) for full_grid in (False, True))
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    for layer in (cropped, full):
        layer(x).square().sum().backward()
    for (name, a), b in zip(cropped.named_parameters(), full.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-8, rtol=1e-6, msg=name)


def test_gradients_of_the_mask_are_those_of_finite_differences() -> None:
    """Away from where the crop jumps."""
    layer = layer_with([[0.03, 0.09], [-0.05, 0.17]])
    weight = torch.randn_like(layer.kernel())

    def value(mask_params: Tensor) -> Tensor:
        points = layer.points()
        return (layer.kernel_net.on_grid(points, gaussian_mask(points, mask_params)).view_as(weight) * weight).sum()

    assert torch.autograd.gradcheck(value, (layer.mask_params,))
    (layer.kernel() * weight).sum().backward()
    (expected,) = torch.autograd.grad(value(layer.mask_params), layer.mask_params)
    torch.testing.assert_close(layer.mask_params.grad, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [7, 8])
def test_a_stride_takes_every_second_position_of_the_same_size_output(stride: int, height: int) -> None:
    layer = layer_with(MASKS[1], stride=stride)
    plain = layer_with(MASKS[1])
    x = torch.randn(1, 3, height, height + 1, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x)[:, :, ::stride, ::stride])


@pytest.mark.parametrize("kernel_net", KERNEL_NETS)
def test_parameter_counts_and_what_is_saved(kernel_net: str) -> None:
    base = {"magnet": 4064, "gabor": 3936, "fourier": 3552, "siren": 1152}[kernel_net]
    layer = FlexConv2d(3, 4, horizon=33, kernel_net=kernel_net)
    assert sum(p.numel() for p in layer.parameters()) == base + 33 * 12 + 4 + 4
    assert "positions" not in layer.state_dict()
    other = FlexConv2d(3, 4, horizon=33, kernel_net=kernel_net)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.kernel(), copy.deepcopy(layer).kernel())


def test_the_start() -> None:
    layer = FlexConv2d(24, 24, horizon=33)
    assert layer.mask_params.tolist() == [[0, pytest.approx(0.075)]] * 2
    assert not layer.bias.any()
    assert 0.02 < float(layer.kernel().detach().std()) < 0.1  # 0.048 over 20 seeds of the authors' layer


#


def test_a_kernel_of_one_position_is_the_original_and_yet_learns_its_size() -> None:
    one = [[0.0, 0.02], [0.0, 0.02]]  # horizon 17: sigma below 0.058 keeps the centre only
    layer, original = layer_with(one), layer_with(one, regrow=False)
    x, target = (torch.randn(2, c, 9, 9, dtype=torch.float64) for c in (3, 4))
    outputs = [each(x) for each in (layer, original)]
    torch.testing.assert_close(*outputs)
    assert layer.kernel_size() == original.kernel_size() == (1, 1)
    assert original.kernel().shape[2:] == (1, 1)
    for y in outputs:
        (y - target).square().mean().backward()
    for (name, a), b in zip(layer.named_parameters(), original.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        if name != "mask_params":
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert original.mask_params.grad is not None and not original.mask_params.grad.any()
    assert layer.mask_params.grad is not None and layer.mask_params.grad[:, 1].abs().min() > 1e-6


def test_the_gradient_of_a_lone_position_is_that_of_the_mask_which_just_reaches_its_neighbours() -> None:
    """Along one axis, finite differences of a 3-wide kernel whose neighbours count 0 at first."""
    layer = layer_with([[0.0, 0.02], [0.0, 0.2]])
    kernel = layer.kernel()
    weight = torch.randn_like(kernel)
    assert layer.kernel_size() == (1, 7) and kernel.shape[2:] == (3, 7)
    assert not kernel[:, :, [0, 2]].any()
    (found,) = torch.autograd.grad((kernel * weight).sum(), layer.mask_params)
    sides = layer.kernel_net(layer.points()).view_as(weight) * weight * torch.tensor([1.0, 0, 1]).view(3, 1)
    columns = torch.exp(-((layer.points()[1, 0] / 0.2) ** 2) / 2)
    barely, step = 0.125 / math.sqrt(-2 * math.log(0.1)), 1e-6
    up, down = (math.exp(-((0.125 / (barely + d)) ** 2) / 2) for d in (step, -step))
    assert float(found[0, 1]) == pytest.approx(
        float((sides * columns).sum().detach()) * (up - down) / (2 * step), rel=1e-5
    )


@pytest.mark.parametrize("sigma", [0.05, 0.01, 1e-5, 0.0, -0.02])
def test_a_mask_of_one_position_grows_where_a_larger_kernel_helps(sigma: float) -> None:
    layer = layer_with([[0.0, sigma], [0.0, sigma]], double=False)
    wanted = layer_with([[0.0, 0.2], [0.0, 0.2]], double=False).kernel().detach()
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12)
    target = F.conv2d(x, wanted, layer.bias.detach(), padding=wanted.shape[2] // 2)
    for _ in range(12):
        (gradient,) = torch.autograd.grad((layer(x) - target).square().mean(), layer.mask_params)
        with torch.no_grad():
            layer.mask_params.sub_(0.02 * gradient.sign())
    assert min(layer.kernel_size()) >= 3


def test_a_mask_of_one_position_costs_nothing_where_no_gradient_is_recorded() -> None:
    layer = layer_with([[0.0, 0.02], [0.0, 0.02]])
    with torch.no_grad():
        assert layer.kernel().shape[2:] == (1, 1)
    layer.mask_params.requires_grad_(False)
    assert layer.kernel().shape[2:] == (1, 1)


#


@pytest.mark.parametrize("regrow", [True, False])
@pytest.mark.parametrize("full_grid", [True, False])
@pytest.mark.parametrize("mean", [0.0, 0.3, 1e-20])
@pytest.mark.parametrize("sigma", [0.0, -0.0, 1e-45, 1e-20, -1e-20, 1e-8, 1e-3])
def test_a_sigma_near_0_gives_finite_numbers(sigma: float, mean: float, full_grid: bool, regrow: bool) -> None:
    layer = layer_with([[mean, sigma], [0.0, 0.1]], double=False, full_grid=full_grid, regrow=regrow)
    y = layer(torch.randn(2, 3, 9, 9))
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_centred_mask_with_sigma_0_is_one_position() -> None:
    layer = layer_with([[0.0, 0.0], [0.0, 0.0]], regrow=False)
    centre = layer.kernel_net(torch.zeros(2, 1, 1, dtype=torch.float64)).view(4, 3, 1, 1)
    torch.testing.assert_close(layer.kernel(), centre)


def test_a_mask_that_diverged_gives_no_crash() -> None:
    assert crop_size(torch.tensor([[0.0, math.nan], [math.inf, 0.1]]), 33) == (33, 33)
