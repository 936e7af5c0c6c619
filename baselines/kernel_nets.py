"""Networks that turn positions into the weights of a convolution kernel.

MAGNet: Romero et al., "FlexConv: Continuous Kernel Convolutions with Differentiable Kernel Sizes" (2022). Gabor and
Fourier: Fathony et al., "Multiplicative Filter Networks" (2021). SIREN: Sitzmann et al., "Implicit Neural
Representations with Periodic Activation Functions" (2020), as CKConv uses it (Romero et al., 2022).

With p = (p_0, p_1) a position (row, column), h = 32 hidden units, filters l = 0..L and L = 3:

    MAGNet   g_l(p) = exp(-1/2 sum_d (gamma_ld (p_d - mu_ld))^2) sin(W_l p + b_l)
    Gabor    the same with one gamma for both axes
    Fourier  g_l(p) = sin(W_l p + b_l)

    z_0 = g_0,  z_l = g_l * (A_l z_(l-1) + a_l),  kernel(p) = A z_L + a

The networks are plain functions of one position: a unit of the output is one pair (output, input) of channels.
"""

from __future__ import annotations

import math
from operator import attrgetter

import torch
from torch import Tensor, nn

from baselines.pointwise import KernelNet, affine, grid_filters, sinusoids, windows

HIDDEN = 32
LAYERS = 3
MU_SPAN = 0.075 * 1.667  # of FlexConv: mu starts about where the mask does; 1.0 in CKConv
GABOR_SCALE, FOURIER_SCALE = 25.6, 256.0  # of W, over sqrt(L + 1)
GAMMA_SHAPE = 6.0  # alpha of the gamma distribution, whose rate is 1


class FourierFilter(nn.Module):
    """The parameters of one g_l: `linear`, W (h, 2, 1, 1) and b (h,). Draws: linear, phases."""

    def __init__(self, hidden: int, *, scale: float) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2, hidden, 1)
        with torch.no_grad():
            self.linear.weight.mul_(scale)
        draw_phases(self.linear)


class GaborFilter(nn.Module):
    """The parameters of one g_l: `mu` (h, 2), `gamma` (h, axes), `linear`. Draws: linear, mu, gamma, phases.

    W is scaled by gamma, once: narrow windows start with high frequencies.
    """

    def __init__(self, hidden: int, *, scale: float, mu_span: float, gamma_shape: float, axes: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2, hidden, 1)
        self.mu = nn.Parameter(torch.empty(hidden, 2).uniform_(-mu_span, mu_span).clamp(max=1.0))
        gamma = torch.distributions.Gamma(gamma_shape, 1.0).sample((hidden, axes))
        self.gamma = nn.Parameter(gamma)
        with torch.no_grad():
            self.linear.weight.mul_(scale * gamma.view(hidden, axes, 1, 1))
        draw_phases(self.linear)


def draw_phases(linear: nn.Conv2d) -> None:
    assert linear.bias is not None
    nn.init.uniform_(linear.bias, -math.pi, math.pi)


class MultiplicativeNet(KernelNet):
    """What MAGNet, Gabor and Fourier share: `filters` (L + 1), filled by them, `linears` (L), `output`.

    Draws: the hidden linear layers as PyTorch does, `output` likewise, the hidden weights once more; then the filters.
    """

    def __init__(self, out_channels: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in range(layers))
        self.output = nn.Conv2d(hidden, out_channels, 1)
        for linear in self.linears:
            nn.init.uniform_(linear.get_parameter("weight"), -math.sqrt(1 / hidden), math.sqrt(1 / hidden))
        self.filters = nn.ModuleList()

    def of_filters(self, name: str) -> Tensor:
        """A parameter of all filters, one below the other: (L + 1) h rows."""
        of_filter = attrgetter(name)
        return torch.cat([of_filter(each) for each in self.filters])

    def window(self) -> tuple[Tensor, Tensor] | None:
        """mu and gamma of all filters, if they have any."""
        return None

    def features(self, p: Tensor) -> Tensor:
        g = sinusoids(p, self.of_filters("linear.weight").flatten(1), self.of_filters("linear.bias"))
        window = self.window()
        return self.multiplied(g if window is None else windows(p, *window) * g)

    def grid_features(self, points: Tensor) -> Tensor:
        w, b = self.of_filters("linear.weight").flatten(1), self.of_filters("linear.bias")
        return self.multiplied(grid_filters(points, w, b, self.window()))

    def multiplied(self, g: Tensor) -> Tensor:
        """z_L. g: ((L + 1) h, P), all filters -> (h, P)."""
        z, *others = g.unflatten(0, (len(self.filters), -1)).unbind()
        for g_l, linear in zip(others, self.linears, strict=True):
            z = g_l * affine(linear, z)
        return z


class FourierNet(MultiplicativeNet):
    """W starts 128 times as large as PyTorch draws it: the authors' code leaves the input scale at 256 here."""

    def __init__(self, out_channels: int, *, hidden: int = HIDDEN, layers: int = LAYERS) -> None:
        super().__init__(out_channels, hidden=hidden, layers=layers)
        scale = FOURIER_SCALE / math.sqrt(layers + 1)
        self.filters.extend(FourierFilter(hidden, scale=scale) for _ in range(layers + 1))


class GaborNet(MultiplicativeNet):
    """Isotropic windows: gamma (h, 1), in every filter from Gamma(6 / (L + 1), 1); mu in [-mu_span, mu_span]."""

    axes = 1

    def __init__(
        self, out_channels: int, *, hidden: int = HIDDEN, layers: int = LAYERS, mu_span: float = MU_SPAN
    ) -> None:
        super().__init__(out_channels, hidden=hidden, layers=layers)
        scale = GABOR_SCALE / math.sqrt(layers + 1)
        for shape in self.gamma_shapes(layers):
            self.filters.append(GaborFilter(hidden, scale=scale, mu_span=mu_span, gamma_shape=shape, axes=self.axes))

    @staticmethod
    def gamma_shapes(layers: int) -> list[float]:
        return [GAMMA_SHAPE / (layers + 1)] * (layers + 1)

    def window(self) -> tuple[Tensor, Tensor] | None:
        return self.of_filters("mu"), self.of_filters("gamma")


class MAGNet(GaborNet):
    """Anisotropic windows: gamma (h, 2), in filter l from Gamma(6 / (l + 1), 1), so that later filters are wider."""

    axes = 2

    @staticmethod
    def gamma_shapes(layers: int) -> list[float]:
        return [GAMMA_SHAPE / (level + 1) for level in range(layers + 1)]


class Sine(nn.Conv2d):
    """sin(omega_0 (W p + b)); omega_0 is a fixed buffer (1,)."""

    omega_0: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, omega_0: float) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.register_buffer("omega_0", torch.tensor([omega_0]))

    def forward(self, p: Tensor) -> Tensor:
        """(in, P) -> (out, P)."""
        return torch.sin(self.omega_0 * affine(self, p))


class SIREN(KernelNet):
    """h_1 = sin(omega_0 (W_1 p + b_1)), h_2 = sin(omega_0 (W_2 h_1 + b_2)), kernel(p) = W_3 h_2 + b_3.

    W_1 starts in [-1/2, 1/2], W_2 and W_3 in +-sqrt(6 / h) / omega_0, the biases as PyTorch draws them.
    """

    def __init__(self, out_channels: int, *, hidden: int = HIDDEN, omega_0: float = 30.0) -> None:
        super().__init__()
        first, second = Sine(2, hidden, omega_0=omega_0), Sine(hidden, hidden, omega_0=omega_0)
        self.linears = nn.ModuleList([first, second, nn.Conv2d(hidden, out_channels, 1)])
        nn.init.uniform_(first.weight, -1 / 2, 1 / 2)
        span = math.sqrt(6 / hidden) / omega_0
        for linear in (second, self.output):
            nn.init.uniform_(linear.weight, -span, span)

    @property
    def output(self) -> nn.Conv2d:  # type: ignore[override]
        last = self.linears[2]
        assert isinstance(last, nn.Conv2d)
        return last

    def features(self, p: Tensor) -> Tensor:
        return self.linears[1](self.linears[0](p))


KERNEL_NETS: dict[str, type[KernelNet]] = {"magnet": MAGNet, "gabor": GaborNet, "fourier": FourierNet, "siren": SIREN}


def make_kernel_net(name: str, out_channels: int, *, mu_span: float) -> KernelNet:
    """The network of that name. `mu_span` is for those whose filters have windows."""
    if name not in KERNEL_NETS:
        raise ValueError(f"no kernel network is called {name!r}; there are {', '.join(KERNEL_NETS)}")
    kind = KERNEL_NETS[name]
    return kind(out_channels, mu_span=mu_span) if issubclass(kind, GaborNet) else kind(out_channels)
