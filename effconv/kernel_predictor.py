"""The kernel predictor: Eq. 5 of the paper, w_hat_l = f_kp^l(z'_l; s_l; theta_kp^l).

One GRU per learnable convolution is unrolled for s_l * s_l steps; step t gives the c_l x c_{l-1} weights at one
position of the kernel. `KERNEL_PREDICTORS` holds the readings by name: each maps the layers to a module whose forward
takes the integer sizes and gives the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv.recurrence import recurrence


class Layer(NamedTuple):
    """One learnable convolution: its channels and the kernel size it was designed with."""

    out_channels: int
    in_channels: int
    kernel_size: int


def grid_positions(size: int, max_size: int) -> list[int]:
    """Raster positions that a size x size kernel takes in the max_size x max_size grid around the common centre.

    An even size has its extra row and column on the bottom and right (R-11). At most max_size**2 - 1.
    """
    first = (max_size - 1) // 2 - (size - 1) // 2
    return [row * max_size + column for row in range(first, first + size) for column in range(first, first + size)]


def corner_positions(size: int, max_size: int) -> list[int]:
    """Raster positions of a size x size kernel in the upper left corner of a max_size x max_size grid."""
    return [row * max_size + column for row in range(size) for column in range(size)]


def _table(positions: Callable[[int, int], list[int]], max_size: int) -> Tensor:
    """(max_size, max_size^2): in row s - 1 the positions of a kernel of size s, then zeros."""
    rows = [positions(size, max_size) for size in range(1, max_size + 1)]
    return torch.tensor([row + [0] * (max_size**2 - len(row)) for row in rows])


def _by_layer(table: Tensor, sizes: Sequence[int]) -> Tensor:
    """(L, T): each layer's row of the table, as far as the largest size needs it."""
    return table[torch.tensor(sizes, device=table.device) - 1, : max(sizes) ** 2]


class KernelPredictor(nn.Module):
    """What the readings share: forward maps L integer sizes to L kernels (out_channels, in_channels, s, s).

    Each layer's prediction is multiplied by a fixed gain, so that at the original size it starts with the standard
    deviation of Kaiming's initialisation, sqrt(2 / (kernel_size^2 in_channels)) (R-08).
    """

    gain: Tensor

    def __init__(self, layers: Sequence[Layer], max_size: int) -> None:
        super().__init__()
        self.layers = list(layers)
        self.max_size = max_size
        self.register_buffer("gain", torch.ones(len(self.layers)))

    def calibrate(self) -> None:
        with torch.no_grad():
            kernels = self.predict([min(layer.kernel_size, self.max_size) for layer in self.layers])
            for index, (layer, kernel) in enumerate(zip(self.layers, kernels, strict=True)):
                kaiming = math.sqrt(2 / (layer.kernel_size**2 * layer.in_channels))
                self.gain[index] = kaiming / kernel.std()

    def predict(self, sizes: Sequence[int]) -> list[Tensor]:
        raise NotImplementedError

    def forward(self, sizes: Sequence[int]) -> list[Tensor]:
        return [gain * kernel for gain, kernel in zip(self.gain.unbind(), self.predict(sizes), strict=True)]

    def modulated(self, sizes: Sequence[int], masks: Tensor) -> list[Tensor]:
        """Eq. 7: the kernels, masked. masks: (L, max_size, max_size), of which layer l's upper left s x s counts."""
        kernels = zip(masks.unbind(), self(sizes), sizes, strict=True)
        return [mask[:size, :size] * kernel for mask, kernel, size in kernels]

    def as_kernel(self, index: int, columns: Tensor, size: int) -> Tensor:
        """columns: (out_channels * in_channels, s*s), position by position -> (out_channels, in_channels, s, s)."""
        layer = self.layers[index]
        return columns.reshape(layer.out_channels, layer.in_channels, size, size)


class GRUPredictor(KernelPredictor):
    """R-06: GRUs of hidden size 64, run as one batched recurrence, and a linear head per layer.

    inputs: z', (max_size^2, 64), one fixed row per kernel position; all layers see the same rows.
    """

    z: Tensor
    around_centre: Tensor
    in_corner: Tensor

    def __init__(self, layers: Sequence[Layer], max_size: int, inputs: Tensor, hidden: int = 64) -> None:
        super().__init__(layers, max_size)
        self.register_buffer("z", inputs)
        self.register_buffer("around_centre", _table(grid_positions, max_size), persistent=False)
        self.register_buffer("in_corner", _table(corner_positions, max_size), persistent=False)
        cells = [nn.GRUCell(inputs.shape[1], hidden) for _ in self.layers]  # for their initialisation
        self.w_ih = nn.Parameter(torch.stack([cell.weight_ih.detach() for cell in cells]))  # (L, 3H, 64)
        self.w_hh = nn.Parameter(torch.stack([cell.weight_hh.detach() for cell in cells]))  # (L, 3H, H)
        self.b_ih = nn.Parameter(torch.stack([cell.bias_ih.detach() for cell in cells]))  # (L, 3H)
        self.b_hh = nn.Parameter(torch.stack([cell.bias_hh.detach() for cell in cells]))
        bound = 1 / math.sqrt(hidden)  # nn.Linear's own initialisation
        self.heads = nn.ParameterList(  # (c_l c_{l-1}, H + 1): a linear layer, its bias in the last column
            torch.empty(layer.out_channels * layer.in_channels, hidden + 1).uniform_(-bound, bound)
            for layer in self.layers
        )
        self.calibrate()

    def states(self, sizes: Sequence[int]) -> Tensor:
        """GRU states h_1..h_{s*s} of each layer: (L, T, H), T = max(s*s); past a layer's last step they are zero."""
        return self.unrolled(self.z[_by_layer(self.around_centre, sizes)], [s * s for s in sizes])

    def unrolled(self, inputs: Tensor, lengths: list[int]) -> Tensor:
        """inputs: (L, T, 64), of which layer l sees the first lengths[l] -> states (L, T, H), zero past a length."""
        gates_x = torch.baddbmm(self.b_ih.unsqueeze(1), inputs, self.w_ih.transpose(1, 2))
        return recurrence(gates_x.transpose(0, 1), self.w_hh, self.b_hh, lengths).transpose(0, 1)

    def modulated(self, sizes: Sequence[int], masks: Tensor) -> list[Tensor]:
        """Eq. 7 taken through the linear head, m (W h + b) = W (m h) + b m: the states are smaller than the kernels."""
        rows = self.masked_rows(self.states(sizes), masks, _by_layer(self.in_corner, sizes))
        return [
            self.as_kernel(index, head @ row[: size * size].t(), size)
            for index, (head, row, size) in enumerate(zip(self.heads, rows.unbind(), sizes, strict=True))
        ]

    def masked_rows(self, states: Tensor, masks: Tensor, positions: Tensor) -> Tensor:
        """(L, T, H + 1): m h and m by step, the gain in m; positions: (L, T), where in masks each step finds its m."""
        m = self.gain.unsqueeze(1) * masks.flatten(1).gather(1, positions)
        return torch.cat((m.unsqueeze(2) * states, m.unsqueeze(2)), dim=2)

    def one_by_one(self, sizes: Sequence[int], masks: Tensor) -> list[Tensor]:
        """Equal to `modulated`, in the plain way: one layer after the other, one GRU cell call per kernel position."""
        kernels = []
        for index, (head, size) in enumerate(zip(self.heads, sizes, strict=True)):
            weights = (self.w_ih[index], self.w_hh[index], self.b_ih[index], self.b_hh[index])
            states = [self.z.new_zeros(1, self.w_hh.shape[2])]
            for position in grid_positions(size, self.max_size):
                states.append(torch.gru_cell(self.z[position : position + 1], states[-1], *weights))
            columns = F.linear(head[:, :-1], torch.cat(states[1:])) + head[:, -1:]  # (out * in, s*s)
            mask = self.gain[index] * masks[index, :size, :size]
            kernels.append(mask * self.as_kernel(index, columns, size))
        return kernels

    def predict(self, sizes: Sequence[int]) -> list[Tensor]:
        return [
            self.as_kernel(index, head[:, :-1] @ h[: size * size].t() + head[:, -1:], size)
            for index, (h, head, size) in enumerate(zip(self.states(sizes), self.heads, sizes, strict=True))
        ]


class LiteralGRU(KernelPredictor):
    """Eq. 5 to the letter: hidden size = c_l c_{l-1}, one constant input, no head. For narrow networks only."""

    z: Tensor

    def __init__(self, layers: Sequence[Layer], max_size: int, input_size: int = 64) -> None:
        super().__init__(layers, max_size)
        self.register_buffer("z", torch.randn(len(self.layers), 1, input_size))
        self.cells = nn.ModuleList(nn.GRUCell(input_size, c.out_channels * c.in_channels) for c in self.layers)
        self.calibrate()

    def predict(self, sizes: Sequence[int]) -> list[Tensor]:
        kernels = []
        for index, (cell, size) in enumerate(zip(self.cells, sizes, strict=True)):
            rows = [cell(self.z[index])]
            for _ in range(size * size - 1):
                rows.append(cell(self.z[index], rows[-1]))
            kernels.append(self.as_kernel(index, torch.cat(rows).t(), size))
        return kernels


class FreeKernels(KernelPredictor):
    """No predictor: one free max_size x max_size kernel per layer, cropped around its centre. A control."""

    def __init__(self, layers: Sequence[Layer], max_size: int) -> None:
        super().__init__(layers, max_size)
        self.kernels = nn.ParameterList(
            torch.randn(layer.out_channels * layer.in_channels, max_size * max_size) for layer in self.layers
        )
        self.calibrate()

    def predict(self, sizes: Sequence[int]) -> list[Tensor]:
        return [
            self.as_kernel(index, kernel[:, grid_positions(size, self.max_size)], size)
            for index, (kernel, size) in enumerate(zip(self.kernels, sizes, strict=True))
        ]


def per_position(layers: Sequence[Layer], max_size: int) -> KernelPredictor:
    """R-07, default: each kernel position has its own fixed input, found from the kernel's centre."""
    return GRUPredictor(layers, max_size, torch.randn(max_size * max_size, 64))


def const_z(layers: Sequence[Layer], max_size: int) -> KernelPredictor:
    """The same input at every step: the kernels come out nearly flat."""
    return GRUPredictor(layers, max_size, torch.randn(1, 64).expand(max_size * max_size, -1).clone())


KERNEL_PREDICTORS: dict[str, Callable[[Sequence[Layer], int], KernelPredictor]] = {
    "per_position": per_position,
    "const_z": const_z,
    "literal": LiteralGRU,
    "free": FreeKernels,
}
