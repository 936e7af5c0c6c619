"""Learning-rate schedules: pure functions from a step, counted from 0 over the whole run, to its learning rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from reproduce.run.streams import generator
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


def exponential(*, base: float, gamma: float, floor: float, steps_per_epoch: int) -> Schedule:
    """base * gamma^e in epoch e, counted from 0, but not below the floor."""
    return lambda step: max(floor, base * gamma ** (step // steps_per_epoch))


def schedule(recipe: Recipe, steps_per_epoch: int, *, lr_factor: float = 1.0) -> Schedule:
    """The schedule of a recipe, for a parameter group whose rate is `lr_factor` times the recipe's.

    Epochs may be fractions: they become the nearest whole number of steps. A redrawn rate changes between epochs, by
    `redrawn_factor`; within one it is constant.
    """
    base = recipe.lr * lr_factor
    if recipe.schedule == "flexconv_cosine":
        warmup = round(recipe.warmup_epochs * steps_per_epoch)
        return flexconv_cosine(base=base, warmup=warmup, total=recipe.epochs * steps_per_epoch)
    if recipe.schedule == "steps":
        milestones = sorted(round(epoch * steps_per_epoch) for epoch in recipe.milestones)
        return steps(base=base, milestones=milestones, gamma=recipe.gamma)
    if recipe.schedule == "exponential":
        floor = recipe.lr_floor * lr_factor
        return exponential(base=base, gamma=recipe.gamma, floor=floor, steps_per_epoch=steps_per_epoch)
    return constant(base=base)


def redrawn_factor(accuracies: Sequence[float], seed: int) -> float:
    """VGG-5's schedule: what the rate is multiplied by after epochs of these accuracies.

    1 at first. After each epoch that does not beat the best so far it is U^3 with a fresh U from 0..1, after one that
    does it stays (R-36).
    """
    factor, best = 1.0, -math.inf
    for epoch, accuracy in enumerate(accuracies, start=1):
        if accuracy <= best:
            factor = torch.rand((), generator=generator(seed, "rate", epoch), dtype=torch.float64).item() ** 3
        best = max(best, accuracy)
    return factor
