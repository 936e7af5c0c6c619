"""Size learning from start to end: lines 1-9 of Algorithm 1 of the paper, for any CNN, resumable."""

from __future__ import annotations

import collections
import copy
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv import checkpoints
from effconv.conversion import Selection, find_learnable
from effconv.learner import SizeLearner
from effconv.peers import Peers
from effconv.readings import Readings, Settings
from effconv.result import History, KernelSizes

Batch = tuple[Tensor, Tensor]
Batches = Iterable[Batch] | Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class Step:
    """What a callback sees after each optimiser step. `accuracy` is None where the outputs are not class scores."""

    epoch: int  # from 1
    epochs: int
    step: int  # in this epoch, from 1
    loss: float  # L_class
    accuracy: float | None
    budget_error: float  # p_pr / p_d - 1
    sizes: list[int]


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63


def _epochs(batches: Batches, seed: int, device: torch.device) -> Iterator[Iterable[Batch]]:
    """The batches of each epoch, not yet begun. A callable is called even for epochs that a resumed run passes over."""
    if hasattr(batches, "__next__"):
        raise ValueError("batches is an iterator, good for one pass; give a list, a DataLoader or a callable")
    for epoch in itertools.count():
        # so a shuffling DataLoader repeats its order after a resume
        checkpoints.seed_rng(_epoch_seed(seed, epoch), device)
        yield batches() if callable(batches) else batches


def _peek(batches: Iterable[Batch], epoch: int) -> tuple[Batch, Iterator[Batch]]:
    opened = iter(batches)
    first = next(opened, None)
    if first is None:
        raise ValueError(f"batches gave nothing in epoch {epoch + 1}; every epoch needs at least one batch")
    return first, itertools.chain([first], opened)


def learn_kernel_sizes(
    model: nn.Module,
    batches: Batches,
    *,
    budget: int,
    epochs: int = 10,
    layers: Selection = None,
    loss_fn: Callable[[Any, Tensor], Tensor] = F.cross_entropy,
    max_size: int = 7,
    device: torch.device | str | None = None,
    seed: int = 0,
    callback: Callable[[Step], object] | None = None,
    checkpoint: str | Path | checkpoints.Keeper | None = None,
    checkpoint_every: float = 120.0,
    readings: Readings | None = None,
    lam: float = 2.0,
    lr: float = 1e-4,
    kernel_lr: float = 1e-3,
    weight_decay: float = 1e-3,
    tolerance: float = 0.01,
    engine: str = "plain",
    report_every: int = 50,
    autocast: torch.dtype | None = None,
    planted: Sequence[float] | None = None,
    peers: Peers | None = None,
) -> KernelSizes:
    """Learns the kernel sizes of a CNN under a parameter budget: lines 1-9 of Algorithm 1.

    model: any network of `nn.Conv2d`; it, its mode, its gradients and the random state stay as they were.
    batches: images (N, C, H, W) and labels (N,), as a list, a `DataLoader`, or a callable without arguments that is
        called once for each epoch and returns that epoch's batches. All batches of all epochs are used (R-01).
    budget: p_d of Eq. 3, a number of weights of the learnable convolutions, without biases, for example 660_000.
    layers: shell patterns over module names, or a predicate (name, module); default: all but the first convolution.
    loss_fn: (model output, labels) -> scalar L_class. lam: lambda of Eq. 8.
    callback: called with a `Step` after each optimiser step; what it raises passes through, with the state saved.
    checkpoint: a file to resume from, written after each epoch and every `checkpoint_every` seconds; or an object with
        `save(state)` and `load(device)` that keeps it elsewhere. The result equals that of an uninterrupted call if
        the batches of an epoch do not depend on state of their own.
    readings: which reading of the paper each part follows.
    engine: `plain`; `graph`, which on CUDA runs whole steps as CUDA graphs without waiting for the device, so that
        the callback hears of a step, and a divergence is noticed, up to `report_every` steps late; or `loop`, the
        slow plain form. A network or loss that itself waits for the device needs `plain`. Results agree to rounding.
    autocast: `torch.bfloat16`, say, for the CNN and the loss where autocast allows; all parameters keep their type.
    planted: by layer, a constant that every step adds to the gradient on v, to learn how strong a say would be heard.
        What the history holds of the class gradient is without it.
    peers: for a call that several processes make alike, each with its own part of every batch: how they average their
        gradients. `accuracy` is then of this process's part; all else equals one process with whole batches, where the
        network treats each image alone (batch norm does not). Not for engine `graph`.

    Raises `BudgetError` (a `ValueError`) for a budget that no sizes meet within `tolerance`, `ValueError` for batches
    or layers that cannot be used, `DivergedError` when the loss is no longer finite.
    """
    readings = readings or Readings()
    settings = Settings(
        budget=budget,
        epochs=epochs,
        max_size=max_size,
        lam=lam,
        lr=lr,
        kernel_lr=kernel_lr,
        weight_decay=weight_decay,
        tolerance=tolerance,
        seed=seed,
    )
    where = torch.device(device or next((p.device for p in model.parameters()), torch.device("cpu")))
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        run = _Run(model, batches, settings, readings, layers, where, engine, report_every, autocast, planted, peers)
        if checkpoint is not None:
            keeper = checkpoints.File(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
            run.keep(keeper, checkpoint_every)
        run.train(loss_fn, callback)
    return run.learner.result(model, run.history, run.left_alone)


class _Run:
    """One call of `learn_kernel_sizes`: where it is, and how it is saved."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        settings: Settings,
        readings: Readings,
        layers: Selection,
        device: torch.device,
        engine: str,
        report_every: int,
        autocast: torch.dtype | None,
        planted: Sequence[float] | None,
        peers: Peers | None,
    ) -> None:
        self.opening = _epochs(batches, settings.seed, device)
        (images, _), self.first_epoch = _peek(next(self.opening), 0)
        self.device, self.settings, self.peers = device, settings, peers
        model = copy.deepcopy(model).to(device).train()
        names, self.left_alone = find_learnable(model, images[:2].to(device), layers)
        checkpoints.seed_rng(settings.seed, device)  # so the start depends on the seed alone, not on the data
        self.learner = SizeLearner(model, names, settings, readings, engine, report_every, autocast, planted, peers)
        self.history = History()
        self.epoch = self.batch = 0  # done
        self.keeper: checkpoints.Keeper | None = None
        shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
        self.identity = asdict(settings) | asdict(readings) | {"layers": names, "network": shapes}
        if engine != "plain":
            self.identity["engine"] = engine
        if autocast is not None:
            self.identity["autocast"] = str(autocast)
        if planted is not None:
            self.identity["planted"] = list(planted)

    def keep(self, keeper: checkpoints.Keeper, every: float) -> None:
        self.keeper, self.every, self.saved_at = keeper, every, time.monotonic()
        state = checkpoints.load(keeper, self.identity, self.device)
        if state is None:
            return
        self.learner.load_state(state["learner"])
        self.history.load_state(state["history"])
        self.epoch, self.batch, self.resumed_rng = state["epoch"], state["batch"], state["rng"]

    def save(self) -> None:
        if self.keeper is None:
            return
        self.saved_at = time.monotonic()
        state = {"identity": self.identity, "epoch": self.epoch, "batch": self.batch}
        state |= {"rng": checkpoints.rng_state(self.device), "learner": self.learner.state()}
        self.keeper.save(state | {"history": self.history.state()})

    def train(self, loss_fn: Callable[[Any, Tensor], Tensor], callback: Callable[[Step], object] | None) -> None:
        resumed_epoch, resumed_batch = self.epoch, self.batch
        opened: Iterable[Batch] = self.first_epoch
        for epoch in range(self.settings.epochs):
            batches = opened if epoch == 0 else next(self.opening)
            if epoch < resumed_epoch:
                continue
            if epoch > 0:
                _, opened = _peek(batches, epoch)
            if epoch == resumed_epoch and resumed_batch:  # pass over what was done before the interruption
                opened = iter(opened)
                collections.deque(itertools.islice(opened, resumed_batch), maxlen=0)
                checkpoints.set_rng_state(self.resumed_rng, self.device)
            self._train_epoch(opened, loss_fn, callback)

    def _train_epoch(
        self,
        opened: Iterable[Batch],
        loss_fn: Callable[[Any, Tensor], Tensor],
        callback: Callable[[Step], object] | None,
    ) -> None:
        for images, labels in opened:
            found = self.learner.advance(images.to(self.device), labels.to(self.device), loss_fn)
            self.batch += 1
            self._report(found, callback)
            if self.keeper is not None and time.monotonic() - self.saved_at > self.every:
                self._report(self.learner.flush(), callback)
                self.save()
        self._report(self.learner.flush(), callback)
        if self.peers is not None:
            weights = [parameter for group in self.learner.optimizer.param_groups for parameter in group["params"]]
            self.peers.check([self.learner.last, *weights], "soft sizes and weights")
        self.epoch, self.batch = self.epoch + 1, 0
        self.save()

    def _report(self, found: list[dict[str, Any]], callback: Callable[[Step], object] | None) -> None:
        """found: the latest steps up to this one. All stand in the history before the first is told, which may stop."""
        steps = []
        for batch, seen in enumerate(found, self.batch - len(found) + 1):
            accuracy = seen.pop("accuracy")
            self.history.add({"epoch": self.epoch + 1, "step": batch} | seen)
            progress = (self.epoch + 1, self.settings.epochs, batch)
            steps.append(Step(*progress, seen["loss"], accuracy, seen["budget_error"], seen["s"]))
        if callback is not None:
            for step in steps:
                self._call(callback, step)

    def _call(self, callback: Callable[[Step], object], step: Step) -> None:
        try:
            callback(step)
        except BaseException:
            self.save()
            raise
