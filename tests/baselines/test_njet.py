"""N-Jet layer: basis and kernel against slow float64 loops, sizes by hand, gradients, strides, groups, bad scales."""

from __future__ import annotations

import copy
import math
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from baselines import njet
from baselines.njet import NJetConv2d, derivative_orders, half_width, safe_sample

Array = NDArray[np.float64]


def hermite(n: int, u: float) -> float:
    """The physicists' H_n, by its recurrence."""
    if n < 2:
        return 2 * u if n else 1.0
    return 2 * u * hermite(n - 1, u) - 2 * (n - 1) * hermite(n - 2, u)


def derivative(n: int, sigma: float, half: int) -> list[float]:
    """sigma^n (-1 / (sqrt(2) sigma))^n H_n(x / (sqrt(2) sigma)) g(x), with g divided by its sum over the grid."""
    gauss = [math.exp(-x * x / (2 * sigma**2)) for x in range(-half, half + 1)]
    root = math.sqrt(2) * sigma
    return [
        sigma**n * (-1 / root) ** n * hermite(n, x / root) * g / sum(gauss)
        for x, g in zip(range(-half, half + 1), gauss, strict=True)
    ]


def slow_basis(order: int, sigma: float, half: int) -> Array:
    found = []
    for i in range(order + 1):
        for j in range(order - i, -1, -1):
            rows, columns = derivative(i, sigma, half), derivative(j, sigma, half)
            found.append([[row * column for column in columns] for row in rows])
    return np.array(found)


def slow_convolution(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    """Cross-correlation with zero padding, tap by tap."""
    (n, _, height, width), (c_out, c_in, size, _), half = x.shape, kernel.shape, kernel.shape[2] // 2
    out = np.zeros((n, c_out, -(-height // stride), -(-width // stride)))
    for o, y, z, c, dy, dx in np.ndindex(c_out, *out.shape[2:], c_in, size, size):
        row, column = y * stride + dy - half, z * stride + dx - half
        if 0 <= row < height and 0 <= column < width:
            out[:, o, y, z] += kernel[o, c, dy, dx] * x[:, o // (c_out // groups) * c_in + c, row, column]
    return out


def layer(*args: int, **kwargs: Any) -> NJetConv2d:
    torch.manual_seed(0)
    return NJetConv2d(*args, **kwargs).double()


@pytest.mark.parametrize("scale", [-2.5, -0.3, 0.0, 0.6, 1.4])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 6, 9])
def test_basis_is_that_of_the_equations(order: int, scale: float) -> None:
    conv = layer(2, 3, order=order, init_scale=scale)
    expected = slow_basis(order, 2.0 ** conv.scale.item(), math.ceil(2 * 2.0**scale + 0.5))
    assert conv.basis().shape[0] == (order + 1) * (order + 2) // 2
    np.testing.assert_allclose(conv.basis().detach().numpy(), expected, rtol=1e-11, atol=1e-12)


def test_storage_order_axes_and_signs_by_hand() -> None:
    assert derivative_orders(2) == [(0, 2), (0, 1), (0, 0), (1, 1), (1, 0), (2, 0)]
    basis = layer(1, 1, order=2).basis()  # sigma = 1
    g = torch.exp(-(torch.arange(-3.0, 4, dtype=torch.float64) ** 2) / 2)
    g = g / g.sum()
    torch.testing.assert_close(basis[2], g[:, None] * g)  # (0, 0)
    assert basis[2].sum().item() == pytest.approx(1)
    for index, axis in ((1, 1), (4, 0)):  # (0, 1) falls along columns, (1, 0) along rows: negative right and below
        profile = basis[index].sum(dim=1 - axis)
        torch.testing.assert_close(profile, -torch.arange(-3.0, 4, dtype=torch.float64) * g)
    assert basis[0, 3, 3] < 0 < basis[0, 3, 0]  # u^2 - 1 along columns
    assert basis[0].sum().item() == pytest.approx(((torch.arange(-3.0, 4) ** 2 - 1) * g).sum().item())  # not centred


def test_derivatives_are_scale_normalised() -> None:
    """Twice the sigma is the same function of x / sigma, on a grid with points between the old ones."""
    fine, coarse = layer(1, 1, order=3, init_scale=1.0), layer(1, 1, order=3, init_scale=0.0)
    small = coarse.basis()
    wide = fine.basis()[:, 5 - 4 : 5 + 5 : 2, 5 - 4 : 5 + 5 : 2]  # x = -4..4 step 2 at sigma 2 is -2..2 at 1
    ratio = wide[3, 2, 2] / small[3, 3, 3]  # of (0, 0): the sums that divide g differ
    torch.testing.assert_close(wide, ratio * small[:, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("sigma", "size"),
    [(0.01, 3), (0.25, 3), (0.26, 5), (0.75, 5), (0.76, 7), (1.0, 7), (1.25, 7), (1.26, 9), (1.75, 9), (1.76, 11)],
)
def test_size_rule(sigma: float, size: int) -> None:
    assert 2 * half_width(math.log2(sigma), 2.0) + 1 == size
    if sigma >= 0.25:
        assert 2 * half_width(math.log2(sigma + 0.5), 2.0) + 1 == size + 2


def test_size_follows_the_extent_and_the_learned_scale() -> None:
    assert half_width(0.0, 1.0) == 2
    assert half_width(0.0, 3.0) == 4
    conv = NJetConv2d(2, 2)
    assert conv.kernel_size() == (7, 7)
    with torch.no_grad():
        conv.scale.fill_(1.5)
    assert conv.kernel_size() == (15, 15)
    assert conv.kernel().shape == (2, 2, 15, 15)
    assert conv(torch.randn(1, 2, 6, 6)).shape == (1, 2, 6, 6)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_layer_against_loops(stride: int, groups: int) -> None:
    conv = layer(6, 12, order=2, stride=stride, groups=groups, init_scale=-0.5)
    x = torch.randn(2, 6, 4, 7, dtype=torch.float64)
    basis, alphas = slow_basis(2, 2**-0.5, 2), conv.alphas.detach().numpy()
    assert alphas.shape == (6, 6 // groups, 12)
    kernel = np.zeros((12, 6 // groups, 5, 5))
    for f, c, o in np.ndindex(*alphas.shape):
        kernel[o, c] += alphas[f, c, o] * basis[f]
    np.testing.assert_allclose(conv.kernel().detach().numpy(), kernel, rtol=1e-11, atol=1e-12)
    expected = slow_convolution(x.numpy(), kernel, stride, groups)
    np.testing.assert_allclose(conv(x).detach().numpy(), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("stride", "groups", "scale"), [(1, 1, 0.1), (2, 2, -0.7), (1, 2, 0.5)])
def test_gradients_are_those_of_finite_differences(stride: int, groups: int, scale: float) -> None:
    conv = layer(2, 4, order=3, stride=stride, groups=groups, init_scale=scale)

    def run(x: torch.Tensor, alphas: torch.Tensor, scale: torch.Tensor) -> Any:
        return torch.func.functional_call(conv, {"alphas": alphas, "scale": scale}, (x,))

    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, conv.alphas, conv.scale))


def test_gradient_goes_through_the_normalisation() -> None:
    """The sum of g is 1 at every sigma, so it has no gradient; without one through the division it would have."""
    conv = layer(1, 1, order=0, init_scale=0.3)
    (gradient,) = torch.autograd.grad(conv.basis().sum(), conv.scale)
    assert abs(gradient.item()) < 1e-12
    (at_centre,) = torch.autograd.grad(conv.basis()[0, 3, 3], conv.scale)
    assert at_centre.item() < -0.01


def test_alphas_are_standard_normal_and_nothing_else_is_learned() -> None:
    torch.manual_seed(0)
    conv = NJetConv2d(64, 96, order=4, init_scale=-1.0)
    assert {name: tuple(p.shape) for name, p in conv.named_parameters()} == {"alphas": (15, 64, 96), "scale": (1,)}
    assert list(conv.state_dict()) == ["alphas", "scale"]
    assert conv.alphas.mean().item() == pytest.approx(0, abs=0.01)
    assert conv.alphas.std().item() == pytest.approx(1, abs=0.01)
    assert conv.scale.item() == -1


def test_double_copy_and_channels_last_agree_with_float32() -> None:
    conv = NJetConv2d(3, 4, order=3)
    x = torch.randn(2, 3, 9, 8)
    expected = conv(x)
    torch.testing.assert_close(copy.deepcopy(conv)(x), expected)
    memory: Any = torch.channels_last
    torch.testing.assert_close(conv(x.to(memory_format=memory)), expected, rtol=1e-4, atol=1e-4)
    assert conv.double()(x.double()).dtype == torch.float64
    torch.testing.assert_close(conv(x.double()).float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [-100.0, -50.0, -6.0])
def test_a_tiny_sigma_is_a_single_tap_with_finite_gradients(scale: float, dtype: torch.dtype) -> None:
    conv = NJetConv2d(2, 2, order=4, init_scale=scale).to(dtype)
    conv(torch.randn(1, 2, 4, 4, dtype=dtype)).square().sum().backward()
    assert conv.kernel_size() == (3, 3)
    centre = conv.basis()[:, 1, 1].detach()
    he = {0: 1.0, 1: 0.0, 2: -1.0, 3: 0.0, 4: 3.0}  # at 0
    assert centre.tolist() == pytest.approx([he[i] * he[j] for i, j in derivative_orders(4)])
    assert conv.basis().count_nonzero() == centre.count_nonzero()
    for parameter in conv.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, 40.0, -200.0])
def test_a_scale_that_ran_away_is_an_error_of_one_line(scale: float) -> None:
    conv = NJetConv2d(2, 2)
    with torch.no_grad():
        conv.scale.fill_(scale)
    with pytest.raises(ValueError, match="scale") as caught:
        conv(torch.randn(1, 2, 4, 4))
    assert "\n" not in str(caught.value)


def test_safe_sampling_by_hand() -> None:
    x = torch.arange(36.0).view(1, 1, 6, 6)
    torch.testing.assert_close(safe_sample(x, 1.0, r=4.0), x)  # 2^2 / 4 = 1
    torch.testing.assert_close(safe_sample(x, math.log2(3.0), r=4.0), x[:, :, ::2, ::2])  # 2^3 / 4 = 2
    assert safe_sample(x, 4.0, r=4.0).shape == (1, 1, 1, 1)
    conv = layer(1, 2, order=1, init_scale=math.log2(3.0), safe_sampling=4.0)
    plain = copy.deepcopy(conv)
    plain.safe_sampling = None
    torch.testing.assert_close(conv(x.double()), plain(x.double()[:, :, ::2, ::2]))
    assert plain(x.double()).shape == (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("channels", "kwargs", "message"),
    [
        ((4, 4), {"order": -1}, "order"),
        ((4, 4), {"extent": 0.0}, "extent"),
        ((4, 4), {"extent": math.nan}, "extent"),
        ((4, 4), {"stride": 0}, "stride"),
        ((4, 6), {"groups": 4}, "4 groups"),
        ((6, 4), {"groups": 4}, "4 groups"),
        ((4, 4), {"init_scale": math.nan}, "scale"),
        ((4, 4), {"safe_sampling": 0.0}, "safe_sampling"),
    ],
)
def test_bad_arguments_are_errors_of_one_line(channels: tuple[int, int], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        NJetConv2d(*channels, **kwargs)
    assert "\n" not in str(caught.value)


def test_filters_are_built_once_for_each_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    built, used = Mock(wraps=njet.gaussian_derivatives), Mock(wraps=F.conv2d)
    monkeypatch.setattr(njet, "gaussian_derivatives", built)
    monkeypatch.setattr(F, "conv2d", used)
    NJetConv2d(8, 8, groups=4)(torch.randn(16, 8, 5, 5)).sum().backward()
    assert built.call_count == used.call_count == 1
