"""Efficient-CapsNet: counts, routing and losses against float64 loops, Keras's constants, and what the decoder sees."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.capsnet import EfficientCapsNet, efficient_capsnet, lengths, loss, margin_loss, route, squash

torch.set_num_threads(1)


def build(*, in_channels: int = 1, num_classes: int = 10, seed: int = 0) -> EfficientCapsNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return efficient_capsnet(in_channels=in_channels, num_classes=num_classes, image_size=28)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(n: int, *, channels: int = 1) -> Tensor:
    return random(n, channels, 28, 28).abs().clamp(max=0.99).float()


def test_parameter_counts() -> None:
    net = build()
    decoder = sum(p.numel() for p in net.decoder.parameters())
    assert decoder == 1_411_344
    assert sum(p.numel() for p in net.parameters()) - decoder == 161_824


def squash_by_hand(v: list[float]) -> list[float]:
    norm = math.sqrt(sum(x * x for x in v))
    return [(1 - math.exp(-norm)) * x / norm for x in v]


def test_squash_by_hand() -> None:
    v = random(5, 8)
    expected = torch.tensor([squash_by_hand(row) for row in v.tolist()], dtype=torch.float64)
    torch.testing.assert_close(squash(v), expected, rtol=1e-12, atol=0)
    tiny = torch.full((1, 8), 1e-12, dtype=torch.float64)
    torch.testing.assert_close(squash(tiny), tiny, rtol=1e-6, atol=0)  # 1 - exp(-x) alone would lose all digits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_capsule_has_finite_values_and_gradients(dtype: torch.dtype) -> None:
    v = torch.zeros(2, 3, 8, dtype=dtype, requires_grad=True)
    out = squash(v)
    lengths(out).sum().backward()
    assert not out.any() and v.grad is not None and v.grad.isfinite().all()


def route_by_hand(votes: Tensor, bias: Tensor) -> Tensor:
    """One number at a time: votes (N, K, I, D), bias (K, I, 1)."""
    n, k, i, d = votes.shape
    out = torch.empty(n, k, d, dtype=torch.float64)
    for image in range(n):
        u = votes[image].tolist()
        a = [
            [sum(u[c][p][z] * u[c][m][z] for m in range(i) for z in range(d)) / math.sqrt(d) for p in range(i)]
            for c in range(k)
        ]
        for c in range(k):
            weights = [
                math.exp(a[c][p]) / sum(math.exp(a[other][p]) for other in range(k)) + bias[c, p, 0].item()
                for p in range(i)
            ]
            total = [sum(weights[p] * u[c][p][z] for p in range(i)) for z in range(d)]
            out[image, c] = torch.tensor(squash_by_hand(total))
    return out


def test_routing_by_hand() -> None:
    votes, bias = random(2, 3, 4, 5), random(3, 4, 1, seed=1)
    torch.testing.assert_close(route(votes, bias), route_by_hand(votes, bias), rtol=1e-6, atol=1e-7)


def test_margin_loss_by_hand() -> None:
    scores, labels = random(6, 10).abs().clamp(max=1), torch.tensor([0, 9, 3, 3, 5, 1])
    total = 0.0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        for k, p in enumerate(row):
            total += max(0.0, 0.9 - p) ** 2 if k == label else 0.5 * max(0.0, p - 0.1) ** 2
    assert margin_loss(scores, labels).item() == pytest.approx(total / 6, rel=1e-12)


def test_the_lengths_are_the_scores() -> None:
    v = random(2, 3, 16)
    expected = [[math.sqrt(sum(x * x for x in capsule) + 1e-7) for capsule in image] for image in v.tolist()]
    torch.testing.assert_close(lengths(v), torch.tensor(expected, dtype=torch.float64))
    net, x = build().eval(), images(2)
    torch.testing.assert_close(net(x), lengths(net.capsules(x)))


def test_gradients_against_finite_differences() -> None:
    v, votes, bias = random(2, 3, 4), random(2, 3, 4, 5), random(3, 4, 1, seed=1)
    for tensor in (v, votes, bias):
        tensor.requires_grad_()
    labels = torch.tensor([2, 0])
    assert torch.autograd.gradcheck(squash, v)
    assert torch.autograd.gradcheck(route, (votes, bias))
    assert torch.autograd.gradcheck(lambda v: margin_loss(lengths(squash(v)), labels), v)


def test_the_whole_network_by_its_equations() -> None:
    """Evaluation mode, float64: conv, ReLU, batch norm (eps 1e-3), depthwise sums, votes, routing."""
    net = build(in_channels=2, num_classes=3).double().eval()
    with torch.no_grad():
        for i, (name, tensor) in enumerate(net.state_dict().items()):
            if "running" in name or name.endswith("bias"):
                tensor.copy_(random(*tensor.shape, seed=i).abs() + 0.1)
    x = images(2, channels=2).double()
    p = {name: value.detach() for name, value in net.state_dict().items()}
    y = x
    for i, stride in enumerate((1, 1, 1, 2)):
        y = F.conv2d(y, p[f"features.{i}.0.weight"], p[f"features.{i}.0.bias"], stride=stride).clamp(min=0)
        mean, var, scale, move = (
            p[f"features.{i}.2.{name}"].view(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
        )
        y = (y - mean) / (var + 1e-3).sqrt() * scale + move
    assert y.shape == (2, 128, 9, 9)
    flat = (y * p["primary.weight"][:, 0]).sum((2, 3)) + p["primary.bias"]
    u = torch.tensor([[squash_by_hand(image[8 * i : 8 * i + 8]) for i in range(16)] for image in flat.tolist()])
    votes = torch.stack([(u.double()[:, :, :, None] * p["weight"][k]).sum(2) for k in range(3)], 1)
    torch.testing.assert_close(net.capsules(x), route_by_hand(votes, p["bias"]), rtol=1e-4, atol=1e-5)


def test_batch_norm_forgets_as_keras_does() -> None:
    norms = [m for m in build().modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.momentum, m.eps) for m in norms] == [(0.01, 1e-3)] * 4


def test_the_loss_is_margin_and_reconstruction() -> None:
    net, x, labels = build(), images(3), torch.tensor([1, 0, 9])
    value, scores = loss(net, x, labels)
    capsules = net.capsules(x)
    masked = torch.zeros(3, 10, 16)
    for i, k in enumerate(labels.tolist()):
        masked[i, k] = capsules[i, k]
    drawn = net.decoder(masked.view(3, 160))
    error = (drawn.view(3, 1, 28, 28) - x).square().sum() / (3 * 784)
    expected = margin_loss(scores, labels) + 0.0005 * 784 * error
    torch.testing.assert_close(scores, lengths(capsules))
    torch.testing.assert_close(value, expected)


def test_the_decoder_sees_the_labels_capsule_alone() -> None:
    net, labels = build(in_channels=2), torch.tensor([4, 7])
    capsules = random(2, 10, 16).float().requires_grad_()
    drawn = net.reconstruct(capsules, labels)
    assert drawn.shape == (2, 2, 28, 28) and drawn.min() >= 0 and drawn.max() <= 1
    drawn.sum().backward()
    assert capsules.grad is not None
    assert capsules.grad.abs().sum(2).nonzero().tolist() == [[0, 4], [1, 7]]


def test_every_parameter_learns_from_the_loss() -> None:
    net = build()
    value, _ = loss(net, images(2), torch.tensor([3, 8]))
    value.backward()
    assert value.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def truncated(weight: Tensor, variance: float) -> None:
    """A normal with this variance, cut at two standard deviations of the uncut one."""
    bound = 2 * math.sqrt(variance) / 0.87962566103423978
    assert weight.abs().max().item() <= bound * (1 + 1e-6)
    assert weight.abs().max().item() > 0.9 * bound
    assert weight.var().item() == pytest.approx(variance, rel=5 / math.sqrt(weight.numel()))  # about 4 deviations


def test_initial_weights_are_keras_s() -> None:
    net = build()
    fans = {"features.0.0": 25, "features.1.0": 288, "features.2.0": 576, "features.3.0": 576}
    fans |= {"decoder.0": 160, "decoder.2": 512}
    for name, fan_in in fans.items():
        truncated(net.get_parameter(f"{name}.weight"), 2 / fan_in)
    truncated(net.weight, 2 / 1280)
    truncated(net.get_parameter("decoder.4.weight"), 2 / (1024 + 784))
    primary = net.primary.weight
    assert 0.0239 < primary.abs().max().item() < math.sqrt(6 / (81 + 10_368)) + 1e-6
    assert primary.var().item() == pytest.approx(2 / (81 + 10_368), rel=0.05)  # limit^2 / 3
    assert not any(value.any() for name, value in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 10), (3, 7)])
def test_shapes_layouts_and_copies(in_channels: int, num_classes: int) -> None:
    net, x = build(in_channels=in_channels, num_classes=num_classes).eval(), images(2, channels=in_channels)
    expected = net(x)
    assert expected.shape == (2, num_classes) and net(x[:1]).shape == (1, num_classes)
    assert net.capsules(x).shape == (2, num_classes, 16)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(last(x.contiguous(memory_format=torch.channels_last)), expected)
    other = build(in_channels=in_channels, num_classes=num_classes, seed=1).eval()
    assert not torch.equal(other(x), expected)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x), expected)


@pytest.mark.parametrize("size", [27, 29, 32])
def test_other_images_are_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="28 x 28"):
        efficient_capsnet(in_channels=1, num_classes=10, image_size=size)
    with pytest.raises(ValueError, match="28, 28") as caught:
        build()(torch.zeros(1, 1, size, size))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_twenty_steps_on_one_batch_learn_it() -> None:
    net, x, labels = build(), images(16), torch.arange(16) % 10
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
    values = []
    for _ in range(21):
        value, _ = loss(net, x, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[20] < 0.8 * values[0]
