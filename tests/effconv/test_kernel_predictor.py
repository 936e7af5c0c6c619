"""Eq. 5: kernels by position, the batched form against the plain one, and the scale that they start with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from effconv.kernel_predictor import KERNEL_PREDICTORS, FreeKernels, GRUPredictor, Layer, LiteralGRU, grid_positions
from tests.effconv.helpers import plain_gru_kernels

LAYERS = [Layer(4, 3, 3), Layer(2, 4, 5), Layer(5, 2, 3), Layer(1, 5, 2), Layer(3, 1, 7), Layer(3, 3, 3)]


def _gru(name: str) -> GRUPredictor:
    torch.manual_seed(0)
    predictor = KERNEL_PREDICTORS[name](LAYERS, 7).double()
    assert isinstance(predictor, GRUPredictor)
    return predictor


def test_positions_lie_around_the_centre_of_the_largest_kernel() -> None:
    rows = {1: [3], 2: [3, 4], 3: [2, 3, 4], 4: [2, 3, 4, 5], 5: [1, 2, 3, 4, 5], 6: [1, 2, 3, 4, 5, 6]}
    for size, own in rows.items():
        assert grid_positions(size, 7) == [7 * row + column for row in own for column in own]
    assert grid_positions(7, 7) == list(range(49))
    assert grid_positions(6, 6) == list(range(36))
    assert grid_positions(1, 6) == [2 * 6 + 2]


@pytest.mark.parametrize("name", ["per_position", "const_z"])
@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5, 6], [7, 6, 1, 7, 3, 2], [3] * 6, [1] * 6, [4, 7, 7, 1, 1, 5]])
def test_batched_kernels_and_gradients_equal_those_of_plain_gru_cells(name: str, sizes: list[int]) -> None:
    predictor = _gru(name)
    parameters = dict(predictor.named_parameters())
    weights = [
        torch.randn(o, i, s, s, dtype=torch.float64) for (o, i, _), s in zip(LAYERS, sizes, strict=True)
    ]  # an arbitrary gradient

    def run(kernels: list[Tensor]) -> list[Tensor]:
        loss = torch.stack([(w * kernel).sum() for w, kernel in zip(weights, kernels, strict=True)]).sum()
        return kernels + list(torch.autograd.grad(loss, list(parameters.values())))

    labels = [f"kernel {index}" for index in range(6)] + [f"gradient of {key}" for key in parameters]
    for label, a, b in zip(labels, run(plain_gru_kernels(predictor, sizes)), run(predictor(sizes)), strict=True):
        assert torch.allclose(b, a, atol=1e-10, rtol=1e-10), label


@pytest.mark.parametrize("name", KERNEL_PREDICTORS)
def test_masking_inside_the_predictor_equals_masking_its_kernels(name: str) -> None:
    torch.manual_seed(1)
    sizes = [1, 2, 7, 4, 3, 5]
    predictor = KERNEL_PREDICTORS[name](LAYERS, 7).double()
    masks = torch.rand(len(sizes), 7, 7, dtype=torch.float64, requires_grad=True)  # the upper left s x s counts
    parameters = [*predictor.parameters(), masks]

    def run(kernels: list[Tensor]) -> list[Tensor]:
        return kernels + list(
            torch.autograd.grad(torch.stack([(kernel**3).sum() for kernel in kernels]).sum(), parameters)
        )

    cropped = [mask[:size, :size] for mask, size in zip(masks, sizes, strict=True)]
    expected = run([mask * kernel for mask, kernel in zip(cropped, predictor(sizes), strict=True)])
    for a, b in zip(expected, run(predictor.modulated(sizes, masks)), strict=True):
        torch.testing.assert_close(b, a, atol=1e-10, rtol=1e-10)


def test_gradient_is_that_of_finite_differences() -> None:
    predictor = _gru("per_position")
    names = ["w_ih", "w_hh", "b_ih", "b_hh", "heads.2"]
    originals = {name: predictor.get_parameter(name).detach() for name in names}
    directions = {name: torch.randn_like(value) for name, value in originals.items()}

    def moved(t: Tensor) -> Tensor:  # along one random direction in each parameter
        values = {name: originals[name] + t[k] * directions[name] for k, name in enumerate(names)}
        kernels = torch.func.functional_call(predictor, values, ([2, 3, 4, 1, 3, 2],))
        return torch.cat([kernel.flatten() for kernel in kernels])

    assert torch.autograd.gradcheck(moved, torch.zeros(len(names), dtype=torch.float64, requires_grad=True))


def test_literal_reading_has_the_grus_state_as_weights() -> None:
    torch.manual_seed(0)
    predictor = LiteralGRU(LAYERS[:3], 7).double()
    for index, (kernel, size) in enumerate(zip(predictor([2, 1, 3]), [2, 1, 3], strict=True)):
        layer, h = LAYERS[index], torch.zeros(1, LAYERS[index].out_channels * LAYERS[index].in_channels)
        h = h.double()
        for row in range(size):
            for column in range(size):
                h = predictor.cells[index](predictor.z[index], h)
                expected = predictor.gain[index] * h.reshape(layer.out_channels, layer.in_channels)
                torch.testing.assert_close(kernel[:, :, row, column], expected, atol=1e-12, rtol=0)


def test_free_kernels_are_crops_of_the_largest() -> None:
    torch.manual_seed(0)
    predictor = FreeKernels(LAYERS[:1], 7)
    (largest,) = predictor([7])
    for size, crop in {
        1: slice(3, 4),
        2: slice(3, 5),
        3: slice(2, 5),
        4: slice(2, 6),
        5: slice(1, 6),
        6: slice(1, 7),
    }.items():
        assert torch.equal(predictor([size])[0], largest[:, :, crop, crop])


@pytest.mark.parametrize("name", KERNEL_PREDICTORS)
def test_kernels_start_with_kaimings_deviation_at_the_original_size(name: str) -> None:
    torch.manual_seed(0)
    predictor = KERNEL_PREDICTORS[name]([Layer(16, 8, 3), Layer(8, 16, 5), Layer(8, 8, 11)], 7)
    for kernel, (_, in_channels, size) in zip(predictor([3, 5, 7]), predictor.layers, strict=True):
        assert kernel.std().item() == pytest.approx(math.sqrt(2 / (size * size * in_channels)), rel=1e-3)
    assert "gain" not in dict(predictor.named_parameters())


def test_inputs_are_fixed_one_per_position_or_the_same_everywhere() -> None:
    per_position, constant = _gru("per_position"), _gru("const_z")
    assert per_position.z.shape == constant.z.shape == (49, 64)
    assert len(per_position.z.unique(dim=0)) == 49 and len(constant.z.unique(dim=0)) == 1
    assert "z" not in dict(per_position.named_parameters())
