"""What several tests share: slow, obvious forms of the equations, and small networks with batches for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effconv.kernel_predictor import GRUPredictor
from effconv.snapping import count

Batch = tuple[Tensor, Tensor]


def slow_mask(v: float, s: int, centre: str = "pixel", denominator: str = "v2") -> list[list[float]]:
    """Eq. 6, one element at a time."""
    if centre == "none":
        return [[1.0] * s for _ in range(s)]
    c = {"pixel": (v + 1) / 2, "printed": v / 2, "fixed": (s + 1) / 2}[centre]
    d = {"v2": v * v, "v2_over_2": v * v / 2, "half_v2": (v / 2) * (v / 2)}[denominator]
    return [[math.exp(-((i - c) ** 2 + (j - c) ** 2) / d) for j in range(1, s + 1)] for i in range(1, s + 1)]


def plain_gru_kernels(predictor: GRUPredictor, sizes: Sequence[int]) -> list[Tensor]:
    """Eq. 5 with one `torch.nn.GRUCell` per layer and one linear unit per weight, position by position."""
    kernels = []
    for index, (layer, size) in enumerate(zip(predictor.layers, sizes, strict=True)):
        weights = (predictor.w_ih[index], predictor.w_hh[index], predictor.b_ih[index], predictor.b_hh[index])
        head = predictor.heads[index]
        h = predictor.z.new_zeros(1, weights[1].shape[1])
        columns = []
        for row in range(size):
            for column in range(size):
                # the place in the largest kernel, whose middle is the place that every size has: an even one has
                # as many rows before it as the next smaller odd one
                middle, own_middle = (predictor.max_size - 1) // 2, (size - 1) // 2
                place = (middle + row - own_middle) * predictor.max_size + middle + column - own_middle
                h = torch.gru_cell(predictor.z[place : place + 1], h, *weights)
                columns.append(head[:, :-1] @ h[0] + head[:, -1])
        kernel = predictor.z.new_zeros(layer.out_channels, layer.in_channels, size, size)
        for t, values in enumerate(columns):
            kernel[:, :, t // size, t % size] = values.reshape(layer.out_channels, layer.in_channels)
        kernels.append(predictor.gain[index] * kernel)
    return kernels


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def residual_costs(resnet: nn.Module) -> list[int]:
    """c_l c_{l-1} of all convolutions but the first."""
    return [conv.in_channels * conv.out_channels for conv in convolutions(resnet)[1:]]


class TinyNet(nn.Module):
    """Two learnable convolutions behind a stem, with batch norm and dropout, which make resuming hard. 3 x 8 x 8."""

    def __init__(self, width: int = 4, classes: int = 3, kernel_size: int = 3) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first = nn.Conv2d(width, width, kernel_size, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.3)
        self.second = nn.Conv2d(width, 2 * width, kernel_size, stride=2, padding=padding)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem(images))
        x = self.drop(torch.relu(self.norm(self.first(x))))
        scores: Tensor = self.head(torch.relu(self.second(x)).mean((2, 3)))
        return scores


TINY_BUDGET = count([3, 3], [16, 32])


def random_batches(
    batches: int = 3, size: int = 4, *, channels: int = 3, side: int = 8, classes: int = 3
) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    return [
        (
            torch.randn(size, channels, side, side, generator=generator),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(batches)
    ]


class UserCNN(nn.Module):
    """A network as users write them: biases, strides, and convolutions of all kinds whose size cannot be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 8, 5, padding=2)
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.strided = nn.Conv2d(16, 16, 4, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.circular = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")
        self.oblong = nn.Conv2d(16, 16, (1, 3), padding=(0, 1))
        self.shared = nn.Conv2d(16, 16, 3, padding="same")
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.unpadded = nn.Conv2d(8, 8, 5)
        self.spare = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.plain(torch.relu(self.entry(images))))
        x = torch.relu(self.strided(self.pointwise(self.depthwise(x))))
        x = self.oblong(self.circular(self.dilated(self.grouped(x))))
        x = self.shared(torch.relu(self.shared(x)))
        x = self.unpadded(torch.relu(self.up(x)))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores
