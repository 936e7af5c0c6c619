"""Spec -> network: the families that can be built, how each draws its weights, and which convolutions are residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from baselines import resnet, wide_resnet
from reproduce.errors import UserError
from reproduce.specs import DATASETS, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Family:
    """`build` takes the spec's arguments, in_channels, num_classes and kernel_sizes; `init` is for `Module.apply`."""

    build: Callable[..., nn.Module]
    init: Callable[[nn.Module], None]
    residual: tuple[str, ...]  # last parts of the names of the residual convolutions' slots


FAMILIES: dict[str, Family] = {
    "cifar_resnet": Family(build=resnet.cifar_resnet, init=resnet.init_weights, residual=("conv1", "conv2")),
    "wide_resnet": Family(build=wide_resnet.wide_resnet, init=wide_resnet.init_weights, residual=("conv1", "conv2")),
}


def family(spec: ModelSpec) -> Family:
    if spec.family not in FAMILIES:
        raise UserError(f"no model family is named {spec.family!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[spec.family]


def build(spec: ModelSpec, dataset: str, seed: int, *, kernel_sizes: Sequence[int] | None = None) -> nn.Module:
    """The network of a spec for a data set, on the CPU, its weights drawn from `seed`. Leaves torch's generator."""
    facts = DATASETS[dataset]
    arguments: dict[str, Any] = dict(spec.args)
    if kernel_sizes is not None:
        arguments["kernel_sizes"] = list(kernel_sizes)
    with seeded(seed):
        return family(spec).build(in_channels=facts.in_channels, num_classes=facts.num_classes, **arguments)


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


def eq3_count(model: nn.Module, spec: ModelSpec) -> int:
    """Eq. 3: the weights of the residual convolutions."""
    return sum(conv.weight.numel() for conv in residual_convs(model, spec).values())


def total_count(model: nn.Module) -> int:
    """All trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
