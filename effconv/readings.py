"""The choices and the numbers of size learning: frozen values, checked against the registries of readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effconv.budget import BUDGET_SCOPES, BUDGET_VALUES
from effconv.conversion import PADDINGS
from effconv.kernel_predictor import KERNEL_PREDICTORS
from effconv.mask import MASK_CENTRES, MASK_DENOMINATORS
from effconv.size_predictor import SIZE_PREDICTORS
from effconv.snapping import READOUTS


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Which reading of the paper each part follows, by its name in the part's registry. The defaults are ours."""

    size_predictor: str = "bigru"
    kernel_predictor: str = "per_position"
    budget_value: str = "hard"
    budget_scope: str = "learnable"
    readout: str = "snap_ema"
    mask_centre: str = "pixel"
    mask_denominator: str = "v2"
    padding: str = "right"

    def __post_init__(self) -> None:
        for field, registry in _REGISTRIES.items():
            if getattr(self, field) not in registry:
                raise ValueError(f"{field}: no reading {getattr(self, field)!r}; there are {', '.join(registry)}")


_REGISTRIES: dict[str, Mapping[str, Any]] = {
    "size_predictor": SIZE_PREDICTORS,
    "kernel_predictor": KERNEL_PREDICTORS,
    "budget_value": BUDGET_VALUES,
    "budget_scope": BUDGET_SCOPES,
    "readout": READOUTS,
    "mask_centre": MASK_CENTRES,
    "mask_denominator": MASK_DENOMINATORS,
    "padding": PADDINGS,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The numbers of size learning; the paper's, but for `max_size`, which it gives as 2k + 1 with k = 3."""

    budget: int
    epochs: int = 10
    max_size: int = 7
    lam: float = 2.0
    lr: float = 1e-4
    kernel_lr: float = 1e-3
    weight_decay: float = 1e-3
    tolerance: float = 0.01
    seed: int = 0
