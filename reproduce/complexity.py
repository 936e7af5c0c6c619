"""Parameters and multiply-adds of a network as pure functions of its spec; no network is built, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reproduce.specs import DATASETS, ModelSpec

REACH = 7  # the largest learnable size, 2k + 1 with the paper's k = 3


@dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution without bias: weights `size * size * c_in * c_out`, output `side * side`."""

    c_in: int
    c_out: int
    side: int
    size: int = 3
    residual: bool = True  # its size is learnable, so it counts in Eq. 3

    @property
    def weights(self) -> int:
        return self.size * self.size * self.c_in * self.c_out

    @property
    def macs(self) -> int:
        return self.weights * self.side * self.side


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Counts at the network's initial kernel sizes. `macs`: multiply-adds of one image, convolutions and head."""

    total: int  # trainable parameters
    eq3: int  # weights of the learnable convolutions
    macs: int
    eq3_macs: int  # the learnable convolutions' share
    layers: int

    @property
    def eq3_range(self) -> tuple[int, int]:
        """The counts of Eq. 3 with every size 1 and with every size 7."""
        return self.eq3 // 9, self.eq3 // 9 * REACH * REACH


def complexity(model: ModelSpec, dataset: str) -> Complexity:
    """Raises `KeyError` for a family without a formula."""
    facts = DATASETS[dataset]
    layers = FORMULAS[model.family]
    convs, norm_channels, features = layers(facts.in_channels, facts.image_size, **model.args)
    head = features * facts.num_classes
    residual = [conv for conv in convs if conv.residual]
    return Complexity(
        total=sum(conv.weights for conv in convs) + 2 * norm_channels + head + facts.num_classes,
        eq3=sum(conv.weights for conv in residual),
        macs=sum(conv.macs for conv in convs) + head,
        eq3_macs=sum(conv.macs for conv in residual),
        layers=len(convs) + 1,
    )


def _cifar_resnet(c_in: int, side: int, depth: int) -> tuple[list[Conv], int, int]:
    """Convolutions, channels of all batch norms, features of the head. Option A has no parameters."""
    stem = Conv(c_in=c_in, c_out=16, side=side, residual=False)
    body = list(_residual((depth - 2) // 6, (16, 16, 32, 64), side))
    return [stem, *body], sum(conv.c_out for conv in [stem, *body]), 64


def _wide_resnet(c_in: int, side: int, depth: int, widen_factor: int) -> tuple[list[Conv], int, int]:
    """As above. The norms stand before the convolutions, and where channels change there is a 1 x 1 shortcut."""
    widths = (16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
    stem = Conv(c_in=c_in, c_out=16, side=side, residual=False)
    body = list(_residual((depth - 4) // 6, widths, side))
    shortcuts = [
        Conv(c_in=conv.c_in, c_out=conv.c_out, side=conv.side, size=1, residual=False)
        for conv in body
        if conv.c_in != conv.c_out
    ]
    return [stem, *body, *shortcuts], sum(conv.c_in for conv in body) + widths[-1], widths[-1]


def _residual(blocks: int, widths: tuple[int, ...], side: int) -> Iterator[Conv]:
    """3 x 3 convolutions of three stages of two-convolution blocks; stages 2 and 3 halve the side, rounding up."""
    for stage in (1, 2, 3):
        side = side if stage == 1 else (side + 1) // 2
        for block in range(blocks):
            w_in = widths[stage - 1] if block == 0 else widths[stage]
            yield Conv(c_in=w_in, c_out=widths[stage], side=side)
            yield Conv(c_in=widths[stage], c_out=widths[stage], side=side)


FORMULAS: dict[str, Callable[..., tuple[list[Conv], int, int]]] = {
    "cifar_resnet": _cifar_resnet,
    "wide_resnet": _wide_resnet,
}
