"""CKCNN-7's reconstruction: its size, its shape, its logits against the same blocks by hand."""

from __future__ import annotations

import pytest
import torch

from baselines.ckcnn7 import ckcnn7
from baselines.ckconv import CKConv2d


def test_count_and_layers() -> None:
    net = ckcnn7()
    assert sum(parameter.numel() for parameter in net.parameters()) == 691_146
    layers = net.layers()
    assert len(layers) + 1 == 7  # with the head
    assert all(isinstance(layer, CKConv2d) and layer.out_channels == 64 for layer in layers.values())
    assert set(net.kernel_sizes().values()) == {(33, 33)}


def test_logits_by_hand() -> None:
    net = ckcnn7(in_channels=2, num_classes=4, image_size=6).eval()
    x = torch.randn(3, 2, 7, 6)
    scale = (1 + 1e-5) ** 0.5
    y = x
    for block in net.blocks:
        inner = block.conv2(torch.relu(block.conv1(y) / scale)) / scale  # type: ignore[operator]
        y = torch.relu(inner + block.shortcut(y))  # type: ignore[operator]
    expected = y.mean((2, 3)) @ net.head.weight[:, :, 0, 0].T
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(net(x, net.kernels()), net(x))
    assert net(x[:1]).shape == (1, 4)


def test_state_dict_round_trip_and_gradients() -> None:
    net, other = ckcnn7(image_size=4).eval(), ckcnn7(image_size=4).eval()
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(net(x), other(x))
    net.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_an_image_that_is_too_small_is_an_error() -> None:
    with pytest.raises(ValueError, match="image_size must be an integer of at least 2"):
        ckcnn7(image_size=1)
