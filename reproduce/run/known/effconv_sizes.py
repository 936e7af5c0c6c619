"""EffConv as the benchmark asks for it: size learning alone, from a given start, with what it was held back by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv import Readings, Settings, SizeLearner, size_mask
from effconv.result import History
from effconv.size_predictor import TAU
from reproduce.errors import UsageError, UserError
from reproduce.known_answers import MAX_SIZE
from reproduce.known_cases import TOLERANCE
from reproduce.run.known.networks import conv_names

CNN_LR = 1e-3  # the paper's 1e-4 leaves batch norm and the classifier nearly where they began in some hundred steps
EDGE = 0.25  # from a start at the largest size, v begins this far below it: the tanh of Eq. 1 never reaches it


@dataclass(frozen=True)
class Learned:
    """Sizes by name of the layer, in forward order; the plain network of these sizes; what else was seen."""

    sizes: Mapping[str, int]
    build: Callable[[], nn.Module]
    notes: dict[str, Any]


def learn_effconv(
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    *,
    budget: int | None,
    epochs: int,
    seed: int,
    readings: Mapping[str, Any],
) -> Learned:
    """Stage 1 of Algorithm 1 with every layer's v starting at its own size. `lam` may stand among the readings.

    Without a budget lambda is 0 and the read-out is rounded, not snapped. Notes, by layer: v before, after, and as read
    out; `dead`, the layers at whose v the mask hears nothing of the class loss; mean absolute gradients on v.
    Raises `UsageError` for readings that there are not, `UserError` for a budget out of reach.
    """
    names = conv_names(model)
    convs = [model.get_submodule(name) for name in names]
    own = [conv.kernel_size[0] for conv in convs if isinstance(conv, nn.Conv2d)]
    if min(own) < 2:
        raise UsageError("EffConv starts at sizes of 2 or more: of a 1 x 1 convolution no size is learned")
    chosen = dict(readings)
    lam = float(chosen.pop("lam", Settings(budget=1).lam))
    if budget is None:
        lam, budget = 0.0, sum(parameter.numel() for conv in convs for parameter in conv.parameters())
        chosen["readout"] = str(chosen.get("readout", "snap_ema")).removeprefix("snap_")
    try:
        kinds = Readings(**chosen)
    except (TypeError, ValueError) as error:
        raise UsageError(f"no such reading: {error}") from error
    settings = Settings(budget=budget, max_size=MAX_SIZE, lam=lam, tolerance=TOLERANCE, seed=seed, epochs=epochs)
    try:
        learner = SizeLearner(model, names, settings, kinds)
    except ValueError as error:
        raise UserError(str(error)) from error
    start_at(learner, own)
    set_cnn_lr(learner, CNN_LR)
    class_grad, budget_grad = torch.zeros(len(own)), torch.zeros(len(own))
    for images, labels in (batch for _ in range(epochs) for batch in batches):
        seen = learner.step(images, labels, F.cross_entropy)
        class_grad += seen["class_grad"].abs() / (epochs * len(batches))
        budget_grad += seen["budget_grad"].abs() / (epochs * len(batches))
    result = learner.result(model, History(), {})
    return Learned(
        result.sizes,
        result.build,
        {
            "v_start": learner.initial.tolist(),
            "v": learner.last.tolist(),
            "v_read_out": result.snapped.soft,
            "dead": [at for at, v in enumerate(learner.last.tolist()) if is_dead(v, kinds)],
            "class_gradient": class_grad.tolist(),
            "budget_gradient": budget_grad.tolist(),
        },
    )


def start_at(learner: SizeLearner, sizes: Sequence[float]) -> None:
    """Makes v begin at exactly these sizes, 2 or more: the predictor's own spread over layers goes into b of Eq. 1."""
    predictor = learner.size_predictor
    with torch.no_grad():
        v = torch.tensor(sizes, dtype=predictor.bias.dtype).clamp(max=2 * predictor.k + 1 - EDGE)
        predictor.bias.copy_(torch.atanh((v - predictor.k - 1) / predictor.k) - predictor.logits() / TAU)
        for known in (learner.initial, learner.ema, learner.last):
            known.copy_(predictor())


def set_cnn_lr(learner: SizeLearner, lr: float) -> None:
    """Gives what is left of the CNN (batch norm, classifier) a learning rate apart from the size predictor's."""
    others = learner.optimizer.param_groups[0]
    of_cnn = {id(parameter) for parameter in learner.cnn.parameters()}
    moved = [parameter for parameter in others["params"] if id(parameter) in of_cnn]
    others["params"] = [parameter for parameter in others["params"] if id(parameter) not in of_cnn]
    learner.optimizer.add_param_group({"params": moved, "lr": lr})


def is_dead(v: float, readings: Readings) -> bool:
    """Whether the class loss has no say on v: a mask that changes by one factor at all taps, which batch norm undoes.

    So at size 1 under every mask, and at size 2 under `fixed`, whose four taps are equal.
    """
    s, step = math.floor(v + 0.5), 1e-4
    centre, denominator = readings.mask_centre, readings.mask_denominator
    near = [torch.tensor(at, dtype=torch.float64) for at in (v - step, v + step)]
    before, after = (size_mask(at, s, centre=centre, denominator=denominator).log() for at in near)
    return float(((after - before) / (2 * step)).std(correction=0)) < 1e-6
