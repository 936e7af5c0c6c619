"""Learning rates: FlexConv's warm-up and cosine to the last digit that its authors logged, steps, constant."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from reproduce.run.schedules import flexconv_cosine, redrawn_factor, schedule, steps
from tests.reproduce.run_samples import recipe

S = 782  # steps an epoch: CIFAR-10, batch 64


@pytest.mark.parametrize(("epochs", "logged"), [(350, 1.2078625e-06), (100, 3.7411356e-06)])
def test_the_last_epoch_starts_at_the_rate_that_flexconv_logged(epochs: int, logged: float) -> None:
    rate = flexconv_cosine(base=0.01, warmup=5 * S, total=epochs * S)
    assert rate((epochs - 1) * S) == pytest.approx(logged, rel=1e-6, abs=0)


def test_flexconv_cosine_is_warm_up_and_pytorchs_own_recursion() -> None:
    base, warmup, total = 0.01, 10, 60
    rate = flexconv_cosine(base=base, warmup=warmup, total=total)
    assert [rate(t) for t in range(warmup + 2)] == pytest.approx([base * t / warmup for t in range(warmup + 2)])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base * (warmup + 1) / warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup, eta_min=1e-6)
    for t in range(warmup + 1, total):
        assert rate(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        cosine.step()


def test_without_warm_up_the_cosine_starts_at_the_base_rate() -> None:
    rate = schedule(recipe(epochs=2, warmup_epochs=0.02), 4)
    assert rate(0) == 0.01
    assert rate(4) == pytest.approx(1e-6 + (0.01 - 1e-6) / 2)
    assert all(rate(t) > rate(t + 1) > 1e-6 for t in range(6))


def test_warm_up_may_be_a_fraction_of_an_epoch_and_ends_within_the_run() -> None:
    rate = schedule(recipe(epochs=35, warmup_epochs=0.5), S)
    assert rate(0) == 0.0
    assert rate(391) == pytest.approx(0.01)
    assert rate(392) == pytest.approx(0.01 * 392 / 391)
    assert rate(393) < rate(392)


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("per_epoch", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0, 3.0])
def test_every_step_of_every_run_has_a_rate(epochs: int, per_epoch: int, warmup: float) -> None:
    rate = schedule(recipe(epochs=epochs, warmup_epochs=warmup), per_epoch)
    assert all(math.isfinite(rate(t)) and 0 <= rate(t) <= 0.02 for t in range(epochs * per_epoch))


def test_steps_fall_at_the_start_of_their_epoch() -> None:
    changes = {"schedule": "steps", "lr": 0.1, "milestones": (100.0, 150.0), "gamma": 0.1, "epochs": 200}
    rate = schedule(recipe(**changes), 391)
    assert rate(100 * 391 - 1) == 0.1
    assert rate(100 * 391) == pytest.approx(0.01)
    assert rate(150 * 391) == pytest.approx(0.001)
    fractions = schedule(recipe(**(changes | {"milestones": (0.5, 1.25)})), 10)
    assert [round(fractions(t), 6) for t in (4, 5, 11, 12)] == [0.1, 0.01, 0.01, 0.001]


def test_constant_and_milestones_in_steps() -> None:
    assert schedule(recipe(schedule="constant"), 3)(100) == 0.01
    assert steps(base=1.0, milestones=[2, 2], gamma=0.5)(2) == 0.25


def test_exponential_falls_by_the_epoch_down_to_its_floor() -> None:
    rate = schedule(recipe(schedule="exponential", lr=5e-4, gamma=0.97, lr_floor=5e-5), 10)
    assert rate(0) == rate(9) == 5e-4
    assert rate(10) == pytest.approx(5e-4 * 0.97)
    assert rate(75 * 10) == pytest.approx(5e-4 * 0.97**75) and rate(76 * 10) == 5e-5 == rate(10_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "steps", "milestones": (1.0,), "gamma": 0.1},
        {"schedule": "exponential", "gamma": 0.9, "lr_floor": 0.001},
        {"schedule": "constant"},
    ],
)
def test_a_groups_factor_scales_the_whole_schedule(changes: dict[str, Any]) -> None:
    whole, tenth = (schedule(recipe(**changes), 5, lr_factor=factor) for factor in (1.0, 0.1))
    assert [tenth(t) for t in range(10)] == pytest.approx([0.1 * whole(t) for t in range(10)])


def test_flexconvs_masks_end_at_the_same_floor() -> None:
    whole, mask = (schedule(recipe(epochs=20), 50, lr_factor=factor) for factor in (1.0, 0.1))
    assert mask(10) == pytest.approx(0.1 * whole(10))  # warm-up
    top = whole(26)
    assert mask(26) == pytest.approx(0.1 * top)
    for t in (100, 500, 999):  # the same part of the way from their tops down to one floor
        assert (mask(t) - 1e-6) / (0.1 * top - 1e-6) == pytest.approx((whole(t) - 1e-6) / (top - 1e-6), rel=1e-9)


def test_a_redrawn_rate_follows_from_the_epochs_behind() -> None:
    assert redrawn_factor([], 0) == redrawn_factor([50.0], 0) == redrawn_factor([50.0, 60.0], 0) == 1.0
    drawn = redrawn_factor([50.0, 60.0, 60.0], 0)
    assert 0 <= drawn < 1
    assert redrawn_factor([50.0, 60.0, 60.0, 61.0], 0) == drawn  # an improvement keeps the rate
    assert redrawn_factor([50.0, 60.0, 60.0, 59.0], 0) != drawn
    assert redrawn_factor([50.0, 60.0, 60.0], 1) != drawn
    many = [redrawn_factor([50.0, 40.0], seed) for seed in range(400)]
    assert sum(many) / len(many) == pytest.approx(0.25, abs=0.05)  # the mean of U^3
