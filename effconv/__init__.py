"""EffConv: learning the kernel sizes of a CNN under a parameter budget (Ganjdanesh, Gao, Huang; AAAI 2023).

from effconv import learn_kernel_sizes
sizes = learn_kernel_sizes(model, loader, budget=660_000)
network = sizes.build()
"""

from effconv.conversion import resize
from effconv.learner import DivergedError, SizeLearner
from effconv.learning import Step, learn_kernel_sizes
from effconv.mask import size_mask
from effconv.readings import Readings, Settings
from effconv.result import KernelSizes
from effconv.snapping import BudgetError, Snapped, snap_to_budget

__all__ = [
    "BudgetError",
    "DivergedError",
    "KernelSizes",
    "Readings",
    "Settings",
    "SizeLearner",
    "Snapped",
    "Step",
    "learn_kernel_sizes",
    "resize",
    "size_mask",
    "snap_to_budget",
]
