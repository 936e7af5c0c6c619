"""The kernel predictor's batched recurrence against plain forms: one GRU a layer, unrolled step by step.

ResNet-20's 18 residual convolutions, hidden size 64, forward and backward, one thread, all sizes 3, 5 or 7. The target
is against a loop over `torch.nn.GRUCell`; `torch.nn.GRU`, whose loop is in C++, stands beside it. CPU seconds.

    python -m benchmarks.kernel_predictor
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from baselines.resnet import cifar_resnet
from benchmarks.side_by_side import Comparison, Measure, side_by_side, spread, table, timed, verdict
from effconv import size_mask
from effconv.kernel_predictor import GRUPredictor, Layer, grid_positions, per_position

MAX_SIZE = 7
OURS, CELLS, SEQUENCES = "ours", "GRUCell loop", "nn.GRU a layer"
TARGETS = {"recurrence": {3: 6.0, 5: 10.0, 7: 14.0}, "with heads and mask": {3: 3.0, 5: 5.0, 7: 6.0}}

States = Callable[[Sequence[int]], list[Tensor]]


class Plain:
    """The same predictor, layer by layer: the weights of `ours` in PyTorch's own modules."""

    def __init__(self, ours: GRUPredictor) -> None:
        self.ours = ours
        hidden = ours.w_hh.shape[2]
        self.cells: list[nn.GRUCell] = []
        self.sequences: list[nn.GRU] = []
        self.heads: list[nn.Linear] = []
        for index, head in enumerate(ours.heads):
            cell, sequence = nn.GRUCell(ours.z.shape[1], hidden), nn.GRU(ours.z.shape[1], hidden)
            weights = (ours.w_ih[index], ours.w_hh[index], ours.b_ih[index], ours.b_hh[index])
            for module in (cell, sequence):
                copy_into(list(module.parameters()), weights)
            linear = nn.Linear(hidden, len(head))
            copy_into([linear.weight, linear.bias], (head[:, :-1], head[:, -1]))
            self.cells.append(cell)
            self.sequences.append(sequence)
            self.heads.append(linear)

    def inputs(self, size: int) -> Tensor:
        return self.ours.z[grid_positions(size, MAX_SIZE)]

    def states_by_cell(self, sizes: Sequence[int]) -> list[Tensor]:
        found = []
        for cell, size in zip(self.cells, sizes, strict=True):
            h, rows = None, []
            for z in self.inputs(size).split(1):
                h = cell(z, h)
                rows.append(h)
            found.append(torch.cat(rows))
        return found

    def states_by_sequence(self, sizes: Sequence[int]) -> list[Tensor]:
        return [gru(self.inputs(size))[0] for gru, size in zip(self.sequences, sizes, strict=True)]

    def kernels(self, states: States, sizes: Sequence[int], masks: Sequence[Tensor]) -> list[Tensor]:
        """Eq. 7 of those states; one product gives each kernel in its final layout."""
        found = []
        for index, (h, size, mask) in enumerate(zip(states(sizes), sizes, masks, strict=True)):
            head, layer = self.heads[index], self.ours.layers[index]
            flat = torch.addmm(head.bias.unsqueeze(1), head.weight, h.t())
            kernel = flat.view(layer.out_channels, layer.in_channels, size, size)
            found.append(kernel * (self.ours.gain[index] * mask))
        return found


def weights_of(modules: Sequence[nn.Module]) -> list[Tensor]:
    return [parameter for module in modules for parameter in module.parameters()]


def copy_into(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def resnet20_layers() -> list[Layer]:
    convs = [module for module in cifar_resnet(20).modules() if isinstance(module, nn.Conv2d)]
    return [Layer(conv.out_channels, conv.in_channels, 3) for conv in convs[1:]]


def forward_backward(run: Callable[[], list[Tensor]], inputs: Sequence[Tensor]) -> Measure:
    """Times `run` and the gradients of its outputs, weighted at random, to `inputs`."""
    weights = [torch.randn_like(output) for output in run()]
    return timed(lambda: torch.autograd.grad(run(), inputs, weights), clock=time.process_time)


def our_states(ours: GRUPredictor, sizes: Sequence[int]) -> list[Tensor]:
    return [h[: size * size] for h, size in zip(ours.states(sizes).unbind(), sizes, strict=True)]


def recurrence_alone(ours: GRUPredictor, plain: Plain, sizes: Sequence[int]) -> dict[str, Measure]:
    by_name: dict[str, tuple[States, list[Tensor]]] = {
        OURS: (partial(our_states, ours), [ours.w_ih, ours.w_hh, ours.b_ih, ours.b_hh]),
        CELLS: (plain.states_by_cell, weights_of(plain.cells)),
        SEQUENCES: (plain.states_by_sequence, weights_of(plain.sequences)),
    }
    check_same([states(sizes) for states, _ in by_name.values()])
    return {name: forward_backward(partial(states, sizes), weights) for name, (states, weights) in by_name.items()}


def with_heads(ours: GRUPredictor, plain: Plain, sizes: Sequence[int]) -> dict[str, Measure]:
    """Eqs. 5 to 7, as a size-learning step runs them: gradients to all weights and to the masks."""
    masks = [size_mask(torch.tensor(size - 0.3), size).requires_grad_() for size in sizes]
    by_cell = partial(plain.kernels, plain.states_by_cell, sizes, masks)
    by_sequence = partial(plain.kernels, plain.states_by_sequence, sizes, masks)
    padded = torch.zeros(len(sizes), MAX_SIZE, MAX_SIZE)
    for index, (mask, size) in enumerate(zip(masks, sizes, strict=True)):
        padded[index, :size, :size] = mask.detach()
    padded.requires_grad_()
    by_name: dict[str, tuple[Callable[[], list[Tensor]], list[Tensor]]] = {
        OURS: (partial(ours.modulated, sizes, padded), [*ours.parameters(), padded]),
        CELLS: (by_cell, [*weights_of([*plain.cells, *plain.heads]), *masks]),
        SEQUENCES: (by_sequence, [*weights_of([*plain.sequences, *plain.heads]), *masks]),
    }
    check_same([run() for run, _ in by_name.values()])
    return {name: forward_backward(run, inputs) for name, (run, inputs) in by_name.items()}


def check_same(results: Sequence[list[Tensor]]) -> None:
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def row(part: str, size: int, found: Comparison) -> list[object]:
    ratio = found.ratio(CELLS, OURS)
    return [
        part,
        size,
        *(1000 * found.median(name) for name in (OURS, CELLS, SEQUENCES)),
        ratio,
        spread(found.ratios(CELLS, OURS)),
        found.ratio(SEQUENCES, OURS),
        verdict(ratio, at_least=TARGETS[part][size]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="A B C C B A this often [10]")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = per_position(resnet20_layers(), MAX_SIZE)
    assert isinstance(ours, GRUPredictor)
    plain = Plain(ours)
    rows = []
    for part, prepare in (("recurrence", recurrence_alone), ("with heads and mask", with_heads)):
        for size in TARGETS[part]:
            found = side_by_side(prepare(ours, plain, [size] * len(ours.layers)), rounds=rounds)
            rows.append(row(part, size, found))
    table(
        "Kernel predictor, ResNet-20, forward and backward, one thread (ms of CPU; ratios: others / ours)",
        ["part", "size", OURS, CELLS, SEQUENCES, f"x {CELLS}", "range", f"x {SEQUENCES}", "target"],
        rows,
    )


if __name__ == "__main__":
    main()
