"""One step of size learning: Eq. 8 and steps 2-9 of Algorithm 1 of the paper.

min over theta_sp, theta_kp, theta_c of  L_class(theta_sp, theta_kp, theta_c) + lambda L_param(theta_sp)      (8)
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from effconv.budget import BUDGET_SCOPES, BUDGET_VALUES
from effconv.conversion import with_predicted
from effconv.kernel_predictor import KERNEL_PREDICTORS, Layer
from effconv.mask import mask_profiles
from effconv.readings import Readings, Settings
from effconv.result import History, KernelSizes
from effconv.size_predictor import SizePredictor, round_half_up
from effconv.snapping import count, read_out, snap_to_budget

_EMA_DECAY = 0.99  # per step


class DivergedError(ArithmeticError):
    """The loss or a size is no longer finite."""


class SizeLearner:
    """The three sets of parameters of Eq. 8 and the step that updates them."""

    def __init__(self, model: nn.Module, names: list[str], settings: Settings, readings: Readings) -> None:
        convs = [conv for name in names if isinstance(conv := model.get_submodule(name), nn.Conv2d)]
        self.layers = [Layer(conv.out_channels, conv.in_channels, conv.kernel_size[0]) for conv in convs]
        self.costs = [layer.out_channels * layer.in_channels for layer in self.layers]
        own = [layer.kernel_size for layer in self.layers]
        total = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self.fixed = BUDGET_SCOPES[readings.budget_scope](total, count(own, self.costs))
        self.settings, self.readings, self.names = settings, readings, names
        like = convs[0].weight
        self.cnn = copy.deepcopy(model)
        self.predicted = with_predicted(self.cnn, names, settings.max_size, readings.padding)
        self.size_predictor = SizePredictor(own, settings.max_size, readings.size_predictor).to(like)
        self.kernel_predictor = KERNEL_PREDICTORS[readings.kernel_predictor](self.layers, settings.max_size).to(like)
        self.cost_tensor = torch.tensor(self.costs, device=like.device, dtype=like.dtype)
        with torch.no_grad():
            self.initial = self.size_predictor()
        self.ema = self.initial.clone()
        self.last = self.initial.clone()
        self.optimizer = self._optimizer()
        snap_to_budget(
            self.initial.tolist(), **self._limits()
        )  # a budget out of reach is an error now, not hours later

    def _limits(self) -> dict[str, Any]:
        s = self.settings
        return {
            "costs": self.costs,
            "budget": s.budget,
            "max_size": s.max_size,
            "tolerance": s.tolerance,
            "fixed": self.fixed,
        }

    def _optimizer(self) -> torch.optim.AdamW:
        s = self.settings
        # whatever is not a predicted kernel (first convolution, batch norm, classifier, biases) shares one group.
        others = [
            p for p in itertools.chain(self.size_predictor.parameters(), self.cnn.parameters()) if p.requires_grad
        ]
        groups = [{"params": others, "lr": s.lr}, {"params": self.kernel_predictor.parameters(), "lr": s.kernel_lr}]
        return torch.optim.AdamW(groups, weight_decay=s.weight_decay, fused=True)

    def soft_and_integer_sizes(self) -> tuple[Tensor, list[int]]:
        """Step 2 of Algorithm 1: v (L,) and s."""
        v = self.size_predictor()  # Eq. 1
        if not torch.isfinite(v).all():
            raise DivergedError("a soft size is not finite")
        return v, [int(size) for size in round_half_up(v.detach()).tolist()]  # Eq. 2

    def set_kernels(self) -> tuple[Tensor, Tensor, list[int]]:
        """Steps 2-5 of Algorithm 1: gives the CNN its kernels.

        Returns v (L,) of the size predictor; v again, cut off from it, as the mask saw it; and s.
        """
        v, sizes = self.soft_and_integer_sizes()
        v_mask = v.detach().requires_grad_()
        g = mask_profiles(
            v_mask,
            torch.tensor(sizes, device=v.device),
            self.settings.max_size,
            centre=self.readings.mask_centre,
            denominator=self.readings.mask_denominator,
        )
        masks = g.unsqueeze(2) * g.unsqueeze(1)  # Eq. 6
        for conv, kernel in zip(self.predicted, self.kernel_predictor.modulated(sizes, masks), strict=True):
            conv.kernel = kernel  # Eqs. 5 and 7
        return v, v_mask, sizes

    def step(self, images: Tensor, labels: Tensor, loss_fn: Callable[[Any, Tensor], Tensor]) -> dict[str, Any]:
        """Steps 2-8 of Algorithm 1 on one batch: images (N, C, H, W), labels (N,).

        The two terms of Eq. 8 are differentiated apart, so that each one's say on v can be recorded.
        """
        self.optimizer.zero_grad(set_to_none=True)
        v, v_mask, sizes = self.set_kernels()
        outputs = self.cnn(images)
        loss = loss_fn(outputs, labels)  # step 6
        if not math.isfinite(loss_value := loss.item()):
            raise DivergedError(f"the loss is {loss_value}")
        loss.backward()  # type: ignore[no-untyped-call]
        class_grad = torch.zeros_like(v) if v_mask.grad is None else v_mask.grad
        seen = self._descend(v, sizes, class_grad)
        return seen | {"loss": loss_value, "class_grad": class_grad, "accuracy": _accuracy(outputs, labels)}

    def budget_step(self) -> dict[str, Any]:
        """The same step on lambda L_param alone: no batch, no class loss, so that theta_sp is all that moves."""
        self.optimizer.zero_grad(set_to_none=True)
        v, sizes = self.soft_and_integer_sizes()
        return self._descend(v, sizes, torch.zeros_like(v))

    def _descend(self, v: Tensor, sizes: list[int], class_grad: Tensor) -> dict[str, Any]:
        """Steps 7 and 8 of Algorithm 1, once what the class loss says of v is known."""
        v_budget = v.detach().requires_grad_()
        budget_loss = BUDGET_VALUES[self.readings.budget_value](
            v_budget, self.cost_tensor, self.settings.budget, self.fixed
        )  # step 7
        (budget_grad,) = torch.autograd.grad(self.settings.lam * budget_loss, v_budget)
        v.backward(class_grad + budget_grad)  # type: ignore[no-untyped-call]
        self.optimizer.step()  # step 8
        with torch.no_grad():
            self.last = v.detach()
            self.ema.lerp_(self.last, 1 - _EMA_DECAY)
        error = count(sizes, self.costs, self.fixed) / self.settings.budget - 1
        return {"v": v, "s": sizes, "budget_loss": budget_loss, "budget_error": error, "budget_grad": budget_grad}

    def result(self, model: nn.Module, history: History, left_alone: dict[str, str]) -> KernelSizes:
        """Step 9 of Algorithm 1."""
        limits = self._limits()
        costs, budget = limits.pop("costs"), limits.pop("budget")
        snapped = read_out(self.readings.readout, self.ema, self.last, self.initial, costs, budget, **limits)
        return KernelSizes(
            sizes=dict(zip(self.names, snapped.sizes, strict=True)),
            snapped=snapped,
            budget=self.settings.budget,
            params=count(snapped.sizes, self.costs),
            history=history.points,
            left_alone=left_alone,
            settings=asdict(self.settings) | asdict(self.readings),
            model=model,
        )

    def state(self) -> dict[str, Any]:
        return {
            "cnn": self.cnn.state_dict(),
            "size_predictor": self.size_predictor.state_dict(),
            "kernel_predictor": self.kernel_predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "initial": self.initial,
            "ema": self.ema,
            "last": self.last,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for part in ("cnn", "size_predictor", "kernel_predictor", "optimizer"):
            getattr(self, part).load_state_dict(state[part])
        self.initial, self.ema, self.last = (state[key].to(self.ema.device) for key in ("initial", "ema", "last"))


def _accuracy(outputs: Any, labels: Tensor) -> float | None:
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or labels.dim() != 1:
        return None
    return (outputs.detach().argmax(1) == labels).float().mean().item()
