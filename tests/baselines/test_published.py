"""`load_published` against a slow float64 evaluation of a state dict in the authors' layout, straight from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.flexnet import FlexNet, load_published, published_state
from baselines.published_layout import own_name, published_name

State = dict[str, Tensor]

KERNEL_NETS = ("magnet", "gabor", "fourier", "siren")
HORIZON = 9
CONSTANTS = ("train_length", "temperature", "mask_threshold", "omega_0")


def layer_state(name: str, c_in: int, c_out: int, *, kernel_net: str, masked: bool, hidden: int) -> State:
    state = {"bias": torch.randn(c_out), "train_length": torch.tensor([HORIZON], dtype=torch.int32)}
    if masked:
        sigma = 0.1 + 0.4 * torch.rand(2)
        state["mask_params"] = torch.stack([0.1 * torch.randn(2), sigma], 1)  # rows: (mean, sigma) of an axis
        state |= {"temperature": torch.tensor([15.0]), "mask_threshold": torch.tensor([0.1])}
    if kernel_net == "siren":
        for i, (n_out, n_in) in enumerate([(hidden, 2), (hidden, hidden), (c_in * c_out, hidden)]):
            state[f"Kernel.kernel_net.{2 * i}.weight"] = torch.randn(n_out, n_in, 1, 1) / 3
            state[f"Kernel.kernel_net.{2 * i}.bias"] = torch.randn(n_out)
            if i < 2:
                state[f"Kernel.kernel_net.{2 * i}.omega_0"] = torch.tensor([3.0 + i])
        return {f"{name}.{key}": value for key, value in state.items()}
    for i in range(4):
        if kernel_net != "fourier":
            state[f"Kernel.filters.{i}.mu"] = torch.randn(hidden, 2) / 2
            state[f"Kernel.filters.{i}.gamma"] = 1 + torch.rand(hidden, 2 if kernel_net == "magnet" else 1)
        state[f"Kernel.filters.{i}.linear.weight"] = 3 * torch.randn(hidden, 2, 1, 1)
        state[f"Kernel.filters.{i}.linear.bias"] = torch.randn(hidden)
    for i in range(3):
        state[f"Kernel.linear.{i}.weight"] = torch.randn(hidden, hidden, 1, 1) / hidden**0.5
        state[f"Kernel.linear.{i}.bias"] = torch.randn(hidden)
    state["Kernel.output_linear.weight"] = torch.randn(c_in * c_out, hidden, 1, 1) / 9
    state["Kernel.output_linear.bias"] = torch.randn(c_in * c_out) / 9
    return {f"{name}.{key}": value for key, value in state.items()}


def batch_norm_state(name: str, width: int) -> State:
    state = {"weight": 1 + torch.rand(width), "bias": torch.randn(width), "running_mean": torch.randn(width)}
    state |= {"running_var": 1 + torch.rand(width), "num_batches_tracked": torch.tensor(7)}
    return {f"{name}.{key}": value for key, value in state.items()}


def network_state(
    *,
    kernel_net: str = "magnet",
    masked: bool = True,
    hidden: int = 5,
    in_channels: int = 2,
    stem: int = 3,
    widths: tuple[int, ...] = (3, 4),
    classes: int = 6,
) -> State:
    settings: dict[str, Any] = {"kernel_net": kernel_net, "masked": masked, "hidden": hidden}
    state = layer_state("cconv1", in_channels, stem, **settings) | batch_norm_state("norm1", stem)
    for i, (c_in, c_out) in enumerate(zip((stem, *widths), widths, strict=False)):
        block = f"blocks.{i}"
        state |= layer_state(f"{block}.cconv1", c_in, c_out, **settings)
        state |= layer_state(f"{block}.cconv2", c_out, c_out, **settings)
        state |= batch_norm_state(f"{block}.norm1", c_out) | batch_norm_state(f"{block}.norm2", c_out)
        if c_in != c_out:
            state[f"{block}.shortcut.0.weight"] = torch.randn(c_out, c_in, 1, 1)
            state[f"{block}.shortcut.0.bias"] = torch.randn(c_out)
    state |= {"out_layer.weight": torch.randn(classes, widths[-1], 1, 1), "out_layer.bias": torch.randn(classes)}
    return {key: value.double() if value.is_floating_point() else value for key, value in state.items()}


def kept(mean: float, sigma: float) -> list[float]:
    """The positions of an axis that the crop keeps."""
    positions = torch.linspace(-1, 1, HORIZON).double().tolist()
    r = max(abs(mean + s * sigma * math.sqrt(-2 * math.log(0.1))) for s in (-1, 1))
    return positions if r >= 1 else [p for p in positions if abs(p) < r]


def kernel_at(p: Tensor, get: Callable[[str], Tensor], *, kernel_net: str) -> Tensor:
    """All channel pairs' weights at the positions p (2, P) -> (pairs, P)."""

    def linear(name: str, z: Tensor) -> Tensor:
        return get(f"{name}.weight")[:, :, 0, 0] @ z + get(f"{name}.bias")[:, None]

    if kernel_net == "siren":
        h = torch.sin(get("kernel_net.0.omega_0") * linear("kernel_net.0", p))
        h = torch.sin(get("kernel_net.2.omega_0") * linear("kernel_net.2", h))
        return linear("kernel_net.4", h)

    def g(i: int) -> Tensor:
        sine = torch.sin(linear(f"filters.{i}.linear", p))
        if kernel_net == "fourier":
            return sine
        u = get(f"filters.{i}.gamma")[:, :, None] * (p - get(f"filters.{i}.mu")[:, :, None])
        return torch.exp(-(u**2).sum(1) / 2) * sine

    z = g(0)
    for i in range(3):
        z = g(i + 1) * linear(f"linear.{i}", z)
    return linear("output_linear", z)


def convolved(state: State, name: str, x: Tensor, *, kernel_net: str) -> Tensor:
    bias, mask = state[f"{name}.bias"], state.get(f"{name}.mask_params")
    rows, columns = [kept(*m.tolist()) for m in mask] if mask is not None else [kept(0.0, 9.0)] * 2
    p = torch.tensor([[row, column] for row in rows for column in columns], dtype=torch.float64).T
    kernel = kernel_at(p, lambda key: state[f"{name}.Kernel.{key}"], kernel_net=kernel_net)
    if mask is not None:
        kernel = kernel * torch.exp(-(((p - mask[:, :1]) / mask[:, 1:]) ** 2).sum(0) / 2)
    shape = (len(bias), x.shape[1], len(rows), len(columns))
    return F.conv2d(x, kernel.view(shape), bias, padding=(len(rows) // 2, len(columns) // 2))


def normalised(state: State, name: str, x: Tensor, *, training: bool) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    y = (x - mean.view(-1, 1, 1)) / torch.sqrt(var.view(-1, 1, 1) + 1e-5)
    return y * state[f"{name}.weight"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)


def reference(state: State, x: Tensor, *, kernel_net: str, training: bool) -> Tensor:
    """The authors' logits."""

    def layer(block: str, i: int, x: Tensor) -> Tensor:
        y = convolved(state, f"{block}cconv{i}", x, kernel_net=kernel_net)
        return normalised(state, f"{block}norm{i}", y, training=training)

    x = torch.relu(layer("", 1, x))
    for i in range(1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))):
        block = f"blocks.{i}."
        y = layer(block, 2, torch.relu(layer(block, 1, x)))
        if f"{block}shortcut.0.weight" in state:
            x = F.conv2d(x, state[f"{block}shortcut.0.weight"], state[f"{block}shortcut.0.bias"])
        x = torch.relu(y + x)
    return x.mean((2, 3)) @ state["out_layer.weight"][:, :, 0, 0].T + state["out_layer.bias"]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kernel_net", KERNEL_NETS)
def test_logits_and_gradients_are_those_of_the_layout(kernel_net: str, masked: bool) -> None:
    state = network_state(kernel_net=kernel_net, masked=masked)
    x = torch.randn(3, 2, 6, 7, dtype=torch.float64)
    net = load_published(state)
    expected = reference(state, x, kernel_net=kernel_net, training=False)
    torch.testing.assert_close(net.eval()(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net(x[:1]), expected[:1], rtol=1e-9, atol=1e-9)

    trained = [key for key, value in state.items() if value.is_floating_point() and "running" not in key]
    trained = [key for key in trained if not key.endswith(CONSTANTS)]
    leaves = state | {key: state[key].clone().requires_grad_() for key in trained}
    reference(leaves, x, kernel_net=kernel_net, training=True).square().sum().backward()
    net.train()(x).square().sum().backward()
    found = {published_name(name, kernel_net): parameter for name, parameter in net.named_parameters()}
    assert sorted(found) == sorted(trained)
    for key in trained:
        assert found[key].shape == state[key].shape
        torch.testing.assert_close(found[key].grad, leaves[key].grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kernel_net", KERNEL_NETS)
def test_round_trip(kernel_net: str, masked: bool) -> None:
    state = network_state(
        kernel_net=kernel_net, masked=masked, hidden=7, in_channels=1, stem=2, widths=(3, 3, 2, 2), classes=4
    )
    net = load_published(state, dropout=0.25)
    found = published_state(net)
    parameters = {published_name(name, kernel_net) for name, _ in net.named_parameters()}
    assert sorted(found) == sorted(state)
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-7, check_dtype=key in parameters)
        assert published_name(own_name(key, kernel_net), kernel_net) == key
    assert [block.dropout.p for block in net.blocks] == [0.25] * 4  # type: ignore[union-attr]


def test_a_float32_dict_gives_a_float32_network_that_shares_no_memory_with_it() -> None:
    state = {key: value.float() if value.is_floating_point() else value for key, value in network_state().items()}
    kept_back = {key: value.clone() for key, value in state.items()}
    net = load_published(state)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert all(torch.equal(state[key], kept_back[key]) for key in state)


def test_a_mask_at_one_position_stays_there_as_the_authors_does() -> None:
    state = network_state()
    state["cconv1.mask_params"] = torch.tensor([[0.0, 0.01], [0.0, 0.01]]).double()
    net = load_published(state)
    assert net.kernel_sizes()["conv1"] == (1, 1)
    net(torch.randn(2, 2, 6, 6, dtype=torch.float64)).sum().backward()
    gradient = net.get_parameter("conv1.mask_params").grad
    assert gradient is not None and not gradient.any()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_wrapped_dicts(wrap: Callable[[State], dict[str, Any]]) -> None:
    state = network_state()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    assert torch.equal(load_published(wrap(state)).eval()(x), load_published(state).eval()(x))


def complaint(state: Any, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        load_published(state, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kernel_net", KERNEL_NETS)
def test_each_missing_or_misshapen_key_is_named_with_what_was_expected(kernel_net: str) -> None:
    state = network_state(kernel_net=kernel_net, widths=(4,))
    for key, value in state.items():
        shape = f"({', '.join(map(str, value.shape))}{',' if value.ndim == 1 else ''})"
        found = complaint({other: tensor for other, tensor in state.items() if other != key})
        assert found.startswith(f"{key} is missing") and shape in found
        if key == "out_layer.weight":
            continue  # alone with its bias in knowing the classes
        for wrong in (value.new_zeros((*value.shape[:-1], value.shape[-1] + 1) if value.ndim else (1,)), value[None]):
            found = complaint(state | {key: wrong})
            assert found.startswith(f"{key} has shape {tuple(wrong.shape)}") and shape in found
    assert "out_layer.weight" in complaint(state | {"out_layer.weight": torch.zeros(7, 4, 1, 1).double()})


def test_of_several_wrong_keys_the_first_is_named() -> None:
    state = network_state()
    state["norm1.extra"] = state.pop("blocks.0.norm2.weight")
    state["blocks.1.norm1.bias"] = torch.zeros(9).double()
    assert complaint(state).startswith("blocks.0.norm2.weight is missing")


def test_surplus_keys_are_named() -> None:
    state = network_state()
    assert complaint(state | {"blocks.0.shortcut.0.bias": torch.zeros(3)}).startswith("blocks.0.shortcut.0.bias is sur")
    assert complaint(state | {"cconv1.Kernel.other": torch.zeros(3)}).startswith("cconv1.Kernel.other is surplus")


@pytest.mark.parametrize("wrong", [{}, {"a": torch.zeros(3)}, {"blocks.1.norm1.bias": torch.zeros(3)}])
def test_other_dicts_miss_the_first_key(wrong: State) -> None:
    assert complaint(wrong).startswith("cconv1.bias is missing")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cconv1.bias": 3.0}, "'cconv1.bias' holds float"),
        ({3: torch.zeros(1)}, "3 holds Tensor"),
        ([1], "got list"),
        (torch.nn.ReLU(), "got ReLU"),
    ],
)
def test_anything_but_tensors_is_refused(wrong: Any, message: str) -> None:
    assert message in complaint(network_state() | wrong if isinstance(wrong, dict) else wrong)


def test_values_that_no_flexnet_has() -> None:
    state = network_state()
    assert "8: a positive odd" in complaint(state | {"cconv1.train_length": torch.tensor([8])})
    other = complaint(state | {"blocks.1.cconv2.train_length": torch.tensor([33])})
    assert other.startswith("blocks.1.cconv2.train_length is 33: 9 is expected")
    other = complaint(state | {"blocks.0.cconv1.mask_threshold": torch.tensor([0.2])})
    assert other.startswith("blocks.0.cconv1.mask_threshold is 0.2: 0.1 is expected")
    assert "integers are expected" in complaint(state | {"cconv1.train_length": torch.tensor([9.0])})
    assert "floating-point" in complaint(state | {"cconv1.bias": torch.tensor([1, 2, 3])})


def test_a_network_that_never_ran_needs_to_be_told_its_horizon() -> None:
    state = network_state()
    for key in state:
        if key.endswith("train_length"):
            state[key] = torch.zeros(1, dtype=torch.int32)
    assert "horizon=" in complaint(state)
    net = load_published(state, horizon=HORIZON)
    assert isinstance(net, FlexNet) and net.conv1.horizon == HORIZON
