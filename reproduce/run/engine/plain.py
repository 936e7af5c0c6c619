"""The plain engine: one operation after the other, as the host comes to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from reproduce.run.engine.base import Base


class PlainStepper(Base):
    """Steps that can be read from top to bottom."""

    def start_epoch(
        self, epoch: int, *, skip: int = 0, augmentation_rng: Tensor | None = None, factor: float = 1.0
    ) -> None:
        self.begin(epoch, skip, factor)
        self.source = self.batches(augmentation_rng)
        self.to_come: Iterator[tuple[Tensor, Tensor]] = iter(self.source)

    @property
    def augmentation_rng(self) -> Tensor | None:
        return self.source.augmentation_rng

    def _step(self) -> None:
        images, labels = next(self.to_come)
        images = images.contiguous(memory_format=self.layout)
        self.lap("data")
        for group, rate in zip(self.optimizer.param_groups, self.rates(self.done), strict=True):
            group["lr"] = rate
        self.lap("schedule")
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self.forward(images, labels)
        self.lap("forward")
        self.backward(loss)
        self.lap("backward")
        self.optimizer.step()
        self.lap("optimizer")
        with torch.no_grad():
            right = (logits.argmax(1) == labels).sum().double()
            self.count(torch.stack((loss.double() * len(labels), right, torch.ones_like(right) * len(labels))))
        self.done += 1
        self.lap("bookkeeping")

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def count(self, found: Tensor) -> None:
        """found: (3,) what this step adds to `sums`."""
        self.sums += found

    def load(self, optimizer: dict[str, Any], sums: Tensor, extra: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(optimizer)
        self.sums = sums
