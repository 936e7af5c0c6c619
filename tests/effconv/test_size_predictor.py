"""Eqs. 1 and 2: the squashing function, rounding with its straight-through gradient, and the networks that give v."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from effconv.size_predictor import (
    SIZE_PREDICTORS,
    BiGRU,
    SizePredictor,
    round_half_up,
    squash,
    start_bias,
    straight_through,
)


def test_squash_is_equation_1() -> None:
    for k, tau, b in ((3, 3.0, -0.35), (2, 1.5, 0.7), (3, 5.0, 0.0)):
        for x in (-20.0, -1.3, 0.0, 0.4, 2.0, 30.0):
            e = math.exp(2 * (x / tau + b))
            expected = k * (e - 1) / (e + 1) + k + 1
            assert squash(torch.tensor(x, dtype=torch.float64), k=k, tau=tau, b=b).item() == pytest.approx(
                expected, abs=1e-12
            )


def test_gradient_of_squash_is_that_of_finite_differences() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: squash(x, k=3, tau=3.0, b=-0.35), x)


def test_the_papers_constants_start_at_2_991_with_slope_0_885() -> None:
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    v = squash(logit, k=3, tau=3.0, b=start_bias(3, 7))
    v.backward()
    assert start_bias(3, 7) == -0.35
    assert v.item() == pytest.approx(2.991, abs=1e-3)
    assert logit.grad is not None and logit.grad.item() == pytest.approx(0.8868, abs=2e-3)


@pytest.mark.parametrize("max_size", [3, 5, 6, 7, 11])
def test_other_layers_start_at_their_own_size_but_one_below_the_largest(max_size: int) -> None:
    for kernel_size in range(2, 12):
        if (kernel_size, max_size) == (3, 7):
            continue
        v = squash(torch.zeros(()), k=(max_size - 1) / 2, tau=3.0, b=start_bias(kernel_size, max_size))
        assert v.item() == pytest.approx(min(kernel_size, max_size - 1), abs=1e-5)


def test_halves_round_up() -> None:
    v = torch.tensor([0.5, 1.5, 2.5, 3.5, 2.49, 2.51, 6.999, 1.0], dtype=torch.float64)
    assert round_half_up(v).tolist() == [1, 2, 3, 4, 2, 3, 7, 1]


def test_straight_through_has_the_value_of_s_and_the_gradient_of_v() -> None:
    v = torch.tensor([1.2, 2.5, 4.7], dtype=torch.float64, requires_grad=True)
    s = straight_through(v)
    (s * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert s.tolist() == [1, 3, 5]
    assert v.grad is not None and v.grad.tolist() == [1, -2, 3]


def test_bigru_is_two_grus_a_layer_norm_and_a_weight_normed_unit_per_layer() -> None:
    torch.manual_seed(0)
    net = BiGRU(6).double()
    with torch.no_grad():  # away from where they start, so that each one's place is seen
        net.length.mul_(torch.linspace(0.5, 2, 6))
        net.norm.weight.uniform_(0.5, 1.5)
        net.norm.bias.uniform_(-1, 1)
    states: list[dict[int, Tensor]] = [{}, {}]
    for direction, order in enumerate((range(6), range(5, -1, -1))):
        cell, h = nn.GRUCell(64, 128, dtype=torch.float64), torch.zeros(128, dtype=torch.float64)
        weights = {"weight_ih": net.w_ih, "weight_hh": net.w_hh, "bias_ih": net.b_ih, "bias_hh": net.b_hh}
        cell.load_state_dict({name: weight[direction] for name, weight in weights.items()})
        for layer in order:
            h = states[direction][layer] = cell(net.z[layer], h)
    for layer in range(6):
        state = torch.cat([states[0][layer], states[1][layer]])
        normed = (state - state.mean()) / (state.var(unbiased=False) + net.norm.eps).sqrt()
        features = [max(x, 0.0) for x in (normed * net.norm.weight + net.norm.bias).tolist()]
        w = net.direction[layer].tolist()
        length = math.sqrt(sum(x * x for x in w))
        logit = net.length[layer].item() / length * sum(x * f for x, f in zip(w, features, strict=True))
        assert net()[layer].item() == pytest.approx(logit, abs=1e-12)


def test_inputs_are_fixed_and_mutually_orthogonal() -> None:
    for name, layers in (("bigru", 18), ("shared_mlp", 54)):
        net = SIZE_PREDICTORS[name](layers)
        z = net.get_buffer("z")
        torch.testing.assert_close(z @ z.T, torch.eye(layers), atol=1e-5, rtol=0)
        assert "z" not in dict(net.named_parameters())
    z = SIZE_PREDICTORS["same_z"](5).get_buffer("z")
    assert (z == z[0]).all()


@pytest.mark.parametrize("name", SIZE_PREDICTORS)
@pytest.mark.parametrize("layers", [2, 5, 80])
def test_each_reading_gives_one_size_in_range_per_layer_and_trains_all_its_parameters(name: str, layers: int) -> None:
    torch.manual_seed(0)
    predictor = SizePredictor([3] * layers, 7, name)
    v = predictor()
    assert v.shape == (layers,)
    assert ((v > 1) & (v < 7)).all()
    (v * torch.linspace(1, 2, layers)).sum().backward()
    for parameter_name, parameter in predictor.named_parameters():
        if name == "onestep" and "weight_hh" in parameter_name:
            continue  # multiplies h_0 = 0
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name
    assert SizePredictor([3], 7, name)().shape == (1,)


@pytest.mark.parametrize("name", SIZE_PREDICTORS)
def test_gradient_of_v_is_that_of_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    predictor = SizePredictor([3, 5, 4], 7, name).double()
    parameters = dict(predictor.named_parameters())
    directions = {key: torch.randn_like(value) for key, value in parameters.items()}

    def moved(t: Tensor) -> Tensor:  # along one random direction in the space of all parameters
        v: Tensor = functional_call(
            predictor, {key: p.detach() + t * directions[key] for key, p in parameters.items()}, ()
        )
        return v

    assert torch.autograd.gradcheck(moved, torch.zeros((), dtype=torch.float64, requires_grad=True), eps=1e-6)


def test_each_layer_starts_at_its_own_size() -> None:
    predictor = SizePredictor([2, 3, 4, 5, 9], 7, "direct")
    assert predictor().tolist() == pytest.approx([2, 2.991, 4, 5, 6], abs=1e-3)


def test_sizes_need_room() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        SizePredictor([3], 2)
