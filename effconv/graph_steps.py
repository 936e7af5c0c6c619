"""Steps of size learning that never wait for the device: what they find is noted there and read every few steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effconv.captured import CapturedStep, LossFn
from effconv.conversion import PADDINGS
from effconv.embedded import Embedding
from effconv.kernel_predictor import GRUPredictor
from effconv.size_predictor import round_half_up

if TYPE_CHECKING:
    from effconv.learner import SizeLearner

_SCALARS = ("loss", "budget_loss", "accuracy")


class GraphSteps:
    """The steps of a `SizeLearner` with all sizes under one graph. `report_every`: steps that the notes have room for.

    Raises `ValueError` for a kernel predictor that is no `GRUPredictor`.
    """

    def __init__(self, learner: SizeLearner, report_every: int) -> None:
        if not isinstance(learner.kernel_predictor, GRUPredictor):
            name = learner.readings.kernel_predictor
            raise ValueError(f"engine 'graph' has no kernel predictor {name!r}; use engine='plain'")
        if report_every < 1:
            raise ValueError(f"report_every is {report_every}; it must be at least 1")
        self.learner = learner
        self.embedding = Embedding(learner.kernel_predictor, PADDINGS[learner.readings.padding])
        device, layers = learner.cost_tensor.device, len(learner.layers)
        self.vectors = ("v", "s", "class_grad", "budget_grad")
        width = len(self.vectors) * layers + len(_SCALARS)
        self.notes = torch.zeros(report_every, width, device=device, dtype=torch.float64)  # holds float32 to the bit
        self.line = torch.zeros(1, device=device, dtype=torch.int64)  # of the notes, which the next step fills
        self.pending = 0  # the same, as the host counts it
        self.run = CapturedStep(self._step, device)

    def step(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> list[dict[str, Any]]:
        """One step; what was noted of this and of earlier ones where there is no more room, else nothing."""
        self.run(images, labels, loss_fn)
        self.pending += 1
        return self.read() if self.pending == len(self.notes) else []

    def _step(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> None:
        """Steps 2-8 of Algorithm 1, on the device alone. A size that is no number counts as 1 until it is noticed."""
        learner = self.learner
        learner.optimizer.zero_grad(set_to_none=True)
        v = learner.size_predictor()  # Eq. 1
        s = round_half_up(v.detach().nan_to_num(nan=1.0)).long()  # Eq. 2
        v_mask, masks = learner.masks(v, s)  # Eq. 6
        for conv, kernel in zip(learner.predicted, self.embedding.kernels(s, masks), strict=True):
            conv.kernel = kernel  # Eqs. 5 and 7
        outputs, loss = learner.forward(images, labels, loss_fn)  # step 6
        loss.backward()  # type: ignore[no-untyped-call]
        class_grad = torch.zeros_like(v) if v_mask.grad is None else v_mask.grad
        budget_loss, budget_grad = learner.descend(v, class_grad)  # steps 7 and 8
        accuracy = learner.accuracy(outputs, labels)
        scalars = (loss.detach(), budget_loss.detach(), torch.full_like(loss, -1) if accuracy is None else accuracy)
        parts = [part.to(self.notes.dtype).flatten() for part in (v.detach(), s, class_grad, budget_grad, *scalars)]
        self.notes.index_copy_(0, self.line, torch.cat(parts).unsqueeze(0))
        self.line += 1

    def read(self) -> list[dict[str, Any]]:
        """All that was noted since the last time, in order of the steps. Waits for the device."""
        lines = self.notes[: self.pending].tolist()
        self.line.zero_()
        self.pending = 0
        return [self._seen(line) for line in lines]

    def _seen(self, line: list[float]) -> dict[str, Any]:
        layers = len(self.learner.layers)
        seen: dict[str, Any] = {
            name: line[index * layers : (index + 1) * layers] for index, name in enumerate(self.vectors)
        }
        seen |= zip(_SCALARS, line[len(self.vectors) * layers :], strict=True)
        seen["s"] = [int(size) for size in seen["s"]]
        seen["accuracy"] = seen["accuracy"] if seen["accuracy"] >= 0 else None
        return seen | {"budget_error": self.learner.budget_error(seen["s"])}
