"""Each network as a list of its layers, as a pure function of its spec's arguments. Nothing is built, no torch.

A formula takes the data set's channels, image side and classes, and the spec's arguments; it returns the layers, the
first convolution first, and the channels of all normalisations (two parameters each). The networks themselves, and
their papers, are in `baselines/`. Arguments that change no count are named and not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from reproduce.layers import Layer, conv, halved, linear, njet, odd, sampled, stack, time_dependent

Network = tuple[list[Layer], int]
FLEXNET_FACTORS = {3: (1, 1.5, 2), 5: (1, 1.5, 1.5, 2, 2), 7: (1, 1, 1.5, 1.5, 1.5, 2, 2)}  # of the width, by block


def cifar_resnet(c_in: int, side: int, classes: int, *, depth: int, widths: Sequence[int] | None = None) -> Network:
    return resnet(c_in, side, classes, depth, widths or (16, 32, 64), conv)


def wide_resnet(c_in: int, side: int, classes: int, *, depth: int, widen_factor: int) -> Network:
    """The norms stand before the convolutions. Where channels change there is a 1 x 1 shortcut; the name counts it."""
    widths = (16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
    body = list(residual((depth - 4) // 6, side, (16, *widths), conv))
    shortcuts = [conv(layer.c_in, layer.c_out, layer.side, 1) for layer in body if layer.c_in != layer.c_out]
    norms = sum(layer.c_in for layer in body) + widths[-1]
    return [conv(c_in, 16, side), *body, *shortcuts, linear(widths[-1], classes)], norms


def flex_resnet(
    c_in: int,
    side: int,
    classes: int,
    *,
    depth: int,
    layer: str,
    kernel_net: str = "magnet",
    horizon: int | None = None,
    full_grid: bool = False,
) -> Network:
    make = partial(sampled, layer=layer, kernel_net=kernel_net, horizon=horizon or odd(side))
    return resnet(c_in, side, classes, depth, (16, 32, 64), make)


def njet_resnet(c_in: int, side: int, classes: int, *, depth: int = 32, order: int = 3, extent: float = 2.0) -> Network:
    return resnet(c_in, side, classes, depth, (16, 32, 64), partial(njet, order=order, extent=extent))


def resnet(
    c_in: int, side: int, classes: int, depth: int, widths: Sequence[int], make: Callable[..., Layer]
) -> Network:
    """A CIFAR ResNet, all convolutions of one kind; its shortcuts have no parameters."""
    body = [make(c_in, widths[0], side), *residual((depth - 2) // 6, side, (widths[0], *widths), make)]
    return [*body, linear(widths[-1], classes)], sum(layer.c_out for layer in body)


def residual(blocks: int, side: int, widths: Sequence[int], make: Callable[..., Layer]) -> Iterator[Layer]:
    """Three stages of two-convolution blocks, from widths[0] channels; stages 2 and 3 halve the side, rounding up."""
    for stage in (1, 2, 3):
        side = side if stage == 1 else halved(side)
        for block in range(blocks):
            yield make(widths[stage] if block else widths[stage - 1], widths[stage], side)
            yield make(widths[stage], widths[stage], side)


def flexnet(
    c_in: int,
    side: int,
    classes: int,
    *,
    blocks: int,
    width: int,
    layer: str = "flexconv",
    kernel_net: str = "magnet",
    full_grid: bool = False,
    regrow: bool = True,
    dropout: float = 0.2,
) -> Network:
    """A stem and two layers a block, all at full resolution; the 1 x 1 shortcuts (with bias) are not counted."""
    make = partial(sampled, layer=layer, kernel_net=kernel_net, horizon=odd(side))
    widths = [int(width * factor) for factor in FLEXNET_FACTORS[blocks]]
    body, shortcuts = _residual_blocks([width, *widths], side, make)
    stem = make(c_in, width, side)
    norms = width + sum(one.c_out for one in body)
    return [stem, *body, *shortcuts, linear(widths[-1], classes)], norms


def ckcnn7(c_in: int, side: int, classes: int, *, dropout: float = 0.2) -> Network:
    """Three blocks of 64 channels without a stem; the first layer is in the first block."""
    make = partial(sampled, layer="ckconv", kernel_net="siren", horizon=odd(side))
    body, shortcuts = _residual_blocks([c_in, 64, 64, 64], side, make)
    return [*body, *shortcuts, linear(64, classes)], sum(one.c_out for one in body)


def _residual_blocks(widths: Sequence[int], side: int, make: Callable[..., Layer]) -> tuple[list[Layer], list[Layer]]:
    """The layers of blocks from widths[i] to widths[i + 1] channels, and the shortcuts where these differ."""
    steps = list(pairwise(widths))
    body = [one for w_in, w_out in steps for one in (make(w_in, w_out, side), make(w_out, w_out, side))]
    shortcuts = [conv(w_in, w_out, side, 1, bias=True, counted=False) for w_in, w_out in steps if w_in != w_out]
    return body, shortcuts


def nin(c_in: int, side: int, classes: int) -> Network:
    """Three times 5 x 5 and two 1 x 1, with biases; a pooling that halves the side before the second and the third."""
    widths = (c_in, 96, 64, 48, 128, 96, 48, 128, 96, classes)
    sides = [side] * 3 + [side // 2] * 3 + [side // 4] * 3
    return stack(widths, sides, (5, 1, 1) * 3, bias=True), 0


def njet_nin(c_in: int, side: int, classes: int, *, order: int = 2, extent: float = 2.0) -> Network:
    """Three N-Jet layers, each with two 1 x 1 convolutions, all normalised and at full resolution."""
    widths = (c_in, 192, 160, 96, 192, 192, 192, 192, 192, classes)
    layers = [
        conv(w_in, w_out, side, 1) if index % 3 else njet(w_in, w_out, side, order=order, extent=extent)
        for index, (w_in, w_out) in enumerate(pairwise(widths))
    ]
    return layers, sum(widths[1:])


def njet_all_cnn(
    c_in: int, side: int, classes: int, *, order: int = 2, extent: float = 2.0, subsample: bool = True
) -> Network:
    """Six N-Jet layers, the second and the fourth with stride 2, and a 1 x 1 before the last; all normalised."""
    middle = halved(side) if subsample else side
    last = halved(middle) if subsample else side
    sides = (side, middle, middle, last, last, last, last)
    widths = (c_in, 96, 96, 192, 192, 192, 192, classes)
    layers = [
        conv(w_in, w_out, place, 1) if index == 5 else njet(w_in, w_out, place, order=order, extent=extent)
        for index, (place, (w_in, w_out)) in enumerate(zip(sides, pairwise(widths), strict=True))
    ]
    return layers, sum(widths[1:])


def all_cnn(c_in: int, side: int, classes: int) -> Network:
    """Nine convolutions with biases; the third and the sixth have stride 2, the seventh is not padded."""
    middle = halved(side)
    last = halved(middle)
    widths = (c_in, 96, 96, 96, 192, 192, 192, 192, 192, classes)
    sides = [side] * 2 + [middle] * 3 + [last] + [last - 2] * 3
    return stack(widths, sides, (3,) * 7 + (1,) * 2, bias=True), 0


def vgg5(c_in: int, side: int, classes: int, *, head: str = "plain") -> Network:
    """Ten convolutions in four groups, each group pooled; then two linear layers, or SpinalNet's four and one."""
    widths = (c_in, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256)
    sides = [side] * 2 + [side // 2] * 2 + [side // 4] * 3 + [side // 8] * 3
    hidden = [linear(256, 512)] if head == "plain" else [linear(128, 128), *[linear(128 + 128, 128)] * 3]
    layers = [*stack(widths, sides, (3,) * 10, bias=True), *hidden, linear(512, classes)]
    return layers, sum(widths[1:]) + 512


def resnet18(c_in: int, side: int, classes: int) -> Network:
    """A 7 x 7 stem of stride 2, pooling of stride 2, four stages of two blocks; shortcuts 1 x 1 with a norm."""
    stem = conv(c_in, 64, halved(side), 7)
    body, shortcuts, width = [], [], 64
    side = halved(stem.side)
    for w_out in (64, 128, 256, 512):
        side = side if w_out == 64 else halved(side)
        body += [conv(width, w_out, side), *(conv(w_out, w_out, side) for _ in range(3))]
        shortcuts += [conv(width, w_out, side, 1, counted=False)] if width != w_out else []
        width = w_out
    norms = sum(layer.c_out for layer in (stem, *body, *shortcuts))
    return [stem, *body, *shortcuts, linear(512, classes)], norms


def dcn(c_in: int, side: int, classes: int, *, adjoint: bool = True, rtol: float = 1e-3, atol: float = 1e-3) -> Network:
    """Stem, three ODE blocks with a 4 x 4 convolution of stride 2 between them, head."""
    side -= 2
    layers, norms = [conv(c_in, 32, side, bias=True)], 0
    for width in (32, 64, 128):
        if width > 32:
            side //= 2
            layers.append(conv(width // 2, width, side, 4, bias=True))
        layers += [time_dependent(width, side)] * 2
        norms += 4 * width  # three in the block, one behind it
    return [*layers, linear(128, classes)], norms


def efficient_capsnet(c_in: int, side: int, classes: int) -> Network:
    """Four convolutions, depthwise primary capsules (16 of 8), one linear map for each pair of capsules; no decoder."""
    sides = (side - 4, side - 6, side - 8, (side - 9) // 2)
    widths = (c_in, 32, 64, 64, 128)
    primary = conv(128, 128, 1, sides[-1], bias=True, groups=128)
    maps = replace(linear(16 * 8, 16 * classes), parameters=16 * 8 * 16 * classes + 16 * classes)
    return [*stack(widths, sides, (5, 3, 3, 3), bias=True), primary, maps], sum(widths[1:])


FORMULAS: dict[str, Callable[..., Network]] = {
    formula.__name__: formula
    for formula in (
        cifar_resnet, wide_resnet, flexnet, ckcnn7, flex_resnet, njet_resnet, njet_all_cnn, njet_nin, dcn, nin, vgg5,
        all_cnn, resnet18, efficient_capsnet,
    )
}  # fmt: skip
