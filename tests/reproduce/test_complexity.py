"""The formulas against published counts, against the networks as built, and against multiply-adds as they happen."""

from __future__ import annotations

import inspect
from math import prod
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.dcn import DCN
from baselines.flexconv import FlexConv2d
from baselines.kernel_network import KernelNetwork
from reproduce import experiments, plan
from reproduce.complexity import Complexity, complexity
from reproduce.formulas import FORMULAS
from reproduce.layers import DCN_EVALUATIONS, conv, flex_size, odd, sampled, time_dependent
from reproduce.networks import OTHERS
from reproduce.run import models
from reproduce.specs import DATASETS, ModelSpec, Protocol
from tests.reproduce.hall_samples import spec_of

torch.set_num_threads(1)

FLEXNET16: dict[str, Any] = {"blocks": 7, "width": 24}
# Parameters as their authors print or as their code counts them, and layers as the networks' names count them.
PUBLISHED: list[tuple[str, dict[str, Any], str, int, int]] = [
    ("cifar_resnet", {"depth": 44}, "cifar10", 658_586, 44),
    ("cifar_resnet", {"depth": 32}, "imagenet32", 528_504, 32),
    ("wide_resnet", {"depth": 28, "widen_factor": 1}, "cifar10", 369_498, 28),
    ("flexnet", {"blocks": 3, "width": 24}, "cifar10", 277_090, 8),
    ("flexnet", {"blocks": 5, "width": 22}, "cifar10", 454_046, 12),
    ("flexnet", {"blocks": 5, "width": 22}, "imagenet32", 498_596, 12),
    ("flexnet", FLEXNET16, "cifar10", 671_650, 16),
    ("flexnet", FLEXNET16, "mnist", 670_066, 16),
    ("flexnet", FLEXNET16, "stl10", 671_650, 16),
    ("flexnet", FLEXNET16 | {"kernel_net": "gabor"}, "cifar10", 669_730, 16),
    ("flexnet", FLEXNET16 | {"kernel_net": "fourier"}, "cifar10", 663_970, 16),
    ("flexnet", FLEXNET16 | {"kernel_net": "siren"}, "cifar10", 627_970, 16),
    ("flexnet", FLEXNET16 | {"layer": "ckconv", "kernel_net": "siren"}, "cifar10", 627_910, 16),
    ("flexnet", FLEXNET16 | {"layer": "ckconv", "kernel_net": "magnet"}, "cifar10", 671_590, 16),
    ("ckcnn7", {}, "cifar10", 691_146, 7),
    ("flex_resnet", {"depth": 44, "layer": "ckconv", "horizon": 3}, "cifar10", 2_580_970, 44),
    ("flex_resnet", {"depth": 44, "layer": "flexconv"}, "cifar10", 2_581_142, 44),
    ("njet_resnet", {"depth": 32, "order": 3}, "cifar10", 515_433, 32),
    ("njet_nin", {"order": 1}, "cifar10", 329_047, 9),
    ("njet_nin", {"order": 4}, "cifar10", 999_511, 9),
    ("njet_all_cnn", {"order": 2}, "cifar10", 660_314, 7),
    ("dcn", {}, "cifar10", 472_202, 10),
    ("nin", {}, "mnist", 349_674, 9),
    ("vgg5", {}, "mnist", 3_646_154, 12),
    ("vgg5", {"head": "spinal"}, "mnist", 3_629_770, 15),
    ("all_cnn", {}, "cifar10", 1_369_738, 9),
    ("resnet18", {}, "stl10", 11_181_642, 18),
    ("efficient_capsnet", {}, "mnist", 161_824, 6),
]


@pytest.mark.parametrize(("family", "arguments", "dataset", "total", "layers"), PUBLISHED)
def test_published_counts(family: str, arguments: dict[str, Any], dataset: str, total: int, layers: int) -> None:
    counts = counted(family, dataset, **arguments)
    assert (counts.total, counts.layers) == (total, layers)


def counted(family: str, dataset: str, **arguments: Any) -> Complexity:
    return complexity(ModelSpec(family=family, args=arguments), dataset)


def networks() -> list[tuple[ModelSpec, str]]:
    """Every network of Tables 1-4 with its data set, controls and networks without a row included, each once."""
    found = [
        (row.spec.model, row.spec.data.name)
        for table in experiments.EXPERIMENTS[:4]
        for row in experiments.rows(table, Protocol(base="paper"))
    ]
    found += [(model, dataset) for dataset, model in OTHERS.values()]  # type: ignore[misc]
    return [one for index, one in enumerate(found) if one not in found[:index]]


def title(value: Any) -> str:
    return " ".join(map(str, [value.family, *value.args.values()])) if isinstance(value, ModelSpec) else value


class Seen(TorchDispatchMode):
    """What passes through while it is on: `spatial`, the weights of each kernel of an ungrouped convolution larger
    than 1 x 1; `macs` of all convolutions and of linear layers with a bias, for a batch of one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spatial: list[int] = []
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            kernel, groups = args[1], args[8]
            self.macs += kernel.numel() * prod(out.shape[2:])
            if groups == 1 and kernel.shape[-1] > 1:
                self.spatial.append(kernel.numel())
        elif func is torch.ops.aten.addmm.default:
            self.macs += args[2].numel()
        return out


def seen(network: nn.Module, dataset: str) -> Seen:
    """One forward pass of one image. Generated kernels are made beforehand, and never go by FFT."""
    facts = DATASETS[dataset]
    image, kernels = torch.zeros(1, facts.in_channels, facts.image_size, facts.image_size), []
    if isinstance(network, KernelNetwork):
        network.use("direct")
        kernels = [[kernel.to("meta") for kernel in network.kernels()]]
        network, image = network.to("meta"), image.to("meta")  # shapes alone: 33 x 33 kernels take long
    with torch.no_grad(), Seen() as found:
        network(image, *kernels)
    return found


@pytest.mark.parametrize(("spec", "dataset"), networks(), ids=title)
def test_the_formulas_agree_with_the_networks(spec: ModelSpec, dataset: str) -> None:
    network, counts = models.build(spec, dataset, 0).eval(), complexity(spec, dataset)
    assert counts.total == models.total_count(network, spec)
    if spec.family == "dcn":  # its solver passes several times: see below
        return
    assert models.eq3_count(network, spec) in (None, counts.eq3)
    found = seen(network, dataset)
    capsules = 16 * 8 * 10 * 16 if spec.family == "efficient_capsnet" else 0  # a linear map for each pair, no layer
    assert (counts.eq3, counts.macs) == (sum(found.spatial[1:]), found.macs + capsules)


def test_multiply_adds_of_dcn() -> None:
    """The layers of the blocks once for each evaluation, the others once."""
    network = models.build(ModelSpec(family="dcn"), "cifar10", 0)
    assert isinstance(network, DCN)
    sides: dict[int, int] = {}
    for block in network.blocks:
        block.register_forward_hook(lambda _block, _inputs, out: sides.update({out.shape[1]: out.shape[2]}))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert sides == {32: 30, 64: 15, 128: 7}
    evaluation = sum(2 * 49 * (width + 1) * width * side**2 for width, side in sides.items())
    others = 27 * 32 * 30**2 + 16 * 32 * 64 * 15**2 + 16 * 64 * 128 * 7**2 + 128 * 10
    counts = counted("dcn", "cifar10")
    assert counts.macs == others + DCN_EVALUATIONS * evaluation
    assert counts.eq3 == sum(2 * 49 * (width + 1) * width for width in sides) + 16 * 32 * 64 + 16 * 64 * 128
    assert counts.passes == 4 + 6 * DCN_EVALUATIONS
    assert network.nfe >= 3 * DCN_EVALUATIONS  # documented as 26 to 32 at random weights


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formulas_take_what_the_builders_take(name: str) -> None:
    given = {"in_channels", "num_classes", "image_size", "kernel_sizes"}
    builder = inspect.signature(models.FAMILIES[name].build).parameters
    formula = inspect.signature(FORMULAS[name]).parameters
    assert set(formula) - {"c_in", "side", "classes"} == set(builder) - given
    for argument in set(formula) & set(builder):
        defaults = formula[argument].default, builder[argument].default
        assert defaults[0] == defaults[1] or inspect.Parameter.empty in defaults, argument


def test_every_family_has_a_formula() -> None:
    assert set(FORMULAS) == set(models.FAMILIES)
    with pytest.raises(KeyError):
        counted("lenet", "mnist")


@pytest.mark.parametrize(("side", "size"), [(16, 3), (28, 5), (32, 5), (96, 15)])
def test_first_sizes_of_flexconv(side: int, size: int) -> None:
    assert flex_size(odd(side)) == size


def test_first_sizes_are_those_of_the_layers() -> None:
    for horizon in range(3, 130, 2):
        layer = FlexConv2d(1, 1, horizon=horizon)
        assert layer.kernel_size() == (flex_size(horizon), flex_size(horizon)), horizon


def test_time_goes_by_less_than_the_products_of_large_kernels_and_by_more_than_those_of_a_solver() -> None:
    assert time_dependent(32, 30).work == 2 * time_dependent(32, 30).macs
    by_fft = [sampled(8, 8, 32, layer="ckconv", kernel_net="siren", horizon=size) for size in (5, 15, 33)]
    assert all(layer.is_by_fft and layer.work < layer.macs for layer in by_fft)
    assert [layer.work for layer in by_fft] == [16 * side**2 * 8 * 8 for side in (34, 39, 48)]
    for layer in (conv(8, 8, 32, 5), sampled(8, 8, 32, layer="ckconv", kernel_net="siren", horizon=3)):
        assert not layer.is_by_fft and layer.work == layer.macs


def test_budgets_of_wider_networks() -> None:
    counts = counted("cifar_resnet", "cifar10", depth=20, widths=[24, 48, 96])
    assert counts.eq3 == 267_264 * 9 // 4
    assert counts.eq3_range == (66_816, 3_273_984)


def test_estimates_of_the_baselines() -> None:
    """Tables 1-4 under `tiny` are minutes on one thread; a solver and large kernels cost more than plain layers."""
    tiny = Protocol(base="tiny")
    specs = [row.spec for table in experiments.EXPERIMENTS[:4] for row in experiments.rows(table, tiny)]
    assert sum(plan.seconds(spec, "cpu") for spec in specs) < 15 * 60
    for device in ("cpu", "cuda"):
        plain, flexnet, ckcnn, dcn = (
            plan.seconds(spec_of(name, protocol="quick"), device) / spec_of(name, protocol="quick").training.epochs
            for name in ("CIFARResNet-44", "FlexNet-16", "CKCNN-16", "DCN-sigma^ji")
        )
        assert plain < flexnet < ckcnn < 5 * flexnet
        assert dcn > 5 * flexnet
