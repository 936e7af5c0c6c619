"""CKConv: the whole grid, no mask."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from baselines.ckconv import SIREN, CKConv2d
from baselines.kernel_nets import MAGNet


@pytest.mark.parametrize("kernel_net", ["siren", "magnet", "gabor", "fourier"])
@pytest.mark.parametrize(("horizon", "stride"), [(3, 2), (9, 1)])
def test_the_kernel_is_its_network_on_the_whole_grid(kernel_net: str, horizon: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = CKConv2d(3, 4, horizon=horizon, kernel_net=kernel_net, stride=stride).double()
    with torch.no_grad():
        layer.bias.normal_()
    axis = torch.linspace(-1, 1, horizon, dtype=torch.float64)
    points = torch.stack([axis.view(-1, 1).expand(-1, horizon), axis.expand(horizon, -1)])
    kernel = layer.kernel_net(points).view(4, 3, horizon, horizon)
    torch.testing.assert_close(layer.kernel(), kernel, atol=1e-6, rtol=1e-5)
    assert layer.kernel_size() == (horizon, horizon) and layer.points().shape == (2, horizon, horizon)
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    y = F.conv2d(x, kernel, layer.bias, padding=horizon // 2)[:, :, ::stride, ::stride]
    torch.testing.assert_close(layer(x), y, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kernel_net", "base"), [("siren", 1152), ("magnet", 4064)])
def test_parameter_counts(kernel_net: str, base: int) -> None:
    layer = CKConv2d(3, 4, horizon=3, kernel_net=kernel_net)
    assert sum(p.numel() for p in layer.parameters()) == base + 33 * 12 + 4


def test_defaults_are_those_of_ckconv() -> None:
    assert isinstance(CKConv2d(3, 4, horizon=33).kernel_net, SIREN)
    net = CKConv2d(3, 4, horizon=33, kernel_net="magnet").kernel_net
    assert isinstance(net, MAGNet)
    assert 0.9 < float(net.state_dict()["filters.0.mu"].abs().max()) <= 1


def test_a_kernel_that_is_given_is_used_as_it_is() -> None:
    layer, x, kernel = CKConv2d(3, 4, horizon=33), torch.randn(2, 3, 8, 8), torch.randn(4, 3, 5, 3)
    torch.testing.assert_close(layer(x, kernel), F.conv2d(x, kernel, padding=(2, 1)), atol=1e-5, rtol=1e-4)


def test_an_even_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number of 3 or more"):
        CKConv2d(3, 4, horizon=32)
