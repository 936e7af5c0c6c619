"""What methods are tried on: lag tasks of the known-answer benchmark, two convolutions of 8 channels from size 5.

Shorter than the benchmark, which asks how well a method does; here it is asked whether it does what it says.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reproduce.run.evaluation import percent
from reproduce.run.known.oracle import BATCH, accuracy_of
from reproduce.run.known.tasks import Task
from reproduce.run.streams import generator

LAYERS, START = 2, 5
NEAR, FAR = Task(name="lag", scale=2), Task(name="lag", scale=4)
SEED, STEPS, SHUFFLES = 0, 100, 3
IMAGES = 64
CHANCE = 50.0  # %, of two classes
# What a network makes of one shuffle agrees with the true classes in 50 % of the images with a standard deviation, over
# seeds, of 4 to 9 points (plain, FlexConv, N-Jet); the band is 4 of those of the mean. True labels give 90 % or more.
BAND = 20.0
LEARNED = 95.0

Batch = tuple[Tensor, Tensor]
Fit = Callable[[list[Batch]], nn.Module]  # a method's sizes learned, and its network trained, on these
Verdict = tuple[bool, str]
SETTING = (
    f"Lag tasks of {NEAR.side} x {NEAR.side} pixels, {LAYERS} convolutions of {NEAR.channels} channels from size "
    f"{START}, seed {SEED}, one CPU thread."
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """needs: the property without which it is not made."""

    name: str
    needs: str | None = None
    run: Callable[[], Verdict]


class Stopped(KeyboardInterrupt):
    """What an interruption in the midst of the batches looks like to a method."""


class Interruptible(list[Batch]):
    """Batches that stop whoever reads them, once `left` of them were read."""

    def __init__(self, batches: Sequence[Batch], left: int) -> None:
        super().__init__(batches)
        self.left = left  # may be read yet

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if self.left == 0:
            raise Stopped
        self.left -= 1
        return super().__getitem__(index)


def shuffled(batches: Sequence[Batch], seed: int) -> list[Batch]:
    """The same images; the labels of all of them in random order."""
    labels = torch.cat([part for _, part in batches])
    labels = labels[torch.randperm(len(labels), generator=generator(seed, "method_checks", "shuffled"))]
    sizes = [len(part) for _, part in batches]
    return [(images, part) for (images, _), part in zip(batches, labels.split(sizes), strict=True)]


def falls_to_chance(fit: Fit) -> Verdict:
    """Test accuracy after true and after shuffled labels: a method that still knows the class has seen it elsewhere."""
    batches = NEAR.batches(STEPS, BATCH, SEED)
    true = accuracy_of(fit(batches), NEAR, SEED)
    false = statistics.fmean(accuracy_of(fit(shuffled(batches, n)), NEAR, SEED) for n in range(SHUFFLES))
    text = f"test accuracy {true:.1f} % with true labels, {false:.1f} % with shuffled ones (mean of {SHUFFLES}"
    if true <= CHANCE + BAND:
        return False, f"{text}): nothing was learned that could be lost"
    return abs(false - CHANCE) <= BAND, f"{text}; {CHANCE:.0f} +- {BAND:.0f} asked for)"


def overfits(fit: Fit) -> Verdict:
    images, labels = NEAR.batches(1, IMAGES, SEED)[0]
    model = fit([(images, labels)] * STEPS).eval()
    with torch.no_grad():
        right = percent(model(images).argmax(1) == labels)
    return right >= LEARNED, f"{right:.1f} % of {IMAGES} images after {STEPS} steps, {LEARNED:.0f} asked for"


def frozen(module: nn.Module) -> dict[str, object]:
    """What must not change of a network: tensors (copied), gradients, modes, hooks, the modules themselves."""
    kept: dict[str, object] = {f"tensor {name}": value.clone() for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        kept[f"gradient of {name}"] = (parameter.requires_grad, parameter.grad is None)
    for name, part in module.named_modules():
        hooks = len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
        kept[f"module {name or '(whole)'}"] = (id(part), part.training, hooks)
    return kept


def changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Names of what differs between two results of `frozen`."""
    return [name for name in before | after if not _same(before.get(name), after.get(name))]


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other


def numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Of values by layer; NaN if there is one. Raises `ValueError` for other lengths."""
    return float((torch.tensor(one, dtype=torch.float64) - torch.tensor(other, dtype=torch.float64)).abs().max())
