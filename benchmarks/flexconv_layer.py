"""What generating the kernel costs a FlexConv layer: its share of forward and backward, with the faster convolution.

36 -> 36 channels, 32 x 32, horizon 33, batch 64, one thread, CPU seconds. Kernel generation is `kernel()` and the
gradients to all its parameters; the layer is `forward` and the gradients to input and parameters. Beside it the
generation by the plain form, and its floor: the last layer's three matrix products; then both convolutions, with a
kernel that is given; where the slower one takes more than ten times as long it is left out. `--crossover` times the
convolutions alone, direct in both memory layouts, for the rule in `baselines/large_conv.py`; of images with three
channels, which are a network's own, without their gradient.

    python -m benchmarks.flexconv_layer
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from baselines.flexconv import FlexConv2d
from baselines.large_conv import conv2d_same, fft_is_faster
from benchmarks.side_by_side import Comparison, Measure, side_by_side, spread, table, timed, verdict, warn_if_busy

BATCH, CHANNELS, SIDE, HORIZON = 64, 36, 32, 33
TARGETS = {5: 0.03, 9: 0.03, 15: 0.03, 21: 0.03, 33: 0.06}
REPEATS = 10  # of the generation, in a row: it takes a few milliseconds
GENERATION, PLAIN, FLOOR, LAYER, METHODS = "generation", "plain form", "floor", "layer", ("direct", "fft")
LAST = "direct, channels last"
CROSSOVER = [  # batch, channels in and out, side of the image
    *[(64, 3, 24, 32), (64, 16, 16, 32), (64, 24, 24, 32), (64, 36, 36, 32), (64, 48, 48, 32)],
    *[(64, 32, 32, 16), (64, 64, 64, 8), (8, 24, 24, 96)],
]


def forward_backward(run: Callable[[], Tensor], inputs: Sequence[Tensor], repeats: int = 1) -> Measure:
    weight = torch.randn_like(run())
    return timed(lambda: torch.autograd.grad(run(), inputs, weight), repeats=repeats, clock=time.process_time)


def layer_of_size(k: int) -> FlexConv2d:
    """Its mask is cropped to k x k."""
    layer = FlexConv2d(CHANNELS, CHANNELS, horizon=HORIZON)
    layer.fused = True
    layer.hold(k)
    layer.hold(None)  # the host looks at the mask, as in training
    return layer


def generation(layer: FlexConv2d, *, fused: bool = True) -> Measure:
    layer = copy.deepcopy(layer)
    layer.fused = fused
    return forward_backward(layer.kernel, [p for name, p in layer.named_parameters() if name != "bias"], REPEATS)


def products(k: int) -> Measure:
    """The last layer forward and backward and nothing else: (n, 33) by (33, k k), and its two gradients."""
    matrix, features = torch.randn(CHANNELS**2, 33), torch.randn(33, k * k)
    gradient = torch.randn(CHANNELS**2, k * k)
    work = lambda: (matrix @ features, matrix.t() @ gradient, features @ gradient.t())  # noqa: E731
    return timed(work, repeats=REPEATS, clock=time.process_time)


def convolutions(x: Tensor, kernel: Tensor, methods: Sequence[str] = METHODS) -> dict[str, Measure]:
    kernel = kernel.detach().requires_grad_()
    return {m: forward_backward(lambda m=m: conv2d_same(x, kernel, method=m), [x, kernel]) for m in methods}  # type: ignore[misc]


def share_row(k: int, rounds: int) -> list[object]:
    layer = layer_of_size(k)
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE, requires_grad=True)
    found = side_by_side(
        {
            GENERATION: generation(layer),
            PLAIN: generation(layer, fused=False),
            FLOOR: products(k),
            LAYER: forward_backward(lambda: layer(x), [x, *layer.parameters()]),
            **convolutions(x, layer.kernel(), METHODS if k < 13 else METHODS[1:]),
        },
        rounds=rounds,
    )
    share = found.ratio(GENERATION, LAYER)
    chosen = METHODS[fft_is_faster(x, layer.kernel(), 1)]
    times = milliseconds(found, (GENERATION, PLAIN, FLOOR, LAYER, *METHODS))
    return [k, *times, chosen, *percent(found, share, TARGETS[k])]


def milliseconds(found: Comparison, names: Sequence[str]) -> list[object]:
    return [f"{1000 * found.median(name):.1f}" if name in found.seconds else "-" for name in names]


def percent(found: Comparison, share: float, target: float) -> list[object]:
    shares = [100 * ratio for ratio in found.ratios(GENERATION, LAYER)]
    return [100 * share, spread(shares), verdict(100 * share, at_most=100 * target)]


def crossover_rows(rounds: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for batch, c_in, c_out, side in CROSSOVER:
        x = torch.randn(batch, c_in, side, side)
        for k in (3, 5, 7, 9, 11, 13):
            kernel = torch.randn(c_out, c_in, k, k, requires_grad=True)
            found = side_by_side(three_ways(x, kernel), rounds=rounds)
            ratio = min(found.ratio(direct, "fft") for direct in ("direct", LAST))
            chosen = METHODS[fft_is_faster(x, kernel, 1)]
            rows.append([batch, c_in, c_out, side, k, *milliseconds(found, ("direct", LAST, "fft")), ratio, chosen])
    return rows


def three_ways(x: Tensor, kernel: Tensor) -> dict[str, Measure]:
    """Direct in both layouts, and by FFT, all with the gradients that such a layer of a network needs."""

    def measure(method: str, layout: torch.memory_format) -> Measure:
        images = x.detach().contiguous(memory_format=layout).requires_grad_(x.shape[1] > 3)
        inputs = [images, kernel] if images.requires_grad else [kernel]
        return forward_backward(lambda: conv2d_same(images, kernel, method=method), inputs)

    return {
        "direct": measure("direct", torch.contiguous_format),
        LAST: measure("direct", torch.channels_last),
        "fft": measure("fft", torch.channels_last),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="A B C C B A this often [7]")
    parser.add_argument("--crossover", action="store_true", help="direct against FFT instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warn_if_busy()
    if arguments.crossover:
        headers = ["batch", "in", "out", "side", "k", "direct", LAST, "fft", "direct / fft", "rule"]
        table("Convolution, forward and backward (ms of CPU)", headers, crossover_rows(arguments.rounds))
        return
    headers = ["k", GENERATION, PLAIN, FLOOR, LAYER, *METHODS, "layer's", "share %", "range", "target"]
    rows = [share_row(k, arguments.rounds) for k in TARGETS]
    table("FlexConv layer, 36 -> 36, 32 x 32, forward and backward, one thread (ms of CPU)", headers, rows)


if __name__ == "__main__":
    main()
