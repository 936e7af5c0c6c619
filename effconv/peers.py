"""Several processes that learn the same sizes together, each from its own part of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Peers(Protocol):
    """What one process can ask of all. Every process asks the same in the same order, or they wait for ever.

    What does not come from images (v, L_param, its gradient) is the same in every process and is never added up.
    """

    def average(self, tensors: Sequence[Tensor], images: int) -> None:
        """Each tensor becomes its mean over the processes, weighted by how many images each one saw; in place."""

    def check(self, tensors: Sequence[Tensor], what: str) -> None:
        """Raises an exception in every process unless these are equal in all to the bit. `what`: their name."""
