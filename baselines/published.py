"""Reading a state dict of the FlexConv authors: it holds no settings, but its keys and shapes tell them all.

Each size is found by the majority of the tensors that have it, so that one misshapen tensor is named and not believed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from baselines.published_layout import CONSTANTS, Shape, Structure, own_name, shapes

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")  # keys that a state dict may lie under
PREFIXES = ("module.", "model.", "net.")
DEEPEST = 10  # wrappers within each other
THRESHOLD = 0.1  # the authors' constant for the crop
INTEGERS = ("train_length", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network in the published layout. `stem` and `widths` are channels, `hidden` is the width of the kernel nets."""

    structure: Structure
    in_channels: int
    stem: int
    widths: tuple[int, ...]
    num_classes: int
    hidden: int
    horizon: int
    state: Mapping[str, Tensor] = field(repr=False)  # by `FlexNet`'s names


def read_published(state_dict: Mapping[str, Any], *, horizon: int | None = None) -> Plan:
    """The network of a state dict. `horizon` counts only where the dict does not tell it (the network never ran).

    Raises `ValueError`, one line, that names the first key that is missing, surplus or misshapen and what was expected.
    """
    tensors = unwrapped(state_dict)
    structure = structure_of(tensors)
    sizes = sizes_of(tensors, shapes(structure))
    changes = [sizes[f"width {i}"] != sizes[f"width {i + 1}"] for i in range(len(structure.shortcuts))]
    structure = replace(structure, shortcuts=tuple(changes))
    compare(tensors, {key: _resolved(shape, sizes) for key, shape in shapes(structure).items()}, str(structure))
    return Plan(
        structure=structure,
        in_channels=sizes["in"],
        stem=sizes["width 0"],
        widths=tuple(sizes[f"width {i + 1}"] for i in range(len(changes))),
        num_classes=sizes["classes"],
        hidden=sizes["hidden"],
        horizon=horizon_of_layers(tensors, horizon),
        state={
            own_name(key, structure.kernel_net): value
            for key, value in tensors.items()
            if key.rpartition(".")[-1] not in CONSTANTS
        },
    )


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, out of `{"state_dict": ...}` and the like, without a prefix that all names share."""
    for _ in range(DEEPEST):
        if not isinstance(state_dict, Mapping):
            raise ValueError(f"a state dict, which maps names to tensors, is expected; got {type(state_dict).__name__}")
        inner = next((key for key in WRAPPERS if isinstance(state_dict.get(key), Mapping)), None)
        if inner is None:
            break
        state_dict = state_dict[inner]
    else:  # one that lies in itself, say
        raise ValueError("a state dict, which maps names to tensors, is expected; got dicts within dicts alone")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{key!r} holds {type(value).__name__}: a state dict of names and tensors is expected")
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return dict(state_dict)


def structure_of(tensors: Mapping[str, Tensor]) -> Structure:
    """What the keys say; magnet and gabor differ by the axes of gamma, a majority of which decides."""
    siren = any(".Kernel.kernel_net." in key for key in tensors)
    axes = Counter(value.shape[-1] for key, value in tensors.items() if key.endswith(".gamma") and value.ndim)
    filtered = any(".Kernel.filters." in key for key in tensors)
    if siren or (filtered and not axes):
        kernel_net = "siren" if siren else "fourier"
    else:
        kernel_net = "gabor" if axes and axes.most_common(1)[0][0] == 1 else "magnet"
    blocks = 1 + _greatest(r"blocks\.(\d+)\.", tensors, at_least=0)
    filters = 0 if siren else 1 + _greatest(r".*\.Kernel\.filters\.(\d+)\.", tensors, at_least=1)
    if blocks * max(filters, 1) > len(tensors) + 100:  # a number in a name costs nothing, its network would
        raise ValueError(f"the names are of {blocks:,} blocks with {filters:,} filters: of too few tensors for these")
    return Structure(
        kernel_net=kernel_net,
        masked=any(key.endswith(".mask_params") for key in tensors),
        filters=filters,
        shortcuts=tuple(any(key.startswith(f"blocks.{i}.shortcut.") for key in tensors) for i in range(blocks)),
    )


def _greatest(pattern: str, keys: Iterable[str], *, at_least: int) -> int:
    return max([at_least, *(int(match[1]) for key in keys if (match := re.match(pattern, key)))])


def sizes_of(tensors: Mapping[str, Tensor], layout: Mapping[str, Shape]) -> dict[str, int]:
    """Each named size, by the majority of the tensors that have it and fit otherwise.

    Raises `ValueError` with the first key that needs a size which no tensor tells.
    """
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for key, shape in layout.items():
        found = tensors[key].shape if key in tensors else ()
        if len(found) == len(shape) and all(a == b for a, b in zip(shape, found, strict=True) if isinstance(a, int)):
            for name, size in zip(shape, found, strict=True):
                votes[str(name)][size] += 1
    sizes = {name: counter.most_common(1)[0][0] for name, counter in votes.items() if counter}
    for units in votes["width 0*in"].elements():
        if units % sizes.get("width 0", units + 1) == 0:
            sizes.setdefault("in", units // sizes["width 0"])
    for key, shape in layout.items():
        if any(sizes.get(part, 0) < 1 for size in shape if isinstance(size, str) for part in size.split("*")):
            raise ValueError(_complaint(key, tensors, shape))
    return sizes


def _resolved(shape: Shape, sizes: Mapping[str, int]) -> Shape:
    def size(name: str) -> int:
        first, _, second = name.partition("*")
        return sizes[first] * (sizes[second] if second else 1)

    return tuple(size(n) if isinstance(n, str) else n for n in shape)


def compare(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape], what: str) -> None:
    """Raises `ValueError` with the first key that is missing or misshapen; if there is none, the first one too many."""
    for key, shape in expected.items():
        if key not in tensors or tuple(tensors[key].shape) != shape:
            raise ValueError(_complaint(key, tensors, shape))
        if tensors[key].is_floating_point() == key.endswith(INTEGERS) or tensors[key].is_complex():
            kind = "integers" if key.endswith(INTEGERS) else "floating-point numbers"
            raise ValueError(f"{key} holds {tensors[key].dtype}: {kind} are expected")
    surplus = next((key for key in tensors if key not in expected), None)
    if surplus is not None:
        raise ValueError(f"{surplus} is surplus: {len(expected)} other keys are expected, those of {what}")


def _complaint(key: str, tensors: Mapping[str, Tensor], shape: Shape) -> str:
    expected = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
    if key not in tensors:
        return f"{key} is missing: a tensor of shape {expected} is expected"
    other = " by the shape of out_layer.weight" if key == "out_layer.bias" else ""  # nothing else knows the classes
    return f"{key} has shape {tuple(tensors[key].shape)}: {expected} is expected{other}"


def horizon_of_layers(tensors: Mapping[str, Tensor], told: int | None) -> int:
    """The horizon, which all layers share. Raises `ValueError` for a layer of another one, or of another threshold."""
    first = int(tensors["cconv1.train_length"])
    horizon = first or told
    if horizon is None:
        raise ValueError("cconv1.train_length is 0, as this network never ran: its horizon is expected as `horizon=`")
    if horizon < 1 or horizon % 2 == 0:
        raise ValueError(f"cconv1.train_length is {horizon}: a positive odd horizon is expected")
    for key, value in tensors.items():
        if key.endswith(".train_length") and int(value) != first:
            raise ValueError(f"{key} is {int(value)}: {first} is expected, as in the first layer")
        if key.endswith(".mask_threshold") and not abs(float(value) - THRESHOLD) <= 1e-6:
            raise ValueError(f"{key} is {float(value):g}: {THRESHOLD} is expected, the authors' constant")
    return horizon
