"""What size learning gives: the sizes, how they came about, and the network built from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from effconv.conversion import resize
from effconv.snapping import Snapped

_FORMAT = 1


class History:
    """Points of a run, thinned: never more than `limit`, evenly spread; when full, every second one goes."""

    def __init__(self, limit: int = 200) -> None:
        self.limit, self.stride, self.seen = limit, 1, 0
        self.points: list[dict[str, Any]] = []

    def add(self, point: dict[str, Any]) -> None:
        if self.seen % self.stride == 0:
            self.points.append({key: _plain(value) for key, value in point.items()})
            if len(self.points) > self.limit:
                self.points, self.stride = self.points[::2], 2 * self.stride
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"stride": self.stride, "seen": self.seen, "points": self.points}

    def load_state(self, state: dict[str, Any]) -> None:
        self.stride, self.seen, self.points = state["stride"], state["seen"], list(state["points"])


def _plain(value: Any) -> Any:
    return value.detach().tolist() if isinstance(value, Tensor) else value


@dataclass(frozen=True, kw_only=True)
class KernelSizes:
    """Learned kernel sizes by module name, in forward order.

    snapped: how far snapping to the budget moved each size, and how many layers differ from snapping the initial v.
    params: weights of the learnable convolutions at these sizes (Eq. 3). left_alone: the other convolutions, and why.
    history: at most 200 points over the run: epoch, step, v, s, loss, budget_loss, budget_error, and by layer
    class_grad and budget_grad, the gradients on v of L_class and of lambda L_param.
    """

    sizes: dict[str, int]
    snapped: Snapped
    budget: int
    params: int
    history: list[dict[str, Any]] = field(repr=False)
    left_alone: dict[str, str] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    model: nn.Module | None = field(repr=False, compare=False, default=None)

    def build(self, init: Callable[[nn.Module], object] | None = None) -> nn.Module:
        """The plain network of these sizes, with new weights (step 10 of Algorithm 1). See `effconv.resize`."""
        if self.model is None:
            raise ValueError("these sizes were loaded without their network; use KernelSizes.load(path, model=...)")
        return resize(self.model, self.sizes, init=init, padding=self.settings["padding"])

    def save(self, path: str | Path) -> None:
        """Everything but the network, as JSON."""
        values = {key: value for key, value in vars(self).items() if key not in ("model", "snapped")}
        document = {"format": _FORMAT, **values, "snapped": asdict(self.snapped)}
        Path(path).write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path, *, model: nn.Module | None = None) -> KernelSizes:
        """Raises `ValueError` for a file that `save` did not write."""
        try:
            values = json.loads(Path(path).read_text())
            if values.pop("format") != _FORMAT:
                raise KeyError("format")
            return cls(**(values | {"snapped": Snapped(**values["snapped"])}), model=model)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} holds no kernel sizes that this version can read") from error
