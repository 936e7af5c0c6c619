"""Parameters and multiply-adds of a network as pure functions of its spec; no network is built, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reproduce.formulas import FORMULAS
from reproduce.specs import DATASETS, ModelSpec

REACH = 7  # the largest learnable size, 2k + 1 with the paper's k = 3


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Counts at the network's initial kernel sizes.

    Eq. 3 counts weights of spatial convolutions (larger than 1 x 1, not grouped) after the first: in a ResNet the
    residual ones. Where a kernel is generated, the weights of the kernel count there, not those that generate it.
    """

    total: int  # trainable parameters with the data set's number of classes; a CapsNet's without its decoder
    eq3: int
    macs: int  # multiply-adds of one image: convolutions, done directly, and linear layers
    eq3_macs: int  # the share of those that Eq. 3 counts
    work: int  # `macs`, less what FFT saves at large kernels, plus what an ODE's adjoint evaluates again
    layers: int  # convolutions and linear layers; of the shortcuts only Wide ResNet's, which its name counts
    passes: int  # layers that one image passes through, a DCN's several times

    @property
    def eq3_range(self) -> tuple[int, int]:
        """The counts of Eq. 3 with every size 1 and with every size 7, of a network whose sizes are 3."""
        return self.eq3 // 9, self.eq3 // 9 * REACH * REACH


def complexity(model: ModelSpec, dataset: str) -> Complexity:
    """Raises `KeyError` for a family without a formula."""
    facts = DATASETS[dataset]
    arguments: dict[str, Any] = model.args
    layers, norm_channels = FORMULAS[model.family](facts.in_channels, facts.image_size, facts.num_classes, **arguments)
    learnable = [layer for layer in layers[1:] if layer.is_spatial]
    return Complexity(
        total=sum(layer.parameters for layer in layers) + 2 * norm_channels,
        eq3=sum(layer.weights for layer in learnable),
        macs=sum(layer.macs for layer in layers),
        eq3_macs=sum(layer.macs for layer in learnable),
        work=sum(layer.work for layer in layers),
        layers=sum(layer.counted for layer in layers),
        passes=sum(layer.uses for layer in layers),
    )
