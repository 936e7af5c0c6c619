"""An N-Jet layer against the plain convolution of its size, and what building its filters takes.

96 -> 96 channels at 32 x 32, sigma = 1 (7 x 7), forward and backward to input and parameters, one thread, CPU seconds.
The filters are built once in a forward pass, so their time is the same at every batch size and number of groups.

    python -m benchmarks.njet_layer
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor, nn

from baselines import njet
from baselines.njet import NJetConv2d
from benchmarks.side_by_side import Comparison, Measure, side_by_side, spread, table, timed, verdict

CHANNELS, SIDE, TARGET = 96, 32, 1.3
NJET, PLAIN, FILTERS = "N-Jet layer", "plain convolution", "its filters alone"


def forward_backward(run: Callable[[], Tensor], inputs: list[Tensor], *, repeats: int) -> Measure:
    weight = torch.randn_like(run())
    return timed(lambda: torch.autograd.grad(run(), inputs, weight), repeats=repeats, clock=time.process_time)


def measures(*, batch: int, order: int, groups: int) -> dict[str, Measure]:
    """The plain convolution starts from the N-Jet layer's kernel; both outputs are checked to be the same."""
    ours = NJetConv2d(CHANNELS, CHANNELS, order=order, groups=groups)
    size = ours.kernel_size()[0]
    plain = nn.Conv2d(CHANNELS, CHANNELS, size, padding=size // 2, groups=groups, bias=False)
    plain.weight.data = ours.kernel().detach()
    x = torch.randn(batch, CHANNELS, SIDE, SIDE, requires_grad=True)
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-4, atol=1e-3)
    return {
        NJET: forward_backward(lambda: ours(x), [x, ours.alphas, ours.scale], repeats=1),
        PLAIN: forward_backward(lambda: plain(x), [x, plain.weight], repeats=1),
        FILTERS: forward_backward(ours.kernel, [ours.alphas, ours.scale], repeats=20),
    }


def times_built(measure: Measure) -> int:
    """How often one step evaluates the Gaussian derivatives of its layer."""
    with patch.object(njet, "gaussian_derivatives", wraps=njet.gaussian_derivatives) as counted:
        measure()
    return counted.call_count


def row(name: str, found: Comparison, *, built: int, judged: bool) -> list[object]:
    ratio = found.ratio(NJET, PLAIN)
    return [
        name,
        found.median(NJET) * 1e3,
        found.median(PLAIN) * 1e3,
        found.median(FILTERS) * 1e3,
        built,
        f"{100 * found.ratio(FILTERS, NJET):.2f} %",
        ratio,
        spread(found.ratios(NJET, PLAIN)),
        verdict(ratio, at_most=TARGET) if judged else "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--batch", type=int, default=64, help="[64]")
    parser.add_argument("--order", type=int, default=3, help="[3]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for batch, groups in ((options.batch, 1), (options.batch, 4), (1, 1)):
        work = measures(batch=batch, order=options.order, groups=groups)
        built = times_built(work[NJET])
        found = side_by_side(work, rounds=options.rounds)
        judged = batch > 1 and groups == 1
        rows.append(row(f"batch {batch}, groups {groups}", found, built=built, judged=judged))
    headers = [
        "layer",
        "N-Jet ms",
        "plain ms",
        "filters ms",
        "built a step",
        "share",
        "N-Jet / plain",
        "rounds",
        "target",
    ]
    title = (
        f"N-Jet layer of order {options.order}, {CHANNELS} -> {CHANNELS}, {SIDE} x {SIDE}, 7 x 7, forward and backward"
    )
    table(title, headers, rows)


if __name__ == "__main__":
    main()
