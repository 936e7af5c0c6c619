"""What a network is trained to lower: cross entropy, its sum with a penalty on kernels, or the capsules' own loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from baselines import capsnet
from reproduce.specs import Recipe

Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]


def make_loss(recipe: Recipe) -> Loss:
    """(network, images (B, C, H, W), labels (B,)) -> the scalar loss and the class scores (B, K)."""
    if recipe.loss == "capsnet":
        return cast(Loss, capsnet.loss)
    return penalised(recipe.kernel_penalty) if recipe.kernel_penalty else cross_entropy


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = model(images)
    return F.cross_entropy(logits, labels), logits


def penalised(penalty: float) -> Loss:
    """Cross entropy plus FlexConv's "weight decay": `penalty` times the norms of the sampled kernels and biases."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kernels = model.kernels()  # type: ignore[operator]
        logits = model(images, kernels)
        return F.cross_entropy(logits, labels) + penalty * model.kernel_norms(kernels), logits  # type: ignore[operator]

    return loss


def score_loss(recipe: Recipe, scores: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of class scores (N, K) alone, as it is reported on the test set."""
    return capsnet.margin_loss(scores, labels) if recipe.loss == "capsnet" else F.cross_entropy(scores, labels)
