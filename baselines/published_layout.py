"""The layout of the FlexConv authors' checkpoints: the keys, their shapes, and what they are called in `FlexNet`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Shape = tuple[int | str, ...]  # a string is the name of a size; `a*b` the product of two

CONSTANTS = ("train_length", "temperature", "mask_threshold")  # of a layer; nothing is trained in them

_NAMES = ((".cconv", ".conv"), (".shortcut.0.", ".shortcut."), (".out_layer.", ".head."))  # theirs, ours
_FILTER_NAMES = (
    (".Kernel.filters.", ".kernel_net.filters."),
    (".Kernel.linear.", ".kernel_net.linears."),
    (".Kernel.output_linear.", ".kernel_net.output."),
)
_SIREN_NAMES = tuple((f".Kernel.kernel_net.{2 * i}.", f".kernel_net.linears.{i}.") for i in range(3))


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What the keys of a state dict alone say."""

    kernel_net: str  # magnet, gabor, fourier or siren
    masked: bool  # FlexConv, else CKConv
    filters: int  # of a kernel net, one more than its hidden linear layers; 0 of a SIREN
    shortcuts: tuple[bool, ...]  # for each block, whether its shortcut has a convolution

    def __str__(self) -> str:
        layer = "FlexConv" if self.masked else "CKConv"
        return f"a network of {len(self.shortcuts)} blocks with {layer} layers and {self.kernel_net} kernels"


def own_name(key: str, kernel_net: str) -> str:
    """What a key of the published layout is called in `FlexNet`, for one of the four kinds of kernel networks."""
    return _renamed(key, _names(kernel_net))


def published_name(name: str, kernel_net: str) -> str:
    """The inverse of `own_name`."""
    return _renamed(name, [(ours, theirs) for theirs, ours in _names(kernel_net)])


def _names(kernel_net: str) -> tuple[tuple[str, str], ...]:
    return _NAMES + (_SIREN_NAMES if kernel_net == "siren" else _FILTER_NAMES)


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    name = f".{name}"
    for old, new in pairs:
        name = name.replace(old, new)
    return name[1:]


def shapes(structure: Structure) -> dict[str, Shape]:
    """Every key of the network, in the authors' order, with its shape; sizes that only the tensors know are named."""
    found = layer_shapes(structure, "cconv1", "in", "width 0") | _batch_norm("norm1", "width 0")
    for i, shortcut in enumerate(structure.shortcuts):
        c_in, c_out, block = f"width {i}", f"width {i + 1}", f"blocks.{i}"
        found |= layer_shapes(structure, f"{block}.cconv1", c_in, c_out)
        found |= layer_shapes(structure, f"{block}.cconv2", c_out, c_out)
        found |= _batch_norm(f"{block}.norm1", c_out) | _batch_norm(f"{block}.norm2", c_out)
        if shortcut:
            found |= _linear(f"{block}.shortcut.0", c_out, c_in)
    return found | _linear("out_layer", "classes", f"width {len(structure.shortcuts)}")


def layer_shapes(structure: Structure, name: str, c_in: str, c_out: str) -> dict[str, Shape]:
    """The keys of one FlexConv or CKConv layer."""
    found: dict[str, Shape] = {f"{name}.bias": (c_out,)}
    found |= {f"{name}.mask_params": (2, 2)} if structure.masked else {}
    found |= {f"{name}.train_length": (1,)}
    found |= {f"{name}.temperature": (1,), f"{name}.mask_threshold": (1,)} if structure.masked else {}
    kernel = _siren if structure.kernel_net == "siren" else _filter_net
    return found | kernel(structure, f"{name}.Kernel", f"{c_out}*{c_in}")


def _siren(structure: Structure, name: str, units: str) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    linears: list[Shape] = [("hidden", 2), ("hidden", "hidden"), (units, "hidden")]
    for i, (outputs, inputs) in enumerate(linears):
        found |= _linear(f"{name}.kernel_net.{2 * i}", outputs, inputs)
        if i < 2:
            found[f"{name}.kernel_net.{2 * i}.omega_0"] = (1,)
    return found


def _filter_net(structure: Structure, name: str, units: str) -> dict[str, Shape]:
    axes = {"magnet": 2, "gabor": 1}.get(structure.kernel_net)
    found: dict[str, Shape] = {}
    for i in range(structure.filters - 1):
        found |= _linear(f"{name}.linear.{i}", "hidden", "hidden")
    found |= _linear(f"{name}.output_linear", units, "hidden")
    for i in range(structure.filters):
        if axes is not None:
            found |= {f"{name}.filters.{i}.mu": ("hidden", 2), f"{name}.filters.{i}.gamma": ("hidden", axes)}
        found |= _linear(f"{name}.filters.{i}.linear", "hidden", 2)
    return found


def _linear(name: str, outputs: int | str, inputs: int | str) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, 1, 1), f"{name}.bias": (outputs,)}


def _batch_norm(name: str, width: str) -> dict[str, Shape]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (width,) for vector in vectors} | {f"{name}.num_batches_tracked": ()}
