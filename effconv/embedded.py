"""Kernels of every size as kernels of the largest size: one form of operations, and so one CUDA graph, for all sizes.

A kernel of size s stands in a max_size x max_size canvas of zeros so that the canvas, convolved with the padding that
`pad_widths` gives to max_size, gives what the small kernel gives with its own: for every stride, odd and even s (R-11).
The sizes stay on the device, where they index tables; every GRU runs max_size^2 steps, of which those past s^2 reach
no tap. All of it is work for a GPU, where launching operations and waiting for the host cost more than zeros do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from effconv.kernel_predictor import GRUPredictor


def canvas_steps(size: int, max_size: int, *, extra_left: bool = False) -> list[int]:
    """By raster position of the canvas: the step row * size + column that fills it, or max_size^2, no step.

    `extra_left`: an even size's additional row and column stand on the top and left, as in `pad_widths`.
    """
    first = max_size // 2 - size // 2 if extra_left else (max_size - 1) // 2 - (size - 1) // 2
    own = range(first, first + size)
    return [
        (row - first) * size + column - first if row in own and column in own else max_size**2
        for row in range(max_size)
        for column in range(max_size)
    ]


class Embedding:
    """The kernels of a `GRUPredictor` on canvases. `extra_left`: by the layer's index in forward order."""

    def __init__(self, predictor: GRUPredictor, extra_left: Callable[[int], bool]) -> None:
        self.predictor = predictor
        sizes, device = range(1, predictor.max_size + 1), predictor.z.device
        sides = [[canvas_steps(s, predictor.max_size, extra_left=side) for s in sizes] for side in (False, True)]
        self.steps = torch.tensor(sides, device=device)  # (2, max_size, max_size^2)
        self.side = torch.tensor([int(extra_left(index)) for index in range(len(predictor.layers))], device=device)

    def kernels(self, s: Tensor, masks: Tensor) -> list[Tensor]:
        """Eqs. 5 and 7. s: (L,) whole numbers as int64; masks: as for `modulated` -> L canvases (out, in, M, M)."""
        predictor, largest = self.predictor, self.predictor.max_size
        inputs = predictor.z[predictor.around_centre[s - 1]]  # (L, M^2, 64)
        states = predictor.unrolled(inputs, [largest**2] * len(predictor.layers))  # (L, M^2, H)
        rows = predictor.masked_rows(states, masks, predictor.in_corner[s - 1])
        rows = F.pad(rows, (0, 0, 0, 1))  # (L, M^2 + 1, H + 1); the last is zero: no step
        steps = self.steps[self.side, s - 1].unsqueeze(2)
        on_canvas = rows.gather(1, steps.expand(-1, -1, rows.shape[2]))
        return [
            predictor.as_kernel(index, head @ row.t(), largest)
            for index, (head, row) in enumerate(zip(predictor.heads, on_canvas.unbind(), strict=True))
        ]
