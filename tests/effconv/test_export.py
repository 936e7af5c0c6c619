"""The network for given sizes is an ordinary one: it can be saved, traced, compiled and exported."""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baselines.resnet import cifar_resnet
from effconv import learn_kernel_sizes, resize
from tests.effconv.helpers import TINY_BUDGET, TinyNet, UserCNN, random_batches


def _resized_resnet() -> nn.Module:
    names = [f"layer{stage}.0.conv{index}" for stage in (1, 2, 3) for index in (1, 2)]
    return resize(cifar_resnet(8), dict(zip(names, (2, 7, 4, 1, 6, 5), strict=True)))


def _learned() -> nn.Module:
    return learn_kernel_sizes(TinyNet(), random_batches(), budget=TINY_BUDGET, epochs=1).build()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "learned": _learned,
    "even": lambda: resize(TinyNet(), {"first": 4, "second": 2}, padding="alternate"),
    "cropped": lambda: resize(UserCNN(), {"plain": 2, "strided": 7, "shared": 6, "unpadded": 2}),
    "resnet": _resized_resnet,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 17, 16, generator=torch.Generator().manual_seed(1))


def test_it_consists_of_torchs_own_modules(network: nn.Module) -> None:
    own = {type(module) for module in network.modules() if type(module).__module__.startswith("effconv")}
    assert not own
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in network.parameters())


def test_it_trains(network: nn.Module, images: Tensor) -> None:
    network.train()(images).square().sum().backward()
    used = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert {name for name, _ in network.named_parameters()} - set(used) <= {"spare.weight", "spare.bias"}


def test_weights_and_whole_network_can_be_saved(network: nn.Module, images: Tensor) -> None:
    expected = network(images)
    whole, weights = io.BytesIO(), io.BytesIO()
    torch.save(network, whole)
    torch.save(network.state_dict(), weights)
    whole.seek(0)
    weights.seek(0)
    assert torch.equal(torch.load(whole, weights_only=False)(images), expected)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    network.load_state_dict(torch.load(weights, weights_only=True))
    assert torch.equal(network(images), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning", "ignore:`torch.jit.trace:DeprecationWarning")
def test_it_can_be_traced(network: nn.Module, images: Tensor) -> None:
    traced = torch.jit.trace(network, images)
    for other in (images, images.flip(0)[:1], torch.randn(2, 3, 20, 13)):
        torch.testing.assert_close(traced(other), network(other))


def test_it_can_be_exported_to_onnx(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, which torch.onnx needs, is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its dependencies
        torch.onnx.export(network, (images,), tmp_path / "network.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), network(images).detach(), atol=1e-4, rtol=1e-4)


def test_it_can_be_compiled(images: Tensor) -> None:
    """Without generating code; in one graph, as `fullgraph` demands."""
    for name in NETWORKS:
        torch.manual_seed(0)
        network = NETWORKS[name]().eval()
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), network(images))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["cropped", "resnet"], indirect=True)
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler")
def test_it_can_be_compiled_with_inductor(network: nn.Module, images: Tensor) -> None:
    compiled = torch.compile(network, backend="inductor", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images), atol=1e-4, rtol=1e-4)
