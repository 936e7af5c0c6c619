"""DCN-sigma^ji: counts, filters and f against slow evaluations, gradients, the solver against fixed small steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.dcn import ODEBlock, PairwiseGaussianConv, dcn, gaussian_derivatives

ORDERS = [(0, 2), (0, 1), (0, 0), (1, 1), (1, 0), (2, 0)]  # of the derivative along rows and columns


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def small_block(*, adjoint: bool, tolerance: float = 1e-9) -> ODEBlock:
    """Three channels, and norms that keep every CELU of 16 pixels below 0: no solution has a kink to step over."""
    torch.manual_seed(0)
    block = ODEBlock(3, adjoint=adjoint, rtol=tolerance, atol=tolerance)
    for norm in (block.norm1, block.norm2, block.norm3):
        nn.init.uniform_(norm.weight, 0.2, 0.5)
        nn.init.uniform_(norm.bias, -2.5, -2.0)
    return block.double()


def gradients(block: ODEBlock, h: Tensor, weights: Tensor) -> list[Tensor]:
    """Of sum(weights * h(2)): with respect to h, then to each parameter."""
    h = h.clone().requires_grad_()
    return list(torch.autograd.grad((weights * block(h)).sum(), [h, *block.parameters()]))


def test_counts() -> None:
    net = dcn()
    assert sum(p.numel() for p in net.parameters()) == 472_202
    filters = [m for m in net.modules() if isinstance(m, PairwiseGaussianConv)]
    assert sum(p.numel() for m in filters for p in m.parameters()) == 304_192
    assert sum(p.numel() for m in net.modules() if isinstance(m, nn.GroupNorm) for p in m.parameters()) == 1_792


def test_derivatives_are_those_of_a_gaussian() -> None:
    for sigma in (0.3, 0.8, 1.0, 2.7, 40.0):
        x = torch.arange(-3.0, 4.0, dtype=torch.float64).requires_grad_()
        g = torch.exp(-(x**2) / (2 * sigma**2))
        (first,) = torch.autograd.grad(g.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        expected = torch.stack((g, sigma * first, sigma**2 * second)) / g.sum()
        actual = gaussian_derivatives(torch.tensor(sigma, dtype=torch.float64))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_a_very_small_sigma_gives_finite_filters_and_gradients() -> None:
    layer = PairwiseGaussianConv(2, 2)
    nn.init.constant_(layer.scale, -20.0)
    kernel = layer.kernel()
    kernel.square().sum().backward()
    assert kernel.isfinite().all()
    assert layer.scale.grad is not None and layer.scale.grad.isfinite().all()


def test_each_channel_pair_has_its_own_sum_of_derivatives() -> None:
    layer = PairwiseGaussianConv(3, 2).double()
    expected = torch.zeros(2, 3, 7, 7, dtype=torch.float64)
    for c_in in range(3):
        for c_out in range(2):
            d = gaussian_derivatives(2 ** layer.scale[c_in, c_out])
            for f, (rows, columns) in enumerate(ORDERS):
                for y in range(7):
                    for x in range(7):
                        expected[c_out, c_in, y, x] += layer.alpha[f, c_in, c_out] * d[rows, y] * d[columns, x]
    torch.testing.assert_close(layer.kernel(), expected.detach())


def slow_correlation(x: Tensor, kernel: Tensor) -> Tensor:
    """(N, C, H, W), (O, C, 7, 7) -> (N, O, H, W): the window's products summed, zeros outside, no flip."""
    padded = F.pad(x, (3, 3, 3, 3))
    out = x.new_zeros(x.shape[0], kernel.shape[0], *x.shape[2:])
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = padded[:, None, :, i : i + 7, j : j + 7]
            out[:, :, i, j] = (window * kernel).sum(dim=(2, 3, 4))
    return out


def test_layer_against_a_slow_correlation() -> None:
    layer = PairwiseGaussianConv(3, 4).double()
    x = double(2, 3, 5, 9)
    torch.testing.assert_close(layer(x), slow_correlation(x, layer.kernel()))


def test_layer_gradients_against_finite_differences() -> None:
    layer = PairwiseGaussianConv(2, 3).double()

    def run(x: Tensor, alpha: Tensor, scale: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"alpha": alpha, "scale": scale}, (x,))

    inputs = [t.detach().requires_grad_() for t in (double(2, 2, 4, 3), layer.alpha, layer.scale)]
    assert torch.autograd.gradcheck(run, inputs)


def test_layer_initialisation() -> None:
    torch.manual_seed(0)
    layer = PairwiseGaussianConv(65, 64)
    assert layer.alpha.shape == (6, 65, 64) and layer.scale.shape == (65, 64)
    assert layer.alpha.std().item() == pytest.approx(0.1, rel=0.03)
    assert layer.scale.std().item() == pytest.approx(2 / 3, rel=0.05)
    assert abs(layer.scale.mean().item()) < 0.05


def slow_f(block: ODEBlock, t: float, h: Tensor) -> Tensor:
    """GN(conv2[t, CELU(GN(conv1[t, CELU(GN(h))]))]), the time as channel 0."""

    def norm(h: Tensor, layer: Any) -> Tensor:
        groups = [
            (part - part.mean(dim=(1, 2, 3), keepdim=True))
            / (part.var(dim=(1, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
            for part in h.chunk(min(32, h.shape[1]), dim=1)
        ]
        return torch.cat(groups, dim=1) * layer.weight[:, None, None] + layer.bias[:, None, None]

    def conv(h: Tensor, layer: PairwiseGaussianConv) -> Tensor:
        h = torch.where(h > 0, h, h.exp() - 1)
        return slow_correlation(torch.cat([torch.full_like(h[:, :1], t), h], dim=1), layer.kernel())

    return norm(conv(norm(conv(norm(h, block.norm1), block.conv1), block.norm2), block.conv2), block.norm3)


@pytest.mark.parametrize("channels", [3, 64])
def test_f_against_a_slow_evaluation(channels: int) -> None:
    torch.manual_seed(0)
    block = ODEBlock(channels, adjoint=True, rtol=1e-3, atol=1e-3).double()
    for p in block.parameters():
        p.data += 0.1 * torch.randn_like(p)
    h = double(2, channels, 4, 5)
    splits = block.conv1.split(4, 5), block.conv2.split(4, 5)
    for t in (0.0, 1.3):
        actual = block.derivative(torch.tensor(t, dtype=torch.float64), h, *splits)
        torch.testing.assert_close(actual, slow_f(block, t, h))


def runge_kutta(f: Callable[[float, Tensor], Tensor], h: Tensor, *, steps: int) -> Tensor:
    """h(2) by the classical method with fixed steps."""
    dt = 2 / steps
    for i in range(steps):
        t = i * dt
        k1 = f(t, h)
        k2 = f(t + dt / 2, h + dt / 2 * k1)
        k3 = f(t + dt / 2, h + dt / 2 * k2)
        k4 = f(t + dt, h + dt * k3)
        h = h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return h


@pytest.mark.parametrize("adjoint", [True, False])
def test_block_solves_the_equation_from_0_to_2(adjoint: bool) -> None:
    block = small_block(adjoint=adjoint)
    h = double(2, 3, 4, 4)
    with torch.no_grad():
        expected = runge_kutta(lambda t, h: slow_f(block, t, h), h, steps=25)
        torch.testing.assert_close(block(h), expected, rtol=1e-6, atol=1e-6)


def test_a_looser_tolerance_gives_less_exact_states_in_fewer_evaluations() -> None:
    h = double(2, 3, 4, 4)
    exact, loose = small_block(adjoint=False), small_block(adjoint=False, tolerance=1e-3)
    with torch.no_grad():
        error = (exact(h) - loose(h)).abs().max().item()
    assert 1e-6 < error < 0.05
    assert loose.nfe < exact.nfe / 3


def test_adjoint_gives_the_gradients_of_the_direct_method() -> None:
    h, weights = double(2, 3, 4, 4), double(2, 3, 4, 4)
    adjoint = gradients(small_block(adjoint=True), h, weights)
    direct = gradients(small_block(adjoint=False), h, weights)
    assert len(adjoint) == 11
    for one, other in zip(adjoint, direct, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adjoint", [True, False])
def test_block_gradients_against_finite_differences(adjoint: bool) -> None:
    block = small_block(adjoint=adjoint)
    h, weights = double(2, 3, 4, 3), double(2, 3, 4, 3)
    step = 1e-4
    for target, gradient in zip([h, *block.parameters()], gradients(block, h, weights), strict=True):
        direction = torch.randn_like(target)
        values = []
        for sign in (1, -1):
            target.data += sign * step * direction
            with torch.no_grad():
                values.append((weights * block(h)).sum().item())
            target.data -= sign * step * direction
        numeric = (values[0] - values[1]) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_evaluations_are_counted_and_as_many_as_the_authors_code_needs() -> None:
    torch.manual_seed(0)
    for adjoint in (True, False):
        block = ODEBlock(32, adjoint=adjoint, rtol=1e-3, atol=1e-3)
        y = block(torch.randn(1, 32, 8, 8))
        forward = block.nfe
        assert 20 <= forward <= 38 and (forward - 2) % 6 == 0  # two for the first step's length, six per step
        y.square().sum().backward()
        assert (block.nfe > forward) == adjoint


def test_network_by_hand() -> None:
    torch.manual_seed(0)
    net: Any = dcn(in_channels=1, num_classes=3, image_size=12)
    x = torch.randn(2, 1, 12, 11)
    with torch.no_grad():
        h = F.conv2d(x, net.stem.weight, net.stem.bias)
        assert h.shape == (2, 32, 10, 9)
        for i, shape in enumerate([(2, 64, 5, 4), (2, 128, 2, 2)]):
            h = F.celu(net.norms[i](net.blocks[i](h)))
            h = F.conv2d(h, net.downsample[i].weight, net.downsample[i].bias, stride=2, padding=1)
            assert h.shape == shape
        h = F.celu(net.norms[2](net.blocks[2](h)))
        expected = h.flatten(2).mean(dim=2) @ net.head.weight.T + net.head.bias
        torch.testing.assert_close(net(x), expected)
    assert [norm.num_groups for norm in net.norms] == [32, 32, 32]
    assert net.nfe == sum(block.nfe for block in net.blocks) > 0


@pytest.mark.parametrize("adjoint", [True, False])
def test_every_parameter_learns(adjoint: bool) -> None:
    torch.manual_seed(0)
    net: Any = dcn(image_size=8, adjoint=adjoint)
    for block in net.blocks:
        nn.init.constant_(block.norm3.weight, 0.02)  # slow change, so few steps
    F.cross_entropy(net(torch.rand(2, 3, 8, 8)), torch.tensor([1, 7])).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


@pytest.mark.parametrize("adjoint", [True, False])
def test_a_diverged_network_gives_nan_and_no_exception(adjoint: bool) -> None:
    net: Any = dcn(image_size=8, adjoint=adjoint)
    nn.init.constant_(net.blocks[1].conv1.alpha, torch.inf)
    logits = net(torch.rand(2, 3, 8, 8))
    assert logits.isnan().all()
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()


def test_copies_and_state_dict_give_the_same_logits_for_one_image() -> None:
    net, other = (dcn(image_size=6, rtol=0.01, atol=0.01) for _ in range(2))
    other.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 6, 6)
    logits = net(x)
    assert logits.shape == (1, 10)
    assert torch.equal(logits, other(x))
    assert torch.equal(logits, copy.deepcopy(net)(x))


@pytest.mark.parametrize("adjoint", [True, False])
def test_channels_last(adjoint: bool) -> None:
    block = small_block(adjoint=adjoint, tolerance=1e-6)
    h = double(2, 3, 4, 4)
    torch.testing.assert_close(block(h.to(memory_format=torch.channels_last)), block(h))


def test_too_small_an_image_and_no_tolerance_are_errors() -> None:
    with pytest.raises(ValueError, match="6 pixels or more") as caught:
        dcn(image_size=5)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="6 pixels or more"):
        dcn()(torch.rand(1, 3, 32, 5))
    with pytest.raises(ValueError, match="must be positive"):
        dcn(rtol=0.0)
