"""Eqs. 6 and 7: the size mask, its printed values and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from effconv.mask import MASK_CENTRES, MASK_DENOMINATORS, mask_profiles, size_mask
from tests.effconv.helpers import slow_mask

# At v = s, for the printed mask: smallest and largest value, left and right value of the middle row (or that below it);
# for the centre (v + 1)/2: smallest value, left value of that row.
TABLE = {
    1: (0.607, 0.607, 0.607, 0.607, 1.000, 1.000),
    2: (0.607, 1.0, 0.779, 0.607, 0.882, 0.882),
    3: (0.607, 0.946, 0.946, 0.757, 0.801, 0.895),
    4: (0.607, 1.0, 0.882, 0.732, 0.755, 0.855),
    5: (0.607, 0.980, 0.905, 0.771, 0.726, 0.852),
    6: (0.607, 1.0, 0.870, 0.757, 0.707, 0.835),
    7: (0.607, 0.990, 0.876, 0.775, 0.693, 0.832),
}
# At v = s: deviation over the kernel of d log m / dv, for the centres v/2, (s + 1)/2 and (v + 1)/2.
SPREAD = {
    1: (0, 0, 0),
    2: (0.354, 0, 0.177),
    3: (0.220, 0.049, 0.138),
    4: (0.155, 0.044, 0.108),
    5: (0.118, 0.038, 0.089),
    6: (0.095, 0.033, 0.075),
    7: (0.080, 0.029, 0.064),
}


@pytest.mark.parametrize("centre", MASK_CENTRES)
@pytest.mark.parametrize("denominator", MASK_DENOMINATORS)
def test_mask_is_equation_6(centre: str, denominator: str) -> None:
    for v, s in ((1.2, 1), (2.3, 2), (2.7, 3), (4.4, 4), (4.5, 5), (6.9, 7)):
        mask = size_mask(torch.tensor(v, dtype=torch.float64), s, centre=centre, denominator=denominator)
        expected = torch.tensor(slow_mask(v, s, centre, denominator), dtype=torch.float64)
        torch.testing.assert_close(mask, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("centre", ["pixel", "printed", "fixed"])
@pytest.mark.parametrize("denominator", MASK_DENOMINATORS)
def test_gradient_on_v_is_that_of_finite_differences(centre: str, denominator: str) -> None:
    for v, s in ((1.2, 1), (2.3, 2), (2.7, 3), (6.9, 7)):
        soft = torch.tensor(v, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda soft, s=s: size_mask(soft, s, centre=centre, denominator=denominator), soft
        )


@pytest.mark.parametrize("s", TABLE)
def test_values_at_whole_sizes(s: int) -> None:
    printed, pixel = size_mask(float(s), s, centre="printed"), size_mask(float(s), s, centre="pixel")
    middle = s // 2
    values = (printed.min(), printed.max(), printed[middle, 0], printed[middle, -1], pixel.min(), pixel[middle, 0])
    assert [value.item() for value in values] == pytest.approx(TABLE[s], abs=1e-3)
    assert printed[-1, -1] == printed.min()
    assert pixel[0, 0].item() == pytest.approx(pixel.min().item(), abs=1e-6)


@pytest.mark.parametrize("s", SPREAD)
def test_what_of_the_masks_gradient_batch_norm_lets_pass(s: int) -> None:
    for centre, expected in zip(("printed", "fixed", "pixel"), SPREAD[s], strict=True):
        v = torch.tensor(float(s), dtype=torch.float64)
        slope = torch.autograd.functional.jacobian(lambda v, c=centre: size_mask(v, s, centre=c).log(), v)
        assert slope.std(unbiased=False).item() == pytest.approx(expected, abs=1e-3)


def test_printed_mask_is_off_centre_and_the_pixel_mask_is_not() -> None:
    printed, pixel = size_mask(3.0, 3, centre="printed"), size_mask(3.0, 3)
    assert printed[0, 0] > 0.9 and printed[2, 2].item() == pytest.approx(math.exp(-0.5))
    assert torch.allclose(pixel, pixel.flip(0)) and torch.allclose(pixel, pixel.flip(1))
    assert size_mask(1.0, 1, centre="printed").item() == pytest.approx(math.exp(-0.5))
    assert size_mask(1.0, 1).item() == 1


def test_a_larger_soft_size_lifts_the_lower_right_and_flattens_a_fixed_mask() -> None:
    v = torch.tensor(3.0, dtype=torch.float64)
    slope = {
        c: torch.autograd.functional.jacobian(lambda v, c=c: size_mask(v, 3, centre=c), v) for c in ("pixel", "fixed")
    }
    assert slope["pixel"][2, 2].item() == pytest.approx(0.30, abs=0.01)
    assert slope["pixel"][0, 0].item() == pytest.approx(-0.06, abs=0.01)
    assert slope["fixed"][0, 0].item() == pytest.approx(0.12, abs=0.01)


def test_profiles_of_several_layers_give_each_ones_mask() -> None:
    v, sizes = torch.tensor([1.4, 6.6, 3.0]), [1, 7, 3]
    for centre in MASK_CENTRES:
        profiles = mask_profiles(v, torch.tensor(sizes), 7, centre=centre)
        for g, soft, s in zip(profiles, v, sizes, strict=True):
            torch.testing.assert_close(torch.outer(g[:s], g[:s]), size_mask(soft, s, centre=centre))


def test_unknown_names_are_errors_that_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'middle'.*pixel, printed, fixed, none"):
        size_mask(3.0, 3, centre="middle")
    with pytest.raises(ValueError, match=r"'v3'.*v2, v2_over_2, half_v2"):
        size_mask(3.0, 3, denominator="v3")
