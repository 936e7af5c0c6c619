"""FlexNet: parameter counts against the authors' code, the network by hand, what a caller may rely on.

Its logits and gradients stand against a slow float64 evaluation in test_published.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from baselines.flexconv import FlexConv2d
from baselines.flexnet import FlexNet, flexnet, horizon_of, layer_maker

# blocks, width: parameters with MAGNet FlexConv, MAGNet CKConv, Gabor FlexConv, SIREN FlexConv, SIREN CKConv
COUNTS = {
    (3, 24): (277_090, 277_062, 276_194, 256_706, 256_678),
    (5, 22): (454_046, 454_002, 452_638, 422_014, 421_970),
    (7, 24): (671_650, 671_590, 669_730, 627_970, 627_910),
}
KINDS = [
    ("flexconv", "magnet"),
    ("ckconv", "magnet"),
    ("flexconv", "gabor"),
    ("flexconv", "siren"),
    ("ckconv", "siren"),
]


def total(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def small(**options: Any) -> FlexNet:
    return flexnet(3, 4, **{"image_size": 16, "num_classes": 5, **options})


@pytest.mark.parametrize(("blocks", "width"), COUNTS)
def test_counts_are_those_of_the_authors_networks(blocks: int, width: int) -> None:
    found = [total(flexnet(blocks, width, layer=layer, kernel_net=kernel_net)) for layer, kernel_net in KINDS]
    assert tuple(found) == COUNTS[blocks, width]


def test_counts_of_other_data_sets_and_of_other_kernels() -> None:
    assert total(flexnet(7, 24, in_channels=1, image_size=28)) == 670_066
    assert total(flexnet(7, 24, image_size=96)) == 671_650
    assert total(flexnet(5, 22, num_classes=1000)) == 498_596
    assert total(flexnet(7, 24, kernel_net="fourier")) == 663_970
    assert total(flexnet(7, 68, image_size=96)) == 4_939_452


def test_an_older_imagenet_setting_has_the_size_that_the_effconv_paper_prints() -> None:
    widths = [int(20 * factor) for factor in (1.035, 1.5525, 1.5525, 2.07, 2.07)]
    for kernel_net, count in {"magnet": 442_096, "gabor": 440_688}.items():
        make = layer_maker("flexconv", kernel_net, horizon=33)
        assert total(FlexNet(20, widths, make, in_channels=3, num_classes=1000, dropout=0.2)) == count


@pytest.mark.parametrize(("blocks", "width", "layers"), [(3, 24, 8), (5, 22, 12), (7, 24, 16)])
def test_names_count_blocks_or_layers(blocks: int, width: int, layers: int) -> None:
    net = flexnet(blocks, width)
    assert len(net.blocks) == blocks
    assert len(net.layers()) + 1 == layers  # with the head
    assert list(net.layers())[:3] == ["conv1", "blocks.0.conv1", "blocks.0.conv2"]


@pytest.mark.parametrize(
    ("size", "side", "at_start"), [(28, 29, 5), (32, 33, 5), (33, 33, 5), (16, 17, 3), (96, 97, 15)]
)
def test_the_horizon_is_the_next_odd_number(size: int, side: int, at_start: int) -> None:
    assert horizon_of(size) == side
    net = small(image_size=size)
    assert set(net.kernel_sizes().values()) == {(at_start, at_start)}
    assert set(small(image_size=size, layer="ckconv").kernel_sizes().values()) == {(side, side)}


def test_the_kernels_centres_start_near_the_mask_in_flexconv_and_anywhere_in_ckconv() -> None:
    for layer, least, most in (("flexconv", 0.11, 0.1251), ("ckconv", 0.9, 1.0)):
        net = small(layer=layer, kernel_net="magnet")
        greatest = max(p.abs().max().item() for name, p in net.named_parameters() if name.endswith(".mu"))
        assert least < greatest <= most


@pytest.mark.parametrize("images", [(1, 3, 8, 8), (2, 3, 8, 8), (2, 3, 11, 6)])
@pytest.mark.parametrize(("layer", "kernel_net"), KINDS)
def test_logits(layer: str, kernel_net: str, images: tuple[int, ...]) -> None:
    net = small(layer=layer, kernel_net=kernel_net).eval()
    x = torch.randn(images)
    logits = net(x)
    assert logits.shape == (images[0], 5)
    kernels = net.kernels()
    assert torch.equal(net(x, kernels), logits)
    torch.testing.assert_close(net(x, [each.kernel() for each in net.layers().values()]), logits)
    torch.testing.assert_close(net(x[:1]), logits[:1], rtol=1e-3, atol=1e-4)


def test_a_block_by_hand() -> None:
    torch.manual_seed(1)
    net = small().eval()
    block: Any = net.blocks[1]
    x = torch.randn(2, 4, 8, 8)
    scale = (1 + 1e-5) ** 0.5
    y = torch.relu(block.conv1(x) / scale)
    y = block.conv2(y) / scale
    shortcut = torch.einsum("oi,nihw->nohw", block.shortcut.weight[:, :, 0, 0], x) + block.shortcut.bias.view(-1, 1, 1)
    expected = torch.relu(y + shortcut)
    kernels = [block.conv1.kernel(), block.conv2.kernel()]
    torch.testing.assert_close(block(x, iter(kernels)), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(net.blocks[0].shortcut, nn.Identity)
    assert net.head.weight.shape == (5, 8, 1, 1) and not net.head.bias.any()  # type: ignore[union-attr]


def test_dropout_is_between_the_convolutions_and_only_in_training() -> None:
    net = small()
    x = torch.randn(2, 3, 8, 8)
    seen: list[torch.Tensor] = []
    for block in net.blocks:
        block.dropout.register_forward_hook(lambda _module, _inputs, output: seen.append(output))  # type: ignore[union-attr]
    net(x)
    share = torch.cat([y.flatten() for y in seen]).eq(0).float().mean()
    net.eval()(x)
    eval_share = torch.cat([y.flatten() for y in seen[3:]]).eq(0).float().mean()
    assert len(seen) == 6 and share > eval_share + 0.05  # a half is zero after the ReLU, a fifth of the rest dropped
    assert torch.equal(net(x), net(x))


def test_head_starts_kaiming_normal() -> None:
    net = flexnet(3, 200, num_classes=1000)
    assert net.head.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("layer", "kernel_net"), KINDS)
def test_every_parameter_gets_a_gradient(layer: str, kernel_net: str) -> None:
    net = small(layer=layer, kernel_net=kernel_net)
    net(torch.randn(4, 3, 8, 8)).logsumexp(1).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.endswith(("conv1.bias", "conv2.bias", "output.bias")):  # batch norm takes out what is constant
            assert parameter.grad.any(), name


def test_full_grid_gives_the_same_network() -> None:
    x = torch.randn(2, 3, 8, 8)
    plain = small().eval()
    full = small(full_grid=True).eval()
    full.load_state_dict(plain.state_dict())
    assert all(each.full_grid for each in full.layers().values() if isinstance(each, FlexConv2d))
    torch.testing.assert_close(full(x), plain(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", ["flexconv", "ckconv"])
def test_state_dict_copies_and_memory_formats(layer: str) -> None:
    net, other = small(layer=layer).eval(), small(layer=layer).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for each in net.layers().values():
            if isinstance(each, FlexConv2d):
                each.mask_params[:, 1] = 0.3
    expected = net(x)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), expected)
    duplicate = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(duplicate(x), expected)
    duplicate = duplicate.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    laid_out = duplicate(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(laid_out, expected, rtol=1e-3, atol=1e-4)
    assert duplicate.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 4}, "blocks must be one of 3, 5, 7; got 4"),
        ({"layer": "conv"}, "layer must be one of flexconv, ckconv; got 'conv'"),
        ({"kernel_net": "mlp"}, "kernel_net must be one of magnet, gabor, fourier, siren; got 'mlp'"),
        ({"image_size": 1}, "image_size must be an integer of at least 2"),
        ({"image_size": 32.0}, "got 32.0"),
    ],
)
def test_what_does_not_exist_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        flexnet(**{"blocks": 3, "width": 4, **arguments})
    assert "\n" not in str(caught.value)
