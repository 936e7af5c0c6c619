"""The size predictor: Eq. 1 (soft sizes v) and Eq. 2 (integer sizes s) of the paper.

    v = sigma(f_sp(z; theta_sp)),  sigma(x) = k tanh(x / tau + b) + k + 1      (1)
    s = round(v)                                                               (2)

`SIZE_PREDICTORS` holds the readings of f_sp by name: each maps L, the number of layers, to a module whose forward gives
L logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from effconv.recurrence import recurrence

TAU = 3.0
PAPER_BIAS = -0.35  # the paper's b for an original kernel size of 3 and sizes in [1, 7]
_INPUT, _HIDDEN = 64, 128


def squash(x: Tensor, *, k: float, tau: float, b: Tensor | float) -> Tensor:
    """sigma of Eq. 1. x: any shape -> soft sizes in (1, 2k + 1)."""
    return k * torch.tanh(x / tau + b) + k + 1


def start_bias(kernel_size: int, max_size: int) -> float:
    """b such that sigma(0) is the layer's own size: the paper's -0.35 for 3 of 7, else solved, at most max_size - 1."""
    if kernel_size == 3 and max_size == 7:
        return PAPER_BIAS
    k = (max_size - 1) / 2
    return math.atanh((min(kernel_size, max_size - 1) - k - 1) / k)


def round_half_up(v: Tensor) -> Tensor:
    """round of Eq. 2; 2.5 -> 3, because v does come to rest on .5 (R-03)."""
    return torch.floor(v + 0.5)


def straight_through(v: Tensor) -> Tensor:
    """s of Eq. 2 with the gradient of v (Bengio, Léonard, Courville 2013)."""
    return v + (round_half_up(v) - v).detach()


class SizePredictor(nn.Module):
    """Eq. 1. Forward: nothing -> v (L,), soft sizes. `kernel_sizes` are the layers' own sizes, where v begins."""

    bias: Tensor

    def __init__(self, kernel_sizes: Sequence[int], max_size: int, architecture: str = "bigru") -> None:
        super().__init__()
        if max_size < 3:
            raise ValueError(f"max_size is {max_size}; it must be at least 3")
        self.k = (max_size - 1) / 2
        self.logits = SIZE_PREDICTORS[architecture](len(kernel_sizes))
        self.register_buffer("bias", torch.tensor([start_bias(size, max_size) for size in kernel_sizes]))

    def forward(self) -> Tensor:
        return squash(self.logits(), k=self.k, tau=TAU, b=self.bias)


def _orthogonal_inputs(steps: int) -> Tensor:
    """z: (steps, 64), mutually orthogonal unit rows (columns, where there are more than 64 steps)."""
    return nn.init.orthogonal_(torch.empty(steps, _INPUT))


class BiGRU(nn.Module):
    """R-02, default: a bidirectional GRU over the layers, LayerNorm, ReLU and a weight-normed linear unit per layer."""

    z: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("z", _orthogonal_inputs(layers))
        bound = 1 / math.sqrt(_HIDDEN)  # nn.GRU's own initialisation; index 0 runs forwards, 1 backwards
        self.w_ih = nn.Parameter(torch.empty(2, 3 * _HIDDEN, _INPUT).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(2, 3 * _HIDDEN, _HIDDEN).uniform_(-bound, bound))
        self.b_ih = nn.Parameter(torch.empty(2, 3 * _HIDDEN).uniform_(-bound, bound))
        self.b_hh = nn.Parameter(torch.empty(2, 3 * _HIDDEN).uniform_(-bound, bound))
        self.norm = nn.LayerNorm(2 * _HIDDEN)
        bound = 1 / math.sqrt(2 * _HIDDEN)  # nn.Linear's own initialisation
        self.direction = nn.Parameter(torch.empty(layers, 2 * _HIDDEN).uniform_(-bound, bound))
        self.length = nn.Parameter(self.direction.detach().norm(dim=1))

    def states(self) -> Tensor:
        """(L, 256): for each layer the states of both directions, as `nn.GRU(64, 128, bidirectional=True)` gives."""
        z = torch.stack((self.z, self.z.flip(0)))  # (2, L, 64)
        gates_x = torch.baddbmm(self.b_ih.unsqueeze(1), z, self.w_ih.transpose(1, 2)).transpose(0, 1)
        forwards, backwards = recurrence(gates_x, self.w_hh, self.b_hh, [len(self.z)] * 2).unbind(1)
        return torch.cat((forwards, backwards.flip(0)), dim=1)

    def forward(self) -> Tensor:
        features = torch.relu(self.norm(self.states()))
        projected = (features * self.direction).sum(1)
        logits: Tensor = self.length * projected / self.direction.norm(dim=1)
        return logits


class SharedMLP(nn.Module):
    """One unidirectional GRU over the layers and one feed-forward head for all of them, on inputs `z` (L, 64)."""

    z: Tensor

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.register_buffer("z", z)
        self.gru = nn.GRU(_INPUT, _HIDDEN)
        self.head = nn.Sequential(nn.Linear(_HIDDEN, _INPUT), nn.ReLU(), nn.Linear(_INPUT, 1))

    def forward(self) -> Tensor:
        states, _ = self.gru(self.z)
        logits: Tensor = self.head(states)
        return logits.squeeze(1)


class OneStep(nn.Module):
    """One GRU step on one input, then a feed-forward layer with L outputs."""

    z: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("z", _orthogonal_inputs(1))
        self.gru = nn.GRU(_INPUT, _HIDDEN)
        self.head = nn.Linear(_HIDDEN, layers)

    def forward(self) -> Tensor:
        states, _ = self.gru(self.z)
        logits: Tensor = self.head(states)
        return logits.squeeze(0)


class Direct(nn.Module):
    """No network: one free logit per layer. At the paper's learning rate it hardly moves; kept as a control."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))

    def forward(self) -> Tensor:
        return self.logits * 1.0


SIZE_PREDICTORS: dict[str, Callable[[int], nn.Module]] = {
    "bigru": BiGRU,
    "shared_mlp": lambda layers: SharedMLP(_orthogonal_inputs(layers)),
    "same_z": lambda layers: SharedMLP(_orthogonal_inputs(1).expand(layers, -1).clone()),
    "onestep": OneStep,
    "direct": Direct,
}
