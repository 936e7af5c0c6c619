"""What a network does on the whole test set: top-1, top-5, macro precision, recall, F1, mean loss, which images."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reproduce.errors import Interrupted
from reproduce.records import Evaluation
from reproduce.run.augmentation import normalise
from reproduce.run.batches import laid_out
from reproduce.run.datasets import Split

BATCH = 200


@dataclass(frozen=True)
class Evaluated:
    """The measures and, in the order of the test images, which were right."""

    measures: Evaluation
    correct: np.ndarray  # (N,) bool


def never() -> bool:
    return False


def logits_of(
    model: nn.Module, images: Tensor, normalisation: str, *, stop: Callable[[], bool] = never
) -> Tensor:
    """images: (N, C, H, W) uint8 on the model's device -> (N, K) logits on the CPU, in evaluation mode."""
    was_training = model.training
    parts: list[Tensor] = []
    model.eval()
    with torch.no_grad():
        for batch in images.split(BATCH):
            if parts and stop():
                raise Interrupted
            parts.append(model(laid_out(normalise(batch, normalisation))).float())
    model.train(was_training)
    return torch.cat(parts).cpu()


def evaluate(
    model: nn.Module,
    test: Split,
    *,
    normalisation: str,
    epoch: int,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    stop: Callable[[], bool] = never,
) -> Evaluated | None:
    """All measures on the test set; None if a logit is not finite, for then there is nothing to measure.

    `loss`: the mean loss of (logits (N, K) float64, labels (N,)). Raises `Interrupted` if `stop()` is true between
    batches.
    """
    logits = logits_of(model, test.images, normalisation, stop=stop)
    labels = test.labels.cpu()
    mean_loss = loss(logits.double(), labels).item()
    if not (math.isfinite(mean_loss) and bool(torch.isfinite(logits).all())):
        return None
    predicted = logits.argmax(1)
    precision, recall, f1 = macro_measures(labels.numpy(), predicted.numpy())
    measures = Evaluation(
        epoch=epoch,
        top1=percent(predicted == labels),
        top5=percent((logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)),
        precision=precision,
        recall=recall,
        f1=f1,
        loss=mean_loss,
    )
    return Evaluated(measures=measures, correct=(predicted == labels).numpy())


def percent(hits: Tensor) -> float:
    """hits: (N,) bool -> percentage."""
    return 100.0 * int(hits.sum()) / len(hits)


def macro_measures(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """labels, predicted: (N,) -> precision, recall and F1 in percent, averaged over the classes that occur in either.

    A class that is never predicted has precision 0, one that never occurs has recall 0.
    """
    from sklearn.metrics import precision_recall_fscore_support  # slow to import; not needed before

    means = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)[:3]
    precision, recall, f1 = (100.0 * float(value) for value in means)
    return precision, recall, f1


def pack(correct: np.ndarray) -> str:
    """(N,) bool -> base64 of `numpy.packbits`: the first image is the highest bit of the first byte."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def unpack(bits: str, count: int) -> np.ndarray:
    """Inverse of `pack`: (count,) bool."""
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), dtype=np.uint8), count=count).astype(bool)
