"""What is tested of a network with sizes of its own: `build(spec) -> nn.Module` with `effective_sizes()`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.flexconv import FlexConv2d
from baselines.njet import NJetConv2d
from reproduce.run.known.learners import OWN_SIZES_LR
from reproduce.run.known.networks import Spec
from reproduce.run.known.oracle import BATCH, train
from reproduce.run.known.tasks import Task
from reproduce.run.method_checks import trials
from reproduce.run.method_checks.methods import Method
from reproduce.run.method_checks.trials import FAR, LAYERS, NEAR, SEED, START, Batch, Check, Verdict
from reproduce.run.models import seeded

STEPS = 12  # of training, where a few do


def checks(method: Method) -> list[Check]:
    tried = _Tried(method)
    return [
        Check(name="sizes as told", run=tried.sizes_as_told),
        Check(name="budget identity", needs="has_budget", run=lambda: (False, "a network of this kind gets no budget")),
        Check(name="gradient reaches sizes", needs="gradient_based", run=tried.data_moves_sizes),
        Check(name="resume is exact", needs="resumable", run=tried.resume_is_exact),
        Check(name="seed decides", run=tried.seed_decides),
        Check(name="other networks untouched", run=tried.untouched),
        Check(name="shuffled labels: chance", run=lambda: trials.falls_to_chance(tried.fit)),
        Check(name="overfits 64 images", run=lambda: trials.overfits(tried.fit)),
    ]


class _Tried:
    def __init__(self, method: Method) -> None:
        self.call = method.call

    def built(self, seed: int = SEED) -> Any:
        with seeded(seed):
            return self.call(Spec(layers=LAYERS, start=START, side=NEAR.side, channels=NEAR.channels))

    def fit(self, batches: list[Batch]) -> nn.Module:
        model: nn.Module = self.built()
        with seeded(SEED):
            train(model, batches, OWN_SIZES_LR)
        return model

    def trained(self, task: Task = NEAR) -> Any:
        return self.fit(task.batches(STEPS, BATCH, SEED))

    def sizes_as_told(self) -> Verdict:
        """A whole number of 1 or more for each layer, before and after training."""
        told = [sizes_of(model) for model in (self.built(), self.trained())]
        fine = all(len(sizes) == LAYERS and min(sizes) >= 1 for one in told for sizes in one)
        (first, _), (last, effective) = (map(trials.numbers, one) for one in told)
        return fine, f"sizes {first}, after {STEPS} steps {last} (effective {effective})"

    def data_moves_sizes(self) -> Verdict:
        """Trained on other data from the same start, what the sizes follow has moved elsewhere, in each layer."""
        near, far = size_parameters(self.trained()), size_parameters(self.trained(FAR))
        moved = min(float((one - other).abs().max()) for one, other in zip(near, far, strict=True))
        text = f"after {STEPS} steps on either of two data sets the sizes' parameters differ by {moved:.2g} or more"
        return moved > 0, text

    def resume_is_exact(self) -> Verdict:
        """A network built anew from another seed, given the state dict, is the trained one."""
        trained, resumed = self.trained(), self.built(SEED + 1)
        resumed.load_state_dict(trained.state_dict())
        images, _ = NEAR.batches(1, BATCH, SEED)[0]
        with torch.no_grad():
            off = float((trained.eval()(images) - resumed.eval()(images)).abs().max())
        same = sizes_of(trained) == sizes_of(resumed)
        sizes = f"{trials.numbers(sizes_of(trained)[0])} and {trials.numbers(sizes_of(resumed)[0])}"
        return same and off == 0, f"from its state dict: outputs differ by {off:.2g}, sizes {sizes}"

    def seed_decides(self) -> Verdict:
        """torch's generator fixes the network and, on the same batches, its training."""
        one, other = self.trained(), self.trained()
        state = other.state_dict()
        parts = [name for name, value in one.state_dict().items() if not torch.equal(value, state[name])]
        same = not parts and sizes_of(one) == sizes_of(other)
        return same, f"{len(parts)} of {len(state)} tensors differ between two trainings of {STEPS} steps"

    def untouched(self) -> Verdict:
        """Training one network leaves another as it was."""
        other = self.built()
        before, sizes = trials.frozen(other), sizes_of(other)
        self.trained()
        parts = trials.changed(before, trials.frozen(other))
        if sizes != sizes_of(other):
            parts.append("its sizes")
        return not parts, f"training one changes {len(parts)} parts of another" + (f", {parts[0]}" if parts else "")


def sizes_of(model: Any) -> tuple[list[int], list[int]]:
    """Nominal and effective, by layer."""
    effective = list(model.effective_sizes())
    return list(model.sizes()) if hasattr(model, "sizes") else effective, effective


def size_parameters(model: Any) -> list[Tensor]:
    """What the sizes follow, by layer. Raises `TypeError` for a network that does not tell."""
    if hasattr(model, "size_parameters"):
        return [tensor.detach() for tensor in model.size_parameters()]
    found = [
        module.mask_params if isinstance(module, FlexConv2d) else module.scale
        for module in model.modules()
        if isinstance(module, FlexConv2d | NJetConv2d)
    ]
    if not found:
        raise TypeError("the network has no size_parameters(), the tensors that its sizes follow, by layer")
    return [tensor.detach() for tensor in found]
