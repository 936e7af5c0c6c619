"""ALL-CNN-C: the count, the maps, a slow evaluation, dropouts, initialisation, sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.all_cnn import all_cnn_c


def convs(net: nn.Module) -> list[nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


def test_count() -> None:
    assert sum(p.numel() for p in all_cnn_c().parameters()) == 1_369_738


def test_maps_on_cifar() -> None:
    net = all_cnn_c().eval()
    maps: list[tuple[int, ...]] = []
    for layer in convs(net):
        layer.register_forward_hook(lambda module, args, out: maps.append(tuple(out.shape[1:3])))
    assert net(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    expected = [(96, 32), (96, 32), (96, 16), (192, 16), (192, 16), (192, 8), (192, 6), (192, 6), (10, 6)]
    assert maps == expected


def test_against_a_slow_evaluation() -> None:
    net = all_cnn_c(in_channels=2, num_classes=4).double().eval()
    x = torch.randn(2, 2, 13, 12, dtype=torch.float64)
    y = x
    for i, layer in enumerate(convs(net)):
        assert layer.bias is not None
        pad = 1 if i < 6 else 0
        y = F.conv2d(F.pad(y, (pad,) * 4), layer.weight) + layer.bias[:, None, None]
        y = y[:, :, ::2, ::2] if i in (2, 5) else y  # a stride skips what a full convolution makes
        y = y.clamp(min=0)
    torch.testing.assert_close(net(x), y.flatten(2).mean(dim=2))


def test_dropouts() -> None:
    net = all_cnn_c()
    kinds = [(m.p if isinstance(m, nn.Dropout) else 0) for m in net.layers]
    assert kinds == [0.2, 0, 0, 0, 0.5, 0, 0, 0, 0.5, 0, 0, 0]


def test_initialisation() -> None:
    torch.manual_seed(0)
    for layer in convs(all_cnn_c()):
        bound = (3 / layer.weight[0].numel()) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert layer.bias is not None and not layer.bias.any()


@pytest.mark.parametrize("size", [9, 28, 33])
def test_other_sizes(size: int) -> None:
    assert all_cnn_c(in_channels=1, image_size=size).eval()(torch.randn(1, 1, size, size)).shape == (1, 10)


def test_too_small_an_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="9 pixels or more") as caught:
        all_cnn_c(image_size=8)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="9 pixels or more"):
        all_cnn_c()(torch.randn(1, 3, 8, 32))


def test_state_dict_round_trip() -> None:
    x = torch.randn(1, 3, 32, 32)
    net, other = all_cnn_c().eval(), all_cnn_c().eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
