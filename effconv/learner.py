"""One step of size learning: Eq. 8 and steps 2-9 of Algorithm 1 of the paper.

min over theta_sp, theta_kp, theta_c of  L_class(theta_sp, theta_kp, theta_c) + lambda L_param(theta_sp)      (8)
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from effconv.budget import BUDGET_SCOPES, BUDGET_VALUES
from effconv.captured import LossFn
from effconv.conversion import with_predicted
from effconv.graph_steps import GraphSteps
from effconv.kernel_predictor import KERNEL_PREDICTORS, GRUPredictor, Layer
from effconv.mask import mask_profiles
from effconv.peers import Peers
from effconv.readings import Readings, Settings
from effconv.result import History, KernelSizes
from effconv.size_predictor import SizePredictor, round_half_up
from effconv.snapping import count, read_out, snap_to_budget

_EMA_DECAY = 0.99  # per step

# plain: one step, then what it found. graph: all sizes under one CUDA graph, its findings read every few steps; on the
# CPU the same operations without the graph. loop: as plain, but the layers' kernels are predicted one after the other.
ENGINES = ("plain", "graph", "loop")


class DivergedError(ArithmeticError):
    """The loss or a size is no longer finite."""


class SizeLearner:
    """The three sets of parameters of Eq. 8 and the step that updates them.

    engine: one of `ENGINES`. report_every: how many steps late engine `graph` may tell of a step. autocast: a type such
    as `torch.bfloat16` that the CNN computes in where autocast allows; predictors, weights and sizes keep theirs.
    planted: (L,) a constant that every step adds to the gradient on v; the class gradient is told without it.
    peers: the processes that share every batch, on steps of another engine than `graph`.
    Raises `BudgetError` for a budget out of reach, `ValueError` for an engine that there is not or that has no kernel
    predictor of this reading, or for another number of planted values than layers.
    """

    def __init__(
        self,
        model: nn.Module,
        names: list[str],
        settings: Settings,
        readings: Readings,
        engine: str = "plain",
        report_every: int = 50,
        autocast: torch.dtype | None = None,
        planted: Sequence[float] | None = None,
        peers: Peers | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
        if peers is not None and engine == "graph":
            raise ValueError("engine 'graph' cannot share its steps with other processes; use engine='plain'")
        convs = [conv for name in names if isinstance(conv := model.get_submodule(name), nn.Conv2d)]
        self.layers = [Layer(conv.out_channels, conv.in_channels, conv.kernel_size[0]) for conv in convs]
        self.costs = [layer.out_channels * layer.in_channels for layer in self.layers]
        own = [layer.kernel_size for layer in self.layers]
        total = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self.fixed = BUDGET_SCOPES[readings.budget_scope](total, count(own, self.costs))
        self.settings, self.readings, self.names = settings, readings, names
        self.engine, self.autocast, self.peers = engine, autocast, peers
        like = convs[0].weight
        self.cnn = copy.deepcopy(model)
        self.predicted = with_predicted(self.cnn, names, settings.max_size, readings.padding)
        self.size_predictor = SizePredictor(own, settings.max_size, readings.size_predictor).to(like)
        self.kernel_predictor = KERNEL_PREDICTORS[readings.kernel_predictor](self.layers, settings.max_size).to(like)
        self.cost_tensor = torch.tensor(self.costs, device=like.device, dtype=like.dtype)
        if planted is not None and len(planted) != len(names):
            raise ValueError(f"planted has {len(planted)} values; there are {len(names)} layers")
        self.planted = None if planted is None else torch.tensor(planted, device=like.device, dtype=like.dtype)
        with torch.no_grad():
            self.initial = self.size_predictor()
        self.ema = self.initial.clone()
        self.last = self.initial.clone()
        self.optimizer = self._optimizer()
        # a budget out of reach is an error now, not hours later
        snap_to_budget(self.initial.tolist(), **self._limits())
        if engine == "loop" and not isinstance(self.kernel_predictor, GRUPredictor):
            raise ValueError(f"engine 'loop' has no kernel predictor {readings.kernel_predictor!r}; use engine='plain'")
        self.report_every = report_every
        self.graph = GraphSteps(self, report_every) if engine == "graph" else None

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
        capturable = self.engine == "graph" and self.cost_tensor.is_cuda
        return torch.optim.AdamW(groups, weight_decay=s.weight_decay, fused=True, capturable=capturable)

    def soft_and_integer_sizes(self) -> tuple[Tensor, list[int]]:
        """Step 2 of Algorithm 1: v (L,) and s."""
        v = self.size_predictor()  # Eq. 1
        if not torch.isfinite(v).all():
            raise DivergedError("a soft size is not finite")
        return v, [int(size) for size in round_half_up(v.detach()).tolist()]  # Eq. 2

    def masks(self, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Step 4 of Algorithm 1. v, s: (L,) -> v again, cut off from its past; and Eq. 6, (L, max_size, max_size)."""
        v_mask = v.detach().requires_grad_()
        centre, denominator = self.readings.mask_centre, self.readings.mask_denominator
        g = mask_profiles(v_mask, s, self.settings.max_size, centre=centre, denominator=denominator)
        return v_mask, g.unsqueeze(2) * g.unsqueeze(1)

    def set_kernels(self) -> tuple[Tensor, Tensor, list[int]]:
        """Steps 2-5 of Algorithm 1: gives the CNN its kernels.

        Returns v (L,) of the size predictor; v again, cut off from it, as the mask saw it; and s.
        """
        v, sizes = self.soft_and_integer_sizes()
        v_mask, masks = self.masks(v, torch.tensor(sizes, device=v.device))
        predictor = self.kernel_predictor
        if self.engine == "loop" and isinstance(predictor, GRUPredictor):
            kernels = predictor.one_by_one(sizes, masks)
        else:
            kernels = predictor.modulated(sizes, masks)
        for conv, kernel in zip(self.predicted, kernels, strict=True):
            conv.kernel = kernel  # Eqs. 5 and 7
        return v, v_mask, sizes

    def advance(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> list[dict[str, Any]]:
        """One step, as `step`, and what has become known by now, step by step, in order.

        That is this step alone, or with engine `graph` nothing for `report_every` - 1 steps and then all of them.
        Raises `DivergedError` when it has become known that the loss or a size was not finite.
        """
        if self.graph is None:
            return [self._plain_step(images, labels, loss_fn)]
        return _finite(self.graph.step(images, labels, loss_fn))

    def flush(self) -> list[dict[str, Any]]:
        """What `advance` has not told yet. With engine `graph` this waits for the device."""
        return [] if self.graph is None else _finite(self.graph.read())

    def step(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> dict[str, Any]:
        """Steps 2-8 of Algorithm 1 on one batch: images (N, C, H, W), labels (N,); what is known of this step."""
        return (self.advance(images, labels, loss_fn) + self.flush())[-1]

    def _plain_step(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> dict[str, Any]:
        """The two terms of Eq. 8 are differentiated apart, so that each one's say on v can be recorded."""
        self.optimizer.zero_grad(set_to_none=True)
        v, v_mask, sizes = self.set_kernels()
        outputs, loss = self.forward(images, labels, loss_fn)
        if not math.isfinite(loss_value := self.over_peers(loss, len(images)).item()):
            raise DivergedError(f"the loss is {loss_value}")
        loss.backward()  # type: ignore[no-untyped-call]
        class_grad = torch.zeros_like(v) if v_mask.grad is None else v_mask.grad
        if self.peers is not None:
            self.peers.average([class_grad, *self.gradients()], len(images))
        seen = self._seen(v, sizes, class_grad)
        accuracy = self.accuracy(outputs, labels)
        accuracy_value = None if accuracy is None else accuracy.item()
        return seen | {"loss": loss_value, "class_grad": class_grad, "accuracy": accuracy_value}

    def forward(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> tuple[Any, Tensor]:
        """Step 6 of Algorithm 1, with the kernels that were set: the CNN's outputs and L_class."""
        if self.autocast is None:
            outputs = self.cnn(images)
            return outputs, loss_fn(outputs, labels)
        # Each weight is cast once in a forward pass, so a cache of casts would save nothing.
        with torch.autocast(images.device.type, self.autocast, cache_enabled=False):
            outputs = self.cnn(images)
            return outputs, loss_fn(outputs, labels)

    def over_peers(self, loss: Tensor, images: int) -> Tensor:
        """L_class over the whole batch, of which the peers have the rest; without peers, the loss itself."""
        if self.peers is None:
            return loss
        mean = loss.detach().clone()
        self.peers.average([mean], images)
        return mean

    def gradients(self) -> list[Tensor]:
        """Those that there are: between the two backward passes of a step, the class loss's on all but theta_sp."""
        parameters = itertools.chain.from_iterable(group["params"] for group in self.optimizer.param_groups)
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def budget_step(self) -> dict[str, Any]:
        """The same step on lambda L_param alone: no batch, no class loss, so that theta_sp is all that moves."""
        self.optimizer.zero_grad(set_to_none=True)
        v, sizes = self.soft_and_integer_sizes()
        return self._seen(v, sizes, torch.zeros_like(v))

    def _seen(self, v: Tensor, sizes: list[int], class_grad: Tensor) -> dict[str, Any]:
        budget_loss, budget_grad = self.descend(v, class_grad)
        found = {"v": v, "s": sizes, "budget_loss": budget_loss, "budget_grad": budget_grad}
        return found | {"budget_error": self.budget_error(sizes)}

    def descend(self, v: Tensor, class_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Steps 7 and 8 of Algorithm 1, once what the class loss says of v is known: L_param and its gradient on v."""
        v_budget = v.detach().requires_grad_()
        budget_loss = BUDGET_VALUES[self.readings.budget_value](
            v_budget, self.cost_tensor, self.settings.budget, self.fixed
        )  # step 7
        (budget_grad,) = torch.autograd.grad(self.settings.lam * budget_loss, v_budget)
        gradient = class_grad + budget_grad
        v.backward(gradient if self.planted is None else gradient + self.planted)  # type: ignore[no-untyped-call]
        self.optimizer.step()  # step 8
        with torch.no_grad():
            self.last.copy_(v)
            self.ema.lerp_(self.last, 1 - _EMA_DECAY)
        return budget_loss, budget_grad

    def budget_error(self, sizes: list[int]) -> float:
        """p_pr / p_d - 1."""
        return count(sizes, self.costs, self.fixed) / self.settings.budget - 1

    @staticmethod
    def accuracy(outputs: Any, labels: Tensor) -> Tensor | None:
        """The share of right answers, a scalar on the device; None where the outputs are no class scores."""
        if not isinstance(outputs, Tensor) or outputs.dim() != 2 or labels.dim() != 1:
            return None
        return (outputs.detach().argmax(1) == labels).float().mean()

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
        if self.graph is not None:  # captured graphs know the old tensors' places
            self.graph = GraphSteps(self, self.report_every)


def _finite(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for seen in found:
        if not all(map(math.isfinite, seen["v"])):
            raise DivergedError("a soft size is not finite")
        if not math.isfinite(seen["loss"]):
            raise DivergedError(f"the loss is {seen['loss']}")
    return found
