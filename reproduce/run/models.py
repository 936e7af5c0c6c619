"""Spec -> network: the families that can be built, how each draws its weights, and which convolutions are residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from baselines import (
    all_cnn,
    capsnet,
    ckcnn7,
    dcn,
    flex_resnet,
    flexnet,
    nin,
    njet_all_cnn,
    njet_nin,
    njet_resnet,
    resnet,
    resnet18,
    vgg5,
    wide_resnet,
)
from reproduce.errors import UserError
from reproduce.specs import DATASETS, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Family:
    """`build` takes the spec's arguments, in_channels, num_classes and, if `sized`, image_size.

    A family whose kernel sizes can be learned also takes kernel_sizes; `init`, for `Module.apply`, draws its weights.
    """

    build: Callable[..., nn.Module]
    sized: bool = True
    init: Callable[[nn.Module], None] | None = None
    residual: tuple[str, ...] = ()  # last parts of the names of the residual convolutions' slots
    uncounted: tuple[str, ...] = ()  # submodules outside `total_count`


FAMILIES: dict[str, Family] = {
    "cifar_resnet": Family(
        build=resnet.cifar_resnet, sized=False, init=resnet.init_weights, residual=("conv1", "conv2")
    ),
    "wide_resnet": Family(
        build=wide_resnet.wide_resnet, sized=False, init=wide_resnet.init_weights, residual=("conv1", "conv2")
    ),
    "flexnet": Family(build=flexnet.flexnet),
    "flex_resnet": Family(build=flex_resnet.flex_resnet),
    "ckcnn7": Family(build=ckcnn7.ckcnn7),
    "njet_resnet": Family(build=njet_resnet.njet_resnet),
    "njet_all_cnn": Family(build=njet_all_cnn.njet_all_cnn),
    "njet_nin": Family(build=njet_nin.njet_nin),
    "dcn": Family(build=dcn.dcn),
    "nin": Family(build=nin.nin),
    "vgg5": Family(build=vgg5.vgg5),
    "all_cnn": Family(build=all_cnn.all_cnn_c),
    "resnet18": Family(build=resnet18.resnet18),
    "efficient_capsnet": Family(build=capsnet.efficient_capsnet, uncounted=("decoder",)),
}


def family(spec: ModelSpec) -> Family:
    if spec.family not in FAMILIES:
        raise UserError(f"no model family is named {spec.family!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[spec.family]


def build(spec: ModelSpec, dataset: str, seed: int, *, kernel_sizes: Sequence[int] | None = None) -> nn.Module:
    """The network of a spec for a data set, on the CPU, its weights drawn from `seed`. Leaves torch's generator.

    Raises `UserError` if the network cannot take the data set's images.
    """
    facts, kind = DATASETS[dataset], family(spec)
    arguments: dict[str, Any] = dict(spec.args)
    if kernel_sizes is not None:
        arguments["kernel_sizes"] = list(kernel_sizes)
    if kind.sized:
        arguments["image_size"] = facts.image_size
    try:
        with seeded(seed):
            return kind.build(in_channels=facts.in_channels, num_classes=facts.num_classes, **arguments)
    except ValueError as error:
        raise UserError(f"{spec.family} on {facts.title}: {error}") from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator starts at `seed`; afterwards it is what it was."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def residual_convs(model: nn.Module, spec: ModelSpec) -> dict[str, nn.Conv2d]:
    """The residual convolutions in forward order: the slot's name (as in `KernelSizes.sizes`) -> the convolution in it.

    The slot holds the convolution itself or, for an even size, a padding and the convolution. The stem and the
    shortcuts' projections are none.
    """
    found: dict[str, nn.Conv2d] = {}
    for name, module in model.named_modules():
        if "." in name and name.rsplit(".", 1)[1] in family(spec).residual:
            found[name] = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    return found


def eq3_count(model: nn.Module, spec: ModelSpec) -> int | None:
    """Eq. 3: the weights of the residual convolutions; None for a network that has none."""
    convs = residual_convs(model, spec)
    return sum(conv.weight.numel() for conv in convs.values()) if convs else None


def total_count(model: nn.Module, spec: ModelSpec) -> int:
    """All trainable parameters, without those that only serve training (the capsules' decoder)."""
    left_out = tuple(f"{name}." for name in family(spec).uncounted)
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(left_out)
    )


def kernel_sizes(model: nn.Module) -> dict[str, list[int]] | None:
    """Where a baseline learns its kernel sizes: layer -> [height, width] as they now are; else None."""
    if not hasattr(model, "kernel_sizes"):
        return None
    return {name: list(size) for name, size in model.kernel_sizes().items()}  # type: ignore[operator]
