"""Kernel networks: against the equations, position by position in float64; gradients, starts and order of draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.flexconv import grid
from baselines.kernel_nets import KERNEL_NETS, FourierNet, GaborNet, MAGNet, make_kernel_net
from baselines.pointwise import KernelNet

NAMES = list(KERNEL_NETS)
MULTIPLICATIVE = ["magnet", "gabor", "fourier"]


def small(name: str, out_channels: int = 3) -> KernelNet:
    torch.manual_seed(5)
    return KERNEL_NETS[name](out_channels, hidden=3).double()


def not_square() -> Tensor:
    """(2, 3, 5) of the positions of horizon 9."""
    return grid(9).double()[:, 3:6, 2:7]


def linear(weight: Tensor, bias: Tensor, z: list[float]) -> list[float]:
    rows = weight.flatten(1).tolist()
    return [sum(a * x for a, x in zip(row, z, strict=True)) + b for row, b in zip(rows, bias.tolist(), strict=True)]


def filter_at(p: list[float], parameters: dict[str, Tensor], prefix: str) -> list[float]:
    """g_l at one position, from the equation."""
    g = [math.sin(t) for t in linear(parameters[f"{prefix}.linear.weight"], parameters[f"{prefix}.linear.bias"], p)]
    if f"{prefix}.mu" not in parameters:
        return g
    mu, gamma = parameters[f"{prefix}.mu"].tolist(), parameters[f"{prefix}.gamma"].expand(-1, 2).tolist()
    exponents = [sum((gamma[u][d] * (p[d] - mu[u][d])) ** 2 for d in (0, 1)) for u in range(len(g))]
    return [math.exp(-exponent / 2) * value for exponent, value in zip(exponents, g, strict=True)]


def kernel_at(p: list[float], name: str, parameters: dict[str, Tensor]) -> list[float]:
    """The output at one position, from the equations."""
    if name == "siren":
        z = p
        for level in (0, 1):
            t = linear(parameters[f"linears.{level}.weight"], parameters[f"linears.{level}.bias"], z)
            z = [math.sin(30 * each) for each in t]
        return linear(parameters["linears.2.weight"], parameters["linears.2.bias"], z)
    z = filter_at(p, parameters, "filters.0")
    for level in (1, 2, 3):
        h = linear(parameters[f"linears.{level - 1}.weight"], parameters[f"linears.{level - 1}.bias"], z)
        z = [a * b for a, b in zip(filter_at(p, parameters, f"filters.{level}"), h, strict=True)]
    return linear(parameters["output.weight"], parameters["output.bias"], z)


def slow(net: KernelNet, name: str, points: Tensor) -> Tensor:
    parameters = {key: value.detach() for key, value in net.named_parameters()}
    values = [kernel_at(p, name, parameters) for p in points.flatten(1).t().tolist()]
    return torch.tensor(values, dtype=torch.float64).t().reshape(-1, *points.shape[1:])


@pytest.mark.parametrize("name", NAMES)
def test_any_positions_give_the_equations(name: str) -> None:
    net, points = small(name), torch.rand(2, 3, 4, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(net(points), slow(net, name, points), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("size", [(3, 5), (5, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_the_fast_form_on_a_grid_gives_the_equations_and_the_mask(name: str, size: tuple[int, int]) -> None:
    net, points = small(name), grid(9).double()[:, 2 : 2 + size[0], 3 : 3 + size[1]]
    mask = torch.rand(size, dtype=torch.float64)
    expected = slow(net, name, points)
    torch.testing.assert_close(net.on_grid(points), expected, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(net.on_grid(points, mask), expected * mask, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    net, points = small(name, 1), not_square()
    with torch.no_grad():
        for key, parameter in net.named_parameters():  # slower waves, or finite differences mean nothing
            if key.startswith("filters") and key.endswith("weight"):
                parameter.copy_(parameter / parameter.abs().max() * 3)
    keys = [key for key, _ in net.named_parameters()]
    values = tuple(value.detach().requires_grad_() for value in net.parameters())
    mask = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)

    def on_grid(mask: Tensor, *values: Tensor) -> Tensor:
        return functional_call(Fast(net, mask), {f"net.{k}": v for k, v in zip(keys, values, strict=True)}, (points,))

    assert torch.autograd.gradcheck(on_grid, (mask, *values))


class Fast(nn.Module):
    """`on_grid` as a forward, which `functional_call` needs."""

    def __init__(self, net: KernelNet, mask: Tensor) -> None:
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, points: Tensor) -> Tensor:
        return self.net.on_grid(points, self.mask)


@pytest.mark.parametrize("name", NAMES)
def test_the_two_forms_have_the_same_gradients_in_float32(name: str) -> None:
    torch.manual_seed(0)
    net = KERNEL_NETS[name](6)
    points = grid(33)[:, 10:23, 4:29]
    weight = torch.randn(6, 13, 25)
    parameters = list(net.parameters())
    plain = torch.autograd.grad(net(points), parameters, weight)
    fast = torch.autograd.grad(net.on_grid(points), parameters, weight)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize(("name", "base"), [("magnet", 4064), ("gabor", 3936), ("fourier", 3552), ("siren", 1152)])
def test_parameter_counts(name: str, base: int) -> None:
    assert sum(p.numel() for p in KERNEL_NETS[name](12).parameters()) == base + 33 * 12


SHAPES: list[tuple[Callable[[], KernelNet], list[float], int]] = [
    (lambda: MAGNet(1, hidden=1000), [6, 3, 2, 1.5], 2),
    (lambda: GaborNet(1, hidden=1000), [1.5] * 4, 1),
]


@pytest.mark.parametrize(("make", "shapes", "axes"), SHAPES)
def test_gamma_starts_gamma_distributed_and_scales_the_waves(
    make: Callable[[], KernelNet], shapes: list[float], axes: int
) -> None:
    torch.manual_seed(1)
    state = make().state_dict()
    for level, shape in enumerate(shapes):
        gamma = state[f"filters.{level}.gamma"]
        assert gamma.shape == (1000, axes)
        assert float(gamma.mean()) == pytest.approx(shape, rel=0.08)  # mean and variance both equal the shape
        assert float(gamma.var()) == pytest.approx(shape, rel=0.2)
        waves = (state[f"filters.{level}.linear.weight"].flatten(1) / gamma).abs() / 12.8
        assert 0.69 < float(waves.max()) <= 1 / math.sqrt(2) + 1e-6
        mu = state[f"filters.{level}.mu"].abs()
        assert 0.124 < float(mu.max()) <= 0.125025
        phases = state[f"filters.{level}.linear.bias"].abs()
        assert 3.13 < float(phases.max()) <= math.pi


def test_fourier_waves_start_128_times_as_fast_as_pytorch_draws_them() -> None:
    weights = FourierNet(1, hidden=1000).state_dict()["filters.2.linear.weight"].abs()
    assert 0.7 < float(weights.max()) / 128 <= 1 / math.sqrt(2) + 1e-6


def test_hidden_layers_start_within_their_bounds() -> None:
    state = MAGNet(500).state_dict()
    for name in ("linears.0.weight", "linears.2.weight", "output.weight"):
        assert 0.95 * math.sqrt(1 / 32) < float(state[name].abs().max()) <= math.sqrt(1 / 32)


def test_siren_starts_within_its_bounds() -> None:
    net = KERNEL_NETS["siren"](2000)
    state = net.state_dict()
    for index, span in enumerate([1 / 2, math.sqrt(6 / 32) / 30, math.sqrt(6 / 32) / 30]):
        assert 0.9 * span < float(state[f"linears.{index}.weight"].abs().max()) <= span
    assert state["linears.0.omega_0"].item() == state["linears.1.omega_0"].item() == 30
    assert "linears.2.omega_0" not in state
    assert not any("omega" in name for name, _ in net.named_parameters())


@pytest.mark.parametrize("name", MULTIPLICATIVE)
def test_the_order_of_draws(name: str) -> None:
    """Hidden layers, output, hidden weights again; for each filter its linear layer, mu, gamma, phases."""
    torch.manual_seed(3)
    state = make_kernel_net(name, 5, mu_span=0.5).state_dict()
    torch.manual_seed(3)
    hidden = [nn.Conv2d(32, 32, 1) for _ in range(3)]
    output = nn.Conv2d(32, 5, 1)
    for index, layer in enumerate(hidden):
        nn.init.uniform_(layer.weight, -math.sqrt(1 / 32), math.sqrt(1 / 32))
        assert torch.equal(state[f"linears.{index}.weight"], layer.weight)
        assert layer.bias is not None and torch.equal(state[f"linears.{index}.bias"], layer.bias)
    assert torch.equal(state["output.weight"], output.weight)
    for level in range(4):
        linear = nn.Conv2d(2, 32, 1)
        scale: Tensor | float = 128.0
        if name != "fourier":
            mu = torch.empty(32, 2).uniform_(-0.5, 0.5)
            shape, axes = (6 / (level + 1), 2) if name == "magnet" else (1.5, 1)
            gamma = torch.distributions.Gamma(shape, 1.0).sample((32, axes))
            scale = 12.8 * gamma[:, :, None, None]
            assert torch.equal(state[f"filters.{level}.mu"], mu)
            assert torch.equal(state[f"filters.{level}.gamma"], gamma)
        phases = torch.empty(32).uniform_(-math.pi, math.pi)
        torch.testing.assert_close(state[f"filters.{level}.linear.weight"], linear.weight.detach() * scale)
        assert torch.equal(state[f"filters.{level}.linear.bias"], phases)


def test_mu_beyond_the_grid_is_clipped_on_the_right() -> None:
    mu = MAGNet(1, hidden=500, mu_span=2.0).state_dict()["filters.0.mu"]
    assert float(mu.max()) == 1 and float(mu.min()) < -1.5


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'mlp'; there are magnet, gabor, fourier, siren"):
        make_kernel_net("mlp", 4, mu_span=1.0)
