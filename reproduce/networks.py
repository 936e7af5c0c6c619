"""What a row's name means: a network, and the budget or the widths that go with it. Plain data; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reproduce.naming import CONTROL, millions
from reproduce.specs import ModelSpec, Scalar
from reproduce.uniform import uniform_widths

DEPTH = 20  # of the network that the controls are of
CONTROL_RESNET20 = f"{CONTROL} ResNet-{DEPTH}"

Controlled = Literal["uniform", "random", "init-only", "shuffled"]
CONTROLS: tuple[Controlled, ...] = ("uniform", "random", "init-only", "shuffled")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, and the budget of its sizes if these are learned. `control` names what stands in for learning."""

    model: ModelSpec
    budget: int | None = None
    control: Controlled | None = None


def _model(family: str, **args: Scalar | list[int]) -> ModelSpec:
    return ModelSpec(family=family, args=dict(args))


def _resnet(depth: int) -> ModelSpec:
    return _model("cifar_resnet", depth=depth)


def _wide_resnet(depth: int, widen_factor: int) -> ModelSpec:
    return _model("wide_resnet", depth=depth, widen_factor=widen_factor)


# Rows whose name is that of one network. FlexNet-3 and -5 count blocks, the -16 of the others layers: seven blocks.
BASELINES: Mapping[str, ModelSpec] = {
    "Efficient-CapsNet": _model("efficient_capsnet"),
    "Net in Net": _model("nin"),
    "VGG-5": _model("vgg5", head="plain"),
    "N-JetNet-ALLCNN": _model("njet_all_cnn", order=2),
    "N-JetNet-CIFARResNet32": _model("njet_resnet", depth=32, order=3),
    "DCN-sigma^ji": _model("dcn"),
    "CKCNN-7": _model("ckcnn7"),
    "CKCNN-16": _model("flexnet", blocks=7, width=24, layer="ckconv", kernel_net="siren"),
    "CKCNN_MAGNet-16": _model("flexnet", blocks=7, width=24, layer="ckconv", kernel_net="magnet"),
    "FlexNet-3": _model("flexnet", blocks=3, width=24),
    "FlexNet-5": _model("flexnet", blocks=5, width=22),
    "FlexNet_Gabor-16": _model("flexnet", blocks=7, width=24, kernel_net="gabor"),
    "FlexNet-16": _model("flexnet", blocks=7, width=24),
    "CIFARResNet-44 w/ CKConv (k=3)": _model("flex_resnet", depth=44, layer="ckconv", horizon=3),
    "CIFARResNet-44 w/ FlexConv": _model("flex_resnet", depth=44, layer="flexconv"),
    "CIFARResNet-18": _model("resnet18"),  # torchvision's, not a CIFAR ResNet
}

# Networks without a row of their own that `reproduce models` lists too.
OTHERS: Mapping[str, tuple[str, ModelSpec]] = {
    "VGG-5 spinal": ("mnist", _model("vgg5", head="spinal")),
    "ALL-CNN-C": ("cifar10", _model("all_cnn")),
    "N-JetNet-NiN": ("cifar10", _model("njet_nin", order=2)),
}


def network(name: str) -> Network:
    """The network that a row's name means. Raises `KeyError` for a name that is none of a row."""
    if name in BASELINES:
        return Network(model=BASELINES[name])
    match = re.fullmatch(r"EffConv-(\d+) (\d+\.\d+)M", name)
    if match is not None:
        return Network(model=_resnet(int(match[1])), budget=_weights(match[2]))
    match = re.fullmatch(r"Wide-EffConv-(\d+)-(\d+) (\d+\.\d+)M", name)
    if match is not None:
        return Network(model=_wide_resnet(int(match[1]), int(match[2])), budget=_weights(match[3]))
    match = re.fullmatch(rf"{CONTROL} ([a-z-]+) (\d+\.\d+)M", name)
    if match is not None and match[1] in CONTROLS:
        return _control(match[1], _weights(match[2]))  # type: ignore[arg-type]
    match = re.fullmatch(rf"(?:CIFAR|{CONTROL} )ResNet-(\d+)", name)
    if match is not None:
        return Network(model=_resnet(int(match[1])))
    match = re.fullmatch(r"WRN-(\d+)-(\d+)", name)
    if match is not None:
        return Network(model=_wide_resnet(int(match[1]), int(match[2])))
    raise KeyError(f"no row is named {name!r}")


def control_names(budget: int) -> list[str]:
    """The rows below a table: the fixed network, then those of EffConv-20's budget."""
    return [CONTROL_RESNET20] + [f"{CONTROL} {kind} {millions(budget)}" for kind in CONTROLS]


def _control(kind: Controlled, budget: int) -> Network:
    """EffConv-20 with something else in the place of what it learns. R-33, R-34: what exactly."""
    if kind == "uniform":
        widths = list(uniform_widths(DEPTH, 3, budget))
        return Network(model=_model("cifar_resnet", depth=DEPTH, widths=widths), control=kind)
    return Network(model=_resnet(DEPTH), budget=budget, control=kind)


def _weights(text: str) -> int:
    return round(float(text) * 1e6)
