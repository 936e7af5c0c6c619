"""Graph steps of a network whose masks learn: its kernels' crops move inside windows, which a look now and then renews.

Between two looks the host asks nothing. At a look the device tells whether any kernel since the one before lacked a
position because its crop was wider than its window. Then these steps do not count: all is put back to where it was
before them, the windows get twice the margin, and the steps are taken anew. So the result is the plain engine's but for
rounding, however far masks move; windows that hold every position end it at the latest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.flexconv import FlexConv2d
from baselines.kernel_network import KernelNetwork
from reproduce.run.engine.base import Lap
from reproduce.run.engine.graph import GraphStepper
from reproduce.run.splits import Split
from reproduce.run.streams import noise_state, set_noise_state
from reproduce.specs import Precision, Recipe

# Steps between two looks. At FlexNet's rate for masks, at most 0.001, a mean and a sigma that Adam drives outwards in
# each of so many move the edge of a crop by a sixth of the way from the centre to the horizon: 2.5 of 16 positions.
SPAN = 50


def has_moving_crops(model: nn.Module) -> bool:
    """Whether its kernels have sizes that it learns, and that are not held."""
    if not isinstance(model, KernelNetwork):
        return False
    return model.margin is not None or any(layer.needs_host for layer in masks_of(model))


def masks_of(model: KernelNetwork) -> list[FlexConv2d]:
    return [layer for layer in model.layers().values() if isinstance(layer, FlexConv2d)]


class WindowStepper(GraphStepper):
    """Graph steps in spans of `SPAN`, counted from the start of an epoch, the last one shorter. A look ends each."""

    model: KernelNetwork

    def __init__(
        self,
        model: KernelNetwork,
        split: Split,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        precision: Precision,
        lap: Lap,
    ) -> None:
        super().__init__(model, split, recipe, seed=seed, device=device, precision=precision, lap=lap)
        self.least = max(2, max(layer.horizon for layer in masks_of(model)) // 16)  # positions of margin
        self.before: dict[str, Any] | None = None  # where the span under way began
        model.reserve(self.least)

    @property
    def settled(self) -> bool:
        """Between two spans; within one, no step counts yet."""
        return self.before is None

    def start_epoch(
        self, epoch: int, *, skip: int = 0, augmentation_rng: Tensor | None = None, factor: float = 1.0
    ) -> None:
        if not skip:
            if self.before is not None:  # an epoch that was left before its end
                self.look()
            assert self.model.margin is not None
            self.model.margin = max(self.least, self.model.margin // 2)
        super().start_epoch(epoch, skip=skip, augmentation_rng=augmentation_rng, factor=factor)

    def _step(self) -> None:
        if self.before is None:
            self.before = {
                "done": self.done,
                "tensors": self.copied(),
                "noise": noise_state(self.device),
                "augmentation_rng": self.augmentation_rng,
            }
        super()._step()
        if self.done % SPAN == 0 or self.done == self.steps:
            self.look()

    def look(self) -> None:
        """Ends the span, anew if need be, and begins the next one with windows that fit."""
        assert self.model.margin is not None
        while (found := self.model.look(range(self.model.margin // 2, 2 * self.model.margin + 1))).outgrown:
            self.lap("look")
            self.repeat()
        self.before = None
        self.lap("look")
        if found.changed:
            self.capture_anew()

    def repeat(self) -> None:
        """The steps of the span once more, with twice the margin."""
        assert self.before is not None and self.model.margin is not None
        end = self.done
        self.put_back(self.before["tensors"])
        set_noise_state(self.before["noise"])
        self.done = self.before["done"]
        self.source.start(self.batches(self.before["augmentation_rng"]))
        self.model.reserve(2 * self.model.margin)
        self.capture_anew()
        while self.done < end:
            super()._step()

    def capture_anew(self) -> None:
        """Windows are part of a graph's form."""
        self.graphs.clear()
        if self.device.type == "cuda":
            self.capture()
            self.lap("capture")

    def extra(self) -> dict[str, Any]:
        """The windows decide about rounding, so a run that goes on has those that it had."""
        windows = [list(size) for size in self.model.reserved()]
        outgrown = self.model.outgrown
        return {"margin": self.model.margin, "windows": windows, "outgrown": outgrown, "before": self.before}

    def load(self, optimizer: dict[str, Any], sums: Tensor, extra: dict[str, Any]) -> None:
        super().load(optimizer, sums, extra)
        self.model.reserve(extra["margin"], [(kh, kw) for kh, kw in extra["windows"]])
        assert self.model.outgrown is not None
        self.model.outgrown.copy_(extra["outgrown"])
        self.before = extra["before"]
