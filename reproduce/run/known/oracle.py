"""How networks of the benchmark are trained and measured; what a network of fixed, given sizes can do: the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv import DivergedError
from reproduce.run.evaluation import percent
from reproduce.run.known.networks import sized
from reproduce.run.known.tasks import Task
from reproduce.run.models import seeded
from reproduce.run.streams import stream_seed

BATCH = 32
LR = 0.02
MASK_FACTOR = 0.1  # FlexConv's masks learn at a tenth of the rate, as its authors have it


def train(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], lr: float = LR) -> None:
    """One pass: Adam from `lr`, down to 0 by a cosine. Raises `DivergedError` for a loss that is not finite."""
    masks = [parameter for name, parameter in model.named_parameters() if name.endswith("mask_params")]
    others = [parameter for name, parameter in model.named_parameters() if not name.endswith("mask_params")]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": masks, "lr": MASK_FACTOR * lr}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    model.train()
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        if not math.isfinite(loss.item()):
            raise DivergedError(f"the loss is {loss.item()}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy_of(model: nn.Module, task: Task, seed: int) -> float:
    """Per cent of the task's test images that a trained network gets right."""
    images, labels = task.test_set(seed)
    model.eval()
    return percent(torch.cat([model(part) for part in images.split(250)]).argmax(1) == labels)


def oracle_accuracy(task: Task, layers: int, sizes: Sequence[int], seed: int, steps: int) -> float:
    """Test accuracy, in per cent, of the network whose `layers` convolutions have these sizes, trained from scratch.

    On as many batches, from the same streams, as the second stage of a size learner; weights of a stream of its own.
    """
    assert layers == len(sizes)
    with seeded(stream_seed(seed, "known_answer", "oracle")):
        model = sized(sizes, task.channels)
    train(model, task.batches(steps, BATCH, seed))
    return accuracy_of(model, task, seed)
