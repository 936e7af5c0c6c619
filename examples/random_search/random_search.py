"""Random search: of eight random choices of sizes that meet the budget, the one whose network trains best."""

import random
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv import resize, snap_to_budget

Batches = list[tuple[Tensor, Tensor]]


def learn(model: nn.Module, batches: Batches, *, budget: int | None, epochs: int, seed: int) -> SimpleNamespace:
    """A result with `sizes` {layer: size} and `build()`, the plain network of these sizes with new weights."""
    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    costs, rng, tried = [conv.in_channels * conv.out_channels for conv in convs.values()], random.Random(seed), []
    for _ in range(8):
        v = [rng.uniform(1, 7) for _ in convs]
        sizes = snap_to_budget(v, costs, budget, max_size=7, tolerance=0.1) if budget else [round(soft) for soft in v]
        with torch.random.fork_rng(devices=[]):  # `seed` alone decides, and the caller's generator stays as it was
            torch.manual_seed(seed)
            tried.append((trained_loss(resize(model, dict(zip(convs, sizes, strict=True))), batches, epochs), sizes))
    best = dict(zip(convs, min(tried)[1], strict=True))
    return SimpleNamespace(sizes=best, build=lambda: resize(model, best))


learn.gradient_based = False  # type: ignore[attr-defined]
learn.has_budget = True  # type: ignore[attr-defined]


def trained_loss(network: nn.Module, batches: Batches, epochs: int) -> float:
    """The mean training loss over all epochs."""
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=0.01), []
    for images, labels in (batch for _ in range(epochs) for batch in batches):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)
