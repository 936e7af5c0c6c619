"""Making all kernels of a FlexNet in one batched pass against layer by layer: forward and backward, one thread.

FlexNet-16, horizon 33, all layers at one size, and at sizes that differ as after training. The plain side is the faster
of two loops: the layers' own `kernel()`, and one that evaluates the equations position by position. CPU seconds.

    python -m benchmarks.flexnet_kernels
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from baselines.flexconv import FlexConv2d
from baselines.flexnet import FlexNet, flexnet
from baselines.kernel_batch import KernelLayer
from baselines.kernel_nets import KERNEL_NETS
from baselines.masks import gaussian_mask
from benchmarks.side_by_side import side_by_side, spread, table, timed, verdict, warn_if_busy

BATCHED, LOOP, BY_POSITION = "batched", "layer by layer", "the same, by position"
SIGMAS = {5: 0.075, 9: 0.13, 13: 0.2, 17: 0.24, 25: 0.37, 33: 0.5}  # horizon 33: size, sigma that gives it
MIXED = "5..33"
AT_START, LATER = 0.6, 1.0  # the most that the ratio may be at 5 and from 9 on


def set_sizes(net: FlexNet, sigmas: Sequence[float]) -> None:
    layers = [layer for layer in net.layers().values() if isinstance(layer, FlexConv2d)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.mask_params[:, 1] = sigmas[i % len(sigmas)]


def by_position(layer: KernelLayer) -> Tensor:
    """A layer's kernel from all of its positions one by one, and the mask on the kernel, as the equations have it."""
    assert isinstance(layer, FlexConv2d)
    points = layer.points()
    kernel = layer.kernel_net(points) * gaussian_mask(points, layer.mask_params)
    return kernel.unflatten(0, (layer.out_channels, layer.in_channels))


def forward_backward(net: FlexNet, make: Callable[[], list[Tensor]]) -> Callable[[], None]:
    gradients = [torch.randn_like(kernel) for kernel in make()]
    parameters = list(net.parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(make(), gradients)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="A B C C B A this often [11]")
    parser.add_argument("--kernel-net", choices=list(KERNEL_NETS), default="magnet", help="[magnet]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warn_if_busy()
    net = flexnet(7, 24, kernel_net=options.kernel_net)
    layers = list(net.layers().values())
    ways: dict[str, Callable[[], list[Tensor]]] = {
        BATCHED: net.kernels,
        LOOP: lambda: [layer.kernel() for layer in layers],
        BY_POSITION: lambda: [by_position(layer) for layer in layers],
    }
    rows: list[list[object]] = []
    for size, sigmas in [*((k, [sigma]) for k, sigma in SIGMAS.items()), (MIXED, list(SIGMAS.values()))]:
        set_sizes(net, sigmas)
        measures = {
            name: timed(forward_backward(net, make), repeats=3 if size == 5 else 1, clock=time.process_time)
            for name, make in ways.items()
        }
        found = side_by_side(measures, rounds=options.rounds)
        fastest = min((LOOP, BY_POSITION), key=found.median)
        ratio = found.ratio(BATCHED, fastest)
        times: list[object] = [1000 * found.median(name) for name in ways]
        judged = verdict(ratio, at_most=AT_START if size == 5 else LATER)
        rows.append([size, *times, ratio, spread(found.ratios(BATCHED, fastest)), judged])
    table(
        f"All kernels of FlexNet-16 with {options.kernel_net}, forward and backward, one thread (ms of CPU)",
        ["size", *ways, "ratio to the faster loop", "range", "target"],
        rows,
    )


if __name__ == "__main__":
    main()
