"""The methods that can be checked: built in, or registered under one of the two groups of entry points.

A method declares what it can do by attributes of its callable that are True:

- `gradient_based`: the class loss moves the sizes by its gradient;
- `has_budget`: the sizes meet `budget`, a number of weights;
- `resumable`: a size learner also takes `checkpoint=PATH` and, called again, goes on from there; a network is whole in
  its `state_dict()`.

What soft sizes there are, a size learner tells as `result.notes["v"]`, by layer; a network as `size_parameters()`, the
tensors that its sizes follow, by layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from effconv import learn_kernel_sizes
from reproduce.errors import UsageError, UserError
from reproduce.known_cases import GROUPS
from reproduce.run.known.effconv_sizes import Learned
from reproduce.run.known.networks import OWN_SIZES, conv_names

Kind = Literal["size learner", "network"]
PROPERTIES = ("gradient_based", "has_budget", "resumable")
KINDS: dict[str, Kind] = {GROUPS[0]: "size learner", GROUPS[1]: "network"}


@dataclass(frozen=True, kw_only=True)
class Method:
    """call: `learn` of a size learner, `build` of a network with sizes of its own."""

    name: str
    kind: Kind
    call: Callable[..., Any]
    declared: tuple[str, ...]  # of `PROPERTIES`


def effconv(
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    *,
    budget: int,
    epochs: int,
    seed: int,
    checkpoint: Path | None = None,
) -> Learned:
    """The library as anybody calls it, all convolutions learnable."""
    layers = conv_names(model)
    found = learn_kernel_sizes(
        model, batches, budget=budget, epochs=epochs, layers=layers, seed=seed, checkpoint=checkpoint
    )
    return Learned(found.sizes, found.build, {"v": found.snapped.soft})


def built_in() -> dict[str, Method]:
    own = {
        name: Method(name=name, kind="network", call=build, declared=("gradient_based", "resumable"))
        for name, build in OWN_SIZES.items()
    }
    return {"effconv": Method(name="effconv", kind="size learner", call=effconv, declared=PROPERTIES)} | own


def find(name: str) -> Method:
    """Raises `UsageError` for a name that there is not, `UserError` for a method that cannot be loaded."""
    known = built_in()
    if name in known:
        return known[name]
    points = {point.name: point for group in KINDS for point in metadata.entry_points(group=group)}
    if name not in points:
        raise UsageError(f"no method is named {name!r}; there are {', '.join([*known, *sorted(points)])}")
    point = points[name]
    try:
        call = point.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"the method {name!r} ({point.value}) cannot be loaded: {error}") from error
    return Method(name=name, kind=KINDS[point.group], call=call, declared=declared_by(call, name))


def declared_by(call: Callable[..., Any], name: str) -> tuple[str, ...]:
    """The properties that a callable declares. Raises `UserError` for one that is neither True nor False."""
    found = {known: getattr(call, known, False) for known in PROPERTIES}
    for known, value in found.items():
        if not isinstance(value, bool):
            raise UserError(f"the method {name!r} declares {known} = {value!r}; make it True or False")
    return tuple(known for known, value in found.items() if value)
