"""Layers as plain counts: what `reproduce.formulas` makes networks of. Nothing is built, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, comb, log, sqrt

FLEX_SIGMA, FLEX_THRESHOLD = 0.075, 0.1  # FlexConv's mask: its deviation at the start, and what the crop cuts off
HIDDEN = 32  # width of every kernel network
KERNEL_NET_PARAMETERS = {"magnet": 4064, "gabor": 3936, "fourier": 3552, "siren": 1152}  # all but the output layer's
LARGEST_DIRECT, LARGEST_SAMPLED = 9, 3  # kernels that count as convolved directly; sampled ones have a good FFT
FFT_WORK = 16  # multiply-adds for each place of the FFT and pair of channels that take as long, on the CPU
DCN_EVALUATIONS = 26  # of an ODE block's function for one image: the fewest that were counted at random weights


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution (square kernel and output) or a linear layer (1 x 1 at one place)."""

    c_in: int
    c_out: int
    side: int  # of the output
    size: int  # of the kernel, at the start where it is learned
    parameters: int  # trainable ones, bias included
    groups: int = 1
    uses: int = 1  # times that one image passes through it
    counted: bool = True  # among the network's layers
    largest_direct: int = LARGEST_DIRECT  # a larger kernel counts as convolved by FFT

    @property
    def weights(self) -> int:
        """Of the kernel as it is applied, whatever generates it."""
        return self.size * self.size * self.c_in * self.c_out // self.groups

    @property
    def macs(self) -> int:
        """Multiply-adds of one image in the direct convolution; making the kernel is none of them."""
        return self.weights * self.side * self.side * self.uses

    @property
    def work(self) -> int:
        """What its time goes by: `macs`, or what an FFT is worth in them; an ODE's layers twice, since the adjoint
        evaluates them anew.
        """
        by_fft = FFT_WORK * self.fft_side**2 * self.weights // self.size**2 * self.uses
        return (by_fft if self.is_by_fft else self.macs) * (2 if self.uses > 1 else 1)

    @property
    def is_by_fft(self) -> bool:
        return self.size > self.largest_direct

    @property
    def fft_side(self) -> int:
        """Of the smallest circular convolution whose outputs on the layer's own grid are those of the padded one."""
        return self.side + self.size // 2

    @property
    def is_spatial(self) -> bool:
        return self.size > 1 and self.groups == 1


def conv(
    c_in: int, c_out: int, side: int, size: int = 3, *, bias: bool = False, groups: int = 1, counted: bool = True
) -> Layer:
    parameters = size * size * c_in * c_out // groups + c_out * bias
    return Layer(c_in=c_in, c_out=c_out, side=side, size=size, parameters=parameters, groups=groups, counted=counted)


def linear(c_in: int, c_out: int) -> Layer:
    return conv(c_in, c_out, 1, 1, bias=True)


def stack(widths: Sequence[int], sides: Sequence[int], sizes: Sequence[int], *, bias: bool) -> list[Layer]:
    """Convolutions one after the other, from widths[i] to widths[i + 1] channels."""
    shapes = zip(pairwise(widths), sides, sizes, strict=True)
    return [conv(w_in, w_out, side, size, bias=bias) for (w_in, w_out), side, size in shapes]


def sampled(c_in: int, c_out: int, side: int, *, layer: str, kernel_net: str, horizon: int) -> Layer:
    """FlexConv ("flexconv") or CKConv ("ckconv"): a kernel network, a bias, and FlexConv's mask of four numbers."""
    masked = layer == "flexconv"
    return Layer(
        c_in=c_in,
        c_out=c_out,
        side=side,
        size=flex_size(horizon) if masked else horizon,
        parameters=KERNEL_NET_PARAMETERS[kernel_net] + (HIDDEN + 1) * c_in * c_out + c_out + 4 * masked,
        largest_direct=LARGEST_SAMPLED,
    )


def flex_size(horizon: int) -> int:
    """Side of FlexConv's first kernels: grid points closer to the centre than where the mask falls to 0.1."""
    radius = FLEX_SIGMA * sqrt(-2 * log(FLEX_THRESHOLD))
    return min(horizon, 2 * (ceil(radius * (horizon - 1) / 2) - 1) + 1)


def odd(side: int) -> int:
    """FlexConv's horizon for images of this side."""
    return side if side % 2 else side + 1


def njet(c_in: int, c_out: int, side: int, *, order: int, extent: float) -> Layer:
    """N-Jet: a weight for each Gaussian derivative (i, j) with i + j <= order, and one scale; no bias.

    `extent`: half width of the kernel in sigmas; sigma is 1 at the start.
    """
    size = 2 * ceil(extent + 0.5) + 1
    return replace(conv(c_in, c_out, side, size), parameters=comb(order + 2, 2) * c_in * c_out + 1)


def time_dependent(width: int, side: int) -> Layer:
    """DCN: sees the time as a channel more. Per pair of channels six derivatives' weights and a scale; kernel 7 x 7."""
    parameters = 7 * (width + 1) * width
    return Layer(c_in=width + 1, c_out=width, side=side, size=7, parameters=parameters, uses=DCN_EVALUATIONS)


def halved(side: int) -> int:
    """The side behind a stride of 2 that rounds up."""
    return (side + 1) // 2
