"""Learning-rate schedules: pure functions from a step, counted from 0 over the whole run, to its learning rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

from reproduce.specs import Recipe

Schedule = Callable[[int], float]

FLOOR = 1e-6  # FlexConv's eta_min


def flexconv_cosine(*, base: float, warmup: int, total: int) -> Schedule:
    """FlexConv's linear warm-up and cosine, step by step as its code does it (R-15).

    With W = `warmup` and T = `total` - W steps: base * t / W up to and *including* t = W + 1, so the first step has
    rate 0 and the top lies one step above base; from there PyTorch's cosine annealing with T_max = T, whose recursion
    is, in closed form, half a cosine from that top to the floor. Without warm-up it starts at base.
    """
    cosine_steps = max(1, total - warmup)
    top = base * (warmup + 1) / warmup if warmup else base
    start = warmup + 1 if warmup else 0

    def rate(step: int) -> float:
        if step < start:
            return base * step / warmup
        return FLOOR + (top - FLOOR) * (1 + math.cos(math.pi * (step - start) / cosine_steps)) / 2

    return rate


def steps(*, base: float, milestones: list[int], gamma: float) -> Schedule:
    """base * gamma^k, where k milestones (in steps, sorted) lie at or before the step."""
    return lambda step: base * gamma ** bisect_right(milestones, step)


def constant(*, base: float) -> Schedule:
    return lambda step: base


def schedule(recipe: Recipe, steps_per_epoch: int) -> Schedule:
    """The schedule of a recipe. Epochs may be fractions: they become the nearest whole number of steps."""
    if recipe.schedule == "flexconv_cosine":
        warmup = round(recipe.warmup_epochs * steps_per_epoch)
        return flexconv_cosine(base=recipe.lr, warmup=warmup, total=recipe.epochs * steps_per_epoch)
    if recipe.schedule == "steps":
        milestones = sorted(round(epoch * steps_per_epoch) for epoch in recipe.milestones)
        return steps(base=recipe.lr, milestones=milestones, gamma=recipe.gamma)
    return constant(base=recipe.lr)
