"""The methods of the benchmark: from a case, what sizes were learned and what the trained network gets right.

Two kinds. A *size learner* chooses the sizes of a given network, and the plain network of these sizes is then trained
from scratch, each for the case's steps; so EffConv does. A network with *sizes of its own* learns them as it is
trained, for as many steps in all; so do FlexConv and N-Jet, which know no budget.

To plug in another size learner, register a callable under the entry-point group `reproduce.size_learners`:

    learn(model, batches, *, budget, epochs, seed) -> result

model: `networks.network`, each `nn.Conv2d` of which is learnable, at the case's start. batches: a list of (images,
labels). budget: weights of these convolutions, or None. result.sizes: by layer, a list or a mapping in forward order;
result.build(): the plain network of these sizes, with new weights; result.notes: a mapping, optional. Networks with
sizes of their own: see `networks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

from torch import nn

from effconv.snapping import count
from reproduce.errors import UserError
from reproduce.known_answers import Case
from reproduce.run.known.effconv_sizes import learn_effconv
from reproduce.run.known.networks import OWN_SIZES, Spec, effective_size, network
from reproduce.run.known.oracle import BATCH, accuracy_of, train
from reproduce.run.known.tasks import Task
from reproduce.run.models import seeded
from reproduce.run.streams import stream_seed

OWN_SIZES_LR = 0.01  # as FlexConv's authors have it


@dataclass(frozen=True)
class Outcome:
    """sizes: as the method names them; both by layer. test_accuracy: per cent; NaN: diverged, and the start's sizes."""

    sizes: list[int]
    effective_sizes: list[int]
    test_accuracy: float
    notes: dict[str, Any] = field(default_factory=dict)


Learner = Callable[[Case], Outcome]


def in_two_stages(learn: Callable[..., Any], case: Case) -> Outcome:
    """A size learner's outcome, see above."""
    task = Task(name=case.task, scale=case.scale)
    with seeded(_stream(case, "initialisation")):
        model = network(case.layers, case.start, task.channels)
    try:
        with seeded(_stream(case, "size_learning")):
            batches = task.batches(case.steps, BATCH, _stream(case, "size_learning"))
            result = learn(model, batches, budget=case.budget, epochs=1, seed=case.seed)
        with seeded(_stream(case, "training")):
            built = result.build()
            train(built, task.batches(case.steps, BATCH, case.seed))
    except ArithmeticError as error:
        return _diverged(case, error)
    sizes = list(result.sizes.values() if isinstance(result.sizes, Mapping) else result.sizes)
    effective = [effective_size(module.weight) for module in built.modules() if isinstance(module, nn.Conv2d)]
    notes = dict(getattr(result, "notes", {})) | _budget_error(case, task, sizes)
    return Outcome(sizes, effective, accuracy_of(built, task, case.seed), notes)


def in_one_stage(build: Callable[[Spec], Any], case: Case) -> Outcome:
    """The outcome of a network with sizes of its own, after as many steps as the two stages have together."""
    task = Task(name=case.task, scale=case.scale)
    with seeded(_stream(case, "initialisation")):
        model = build(Spec(layers=case.layers, start=case.start, side=task.side, channels=task.channels))
    nominal = getattr(model, "sizes", model.effective_sizes)
    started = list(nominal())
    try:
        with seeded(_stream(case, "training")):
            train(model, task.batches(2 * case.steps, BATCH, case.seed), OWN_SIZES_LR)
        sizes, effective = list(nominal()), list(model.effective_sizes())
    except ArithmeticError as error:  # N-Jet's scale, too, may leave all bounds
        return _diverged(case, error)
    notes = {"started": started} | _budget_error(case, task, sizes)
    return Outcome(sizes, effective, accuracy_of(model, task, case.seed), notes)


def effconv(case: Case, **readings: str | float) -> Outcome:
    """EffConv; the case's readings before those of the method, and these before the defaults."""
    return in_two_stages(partial(learn_effconv, readings=readings | case.readings), case)


def plugged_in() -> dict[str, Learner]:
    """The methods that installed packages register, by the names that they register; loaded when they are run."""
    kinds: dict[str, Callable[[Any, Case], Outcome]] = {
        "reproduce.size_learners": in_two_stages,
        "reproduce.networks": in_one_stage,
    }
    return {
        point.name: partial(_run_plugged_in, stages, point)
        for group, stages in kinds.items()
        for point in metadata.entry_points(group=group)
    }


def _run_plugged_in(stages: Callable[[Any, Case], Outcome], point: metadata.EntryPoint, case: Case) -> Outcome:
    try:
        method = point.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"the method {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    return stages(method, case)


def _stream(case: Case, name: str) -> int:
    return stream_seed(case.seed, "known_answer", name)


def _diverged(case: Case, error: ArithmeticError) -> Outcome:
    sizes = [case.start] * case.layers
    return Outcome(sizes, sizes, math.nan, {"failure": f"diverged: {error}"})


def _budget_error(case: Case, task: Task, sizes: Sequence[int]) -> dict[str, float]:
    """Weights of the convolutions over the budget, less 1."""
    if case.budget is None:
        return {}
    return {"budget_error": count(sizes, [task.channels**2] * len(sizes)) / case.budget - 1}


# `soft budget` is the setting in which two layers on a budget were first seen to follow the data, lambda included.
METHODS: dict[str, Learner] = plugged_in() | {
    "effconv": effconv,
    "effconv: soft budget": partial(effconv, budget_value="soft", lam=0.02),
    "effconv: fixed mask": partial(effconv, mask_centre="fixed"),
    **{name: partial(in_one_stage, build) for name, build in OWN_SIZES.items()},
}
