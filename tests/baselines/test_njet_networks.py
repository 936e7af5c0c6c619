"""The networks of N-Jet layers: counts, maps, names, sizes that follow sigma, a step that learns."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.njet import NJetConv2d
from baselines.njet_all_cnn import njet_all_cnn
from baselines.njet_nin import njet_nin
from baselines.njet_resnet import njet_resnet
from baselines.resnet import cifar_resnet

CIFAR: dict[str, Any] = {"in_channels": 3, "num_classes": 10, "image_size": 32}
BUILDERS: list[Callable[..., Any]] = [njet_resnet, njet_all_cnn, njet_nin]
NJET_LAYERS = {njet_resnet: 31, njet_all_cnn: 6, njet_nin: 3}


def total(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def maps(net: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """(channels, height, width) out of each N-Jet layer."""
    found: list[tuple[int, ...]] = []
    for module in net.modules():
        if isinstance(module, NJetConv2d):
            module.register_forward_hook(lambda *args: found.append(tuple(args[2].shape[1:])))
    net(x)
    return found


@pytest.mark.parametrize(("order", "count"), [(2, 310_441), (3, 515_433), (4, 771_673)])
def test_resnet_32_counts(order: int, count: int) -> None:
    assert total(njet_resnet(32, order, **CIFAR)) == count


@pytest.mark.parametrize(("order", "count"), [(1, 329_047), (2, 496_663), (3, 720_151), (4, 999_511)])
def test_nin_counts_are_those_of_the_released_network(order: int, count: int) -> None:
    assert total(njet_nin(order, **CIFAR)) == count


@pytest.mark.parametrize("subsample", [True, False])
def test_all_cnn_count_is_the_papers_at_order_2_only(subsample: bool) -> None:
    counts = [total(njet_all_cnn(order, subsample=subsample, **CIFAR)) for order in (1, 2, 3, 4)]
    assert counts[1] == 658_368 + 2 * 970 + 6  # filters, batch norm, scales
    assert [round(count / 1e6, 2) == 0.66 for count in counts] == [False, True, False, False]


def test_orders_by_default_are_those_whose_counts_are_the_papers() -> None:
    defaults = [inspect.signature(builder).parameters["order"].default for builder in BUILDERS]
    assert defaults == [3, 2, 2]
    assert total(njet_resnet(**CIFAR)) == 515_433


def test_resnet_has_the_maps_of_the_plain_one() -> None:
    x = torch.randn(2, 3, 32, 32)
    found = maps(njet_resnet(8, **CIFAR), x)
    expected: list[tuple[int, ...]] = []
    plain = cifar_resnet(8)
    for module in plain.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *args: expected.append(tuple(args[2].shape[1:])))
    plain(x)
    assert found == expected
    assert found[2:5] == [(16, 32, 32), (32, 16, 16), (32, 16, 16)]


def test_resnet_block_by_hand() -> None:
    block: Any = njet_resnet(8, **CIFAR).layer2[0].eval()
    x = torch.randn(2, 16, 6, 6)
    y = F.conv2d(x, block.conv1.kernel(), stride=2, padding=3) / (1 + 1e-5) ** 0.5
    y = F.conv2d(F.relu(y), block.conv2.kernel(), padding=3) / (1 + 1e-5) ** 0.5
    shortcut = torch.zeros(2, 32, 3, 3)
    shortcut[:, 8:24] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), F.relu(y + shortcut), rtol=1e-4, atol=1e-4)


def test_maps_of_the_two_all_cnns_and_of_nin() -> None:
    x = torch.randn(1, 3, 32, 32)
    widths = [[width for _, _, width in maps(njet_all_cnn(subsample=s, **CIFAR).eval(), x)] for s in (True, False)]
    assert widths == [[32, 16, 16, 8, 8, 8], [32] * 6]
    assert maps(njet_nin(**CIFAR).eval(), x) == [(192, 32, 32)] * 3


def test_batch_norm_and_relu_follow_every_layer_of_the_stacks() -> None:
    """Logits are means of the last ReLU, so none is negative; authors' NiN has 9 batch norms."""
    for builder, norms in ((njet_nin, 9), (njet_all_cnn, 7)):
        net = builder(**CIFAR)
        assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == norms
        last: list[Tensor] = []
        list(net)[-1].register_forward_hook(lambda *args, last=last: last.append(args[2]))
        logits = net(torch.randn(2, 3, 8, 8))
        assert (logits >= 0).all()
        torch.testing.assert_close(logits, last[0].flatten(2).mean(dim=2))
        assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))
    assert [m.p for m in njet_nin(**CIFAR).modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert [m.p for m in njet_all_cnn(**CIFAR).modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5]


@pytest.mark.parametrize("builder", BUILDERS)
def test_logits_also_of_one_image_of_another_kind(builder: Callable[..., Any]) -> None:
    net = builder(in_channels=1, num_classes=7, image_size=9, order=1)
    assert net(torch.randn(1, 1, 9, 9)).shape == (1, 7)
    memory: Any = torch.channels_last
    x = torch.randn(2, 1, 9, 9)
    expected = net.eval()(x)
    torch.testing.assert_close(net.to(memory_format=memory)(x.to(memory_format=memory)), expected, rtol=1e-3, atol=1e-3)
    assert net.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("builder", BUILDERS)
def test_kernel_sizes_by_name_follow_sigma(builder: Callable[..., Any]) -> None:
    net = builder(**CIFAR)
    sizes = net.kernel_sizes()
    assert len(sizes) == NJET_LAYERS[builder]
    assert set(sizes.values()) == {(7, 7)}
    for name, size in zip(sizes, range(len(sizes)), strict=True):
        with torch.no_grad():
            net.get_submodule(name).scale.fill_(0.1 * size - 1)
    widths = [width for width, _ in net.kernel_sizes().values()]
    assert widths == sorted(widths)
    assert widths[0] == 5  # sigma 0.5
    assert set(builder(**CIFAR, extent=1.0).kernel_sizes().values()) == {(5, 5)}


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_step_lowers_the_loss_and_moves_every_parameter(builder: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net = builder(**{**CIFAR, "image_size": 8}, **({"depth": 8} if builder is njet_resnet else {}))
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all((p != before[name]).any() for name, p in net.named_parameters())


@pytest.mark.parametrize("builder", BUILDERS)
def test_state_dict_and_copy_give_the_same_logits(builder: Callable[..., Any]) -> None:
    net, other = builder(**CIFAR).eval(), builder(**CIFAR).eval()
    with torch.no_grad():
        for name in net.kernel_sizes():
            net.get_submodule(name).scale.fill_(-0.6)
    other.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 8, 8)
    assert other.kernel_sizes() == net.kernel_sizes()
    assert torch.equal(other(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))


@pytest.mark.parametrize("depth", [2, 18, 33])
def test_another_depth_is_an_error(depth: int) -> None:
    with pytest.raises(ValueError, match="6n"):
        njet_resnet(depth, **CIFAR)


@pytest.mark.parametrize(
    ("builder", "kwargs", "least"),
    [(njet_resnet, {}, 5), (njet_all_cnn, {}, 5), (njet_all_cnn, {"subsample": False}, 2), (njet_nin, {}, 2)],
)
def test_the_least_image_trains_alone_and_a_smaller_one_is_an_error(
    builder: Callable[..., Any], kwargs: dict[str, Any], least: int
) -> None:
    sizes = {**CIFAR, "image_size": least}
    assert builder(**kwargs, **sizes)(torch.randn(1, 3, least, least)).shape == (1, 10)
    sizes["image_size"] = least - 1
    with pytest.raises(ValueError, match=f"{least} pixels or more; got {least - 1}"):
        builder(**kwargs, **sizes)
