"""The tables and figures as lists of rows: the paper's name, its numbers, and the spec of the run that remeasures it.

Costs are of one seed of one EffConv-20 row under `paper` at the paper's own seconds per epoch; `quick` costs a tenth.
Each experiment's command is its function's name: `reproduce table2 --seeds 0..2`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reproduce import paper, recipes
from reproduce.errors import UsageError
from reproduce.naming import millions
from reproduce.networks import control_names, network
from reproduce.paper import PaperRow
from reproduce.specs import Engine, Precision, Processes, Protocol, RunSpec

EXPERIMENTS = ("table1", "table2", "table3", "table4", "figure2", "figure3")
FIGURE3_DEPTHS = tuple(range(20, 57, 6))
FIGURE3_BUDGETS = tuple(range(100_000, 500_001, 100_000))
FIGURE3A_BUDGET = 660_000
FIGURE3B_DEPTH = 20
SHARED = "imagenet32"  # the data set on which one run is long enough to be worth several GPUs
CONTROL_BUDGETS = {"table1": 660_000, "table2": 660_000, "table3": 660_000, "table4": 500_000}  # of EffConv-20


@dataclass(frozen=True)
class Row:
    """One row of a table, or one point of a figure."""

    name: str
    experiment: str
    spec: RunSpec
    paper: PaperRow | None  # None: a control, or a depth or budget that the paper does not show


def rows(
    experiment: str,
    protocol: Protocol,
    *,
    source: str | None = None,
    depths: Sequence[int] | None = None,
    budgets: Sequence[int] | None = None,
    threads: int = 1,
    engine: Engine = "plain",
    precision: Precision = "float32",
    gpus_per_run: int = 1,
    sync_bn: bool = False,
) -> list[Row]:
    """All rows of one experiment under one protocol: the paper's in its order, then the controls.

    `source` is `DataSpec.source`; None means the bundled digits under `tiny` and the canonical files otherwise.
    `depths` and `budgets` are of Figure 3 (a) and (b): None for the paper's, empty for none of that panel.
    `gpus_per_run`: processes that share each run, with batch norm over all of them if `sync_bn`. Raises `UsageError`
    where they cannot.
    """
    _check_shared(experiment, engine, gpus_per_run, sync_bn)
    if experiment == "figure3":
        chosen_depths = FIGURE3_DEPTHS if depths is None else depths
        names = figure3a(chosen_depths) + figure3b(FIGURE3_BUDGETS if budgets is None else budgets)
    else:
        names = NAMES[experiment]()
    how = {"threads": threads, "engine": engine, "precision": precision, "gpus": (gpus_per_run, sync_bn)}
    make = partial(_row, experiment, protocol=protocol, source=source, how=how)
    return [make(name) for name in dict.fromkeys(names)]


def dataset_of(experiment: str) -> str:
    """The data set of one experiment, for example "cifar10"."""
    return paper.tables()[experiment].dataset


def table1() -> list[str]:
    """Table 1, MNIST: EffConv-20 at 0.66M is to reach 99.8 +- 0.01 %. Three and a half hours."""
    return _printed("table1")


def table2() -> list[str]:
    """Table 2, CIFAR-10: EffConv-20 at 0.66M is to reach 92.35 +- 0.05 %, EffConv-44 93.35 +- 0.17 %. Two hours."""
    return _printed("table2")


def table3() -> list[str]:
    """Table 3, STL-10: EffConv-20 is to reach 73.06 +- 0.53 % at 0.66M and 74.02 +- 0.27 % at 0.78M. Half an hour."""
    return _printed("table3")


def table4() -> list[str]:
    """Table 4, ImageNet-32: EffConv-20 at 0.50M is to reach 36.07 +- 0.18 % (top-5 60.96 +- 0.1 %). 21 hours."""
    # 0.50M is read as Eq. 3, so the 1000-class head stands outside.
    return _printed("table4")


def figure2() -> list[str]:
    """Figure 2: sizes and weights of Table 2's EffConv-20 at 0.66M; the largest kernel is to be in the 5th layer."""
    return [row.name for row in paper.rows("figure2")]


def figure3a(depths: Sequence[int]) -> list[str]:
    """Figure 3 (a): accuracy and seconds per epoch against depth, at 0.66M; saturates from 50 to 56 layers."""
    return [effconv_name(depth, FIGURE3A_BUDGET) for depth in depths]


def figure3b(budgets: Sequence[int]) -> list[str]:
    """Figure 3 (b), and (c) from the same runs: ResNet-20 against the budget; 0.1M is to reach 90.24 +- 0.05 %."""
    return [effconv_name(FIGURE3B_DEPTH, budget) for budget in budgets]


NAMES = {"table1": table1, "table2": table2, "table3": table3, "table4": table4, "figure2": figure2}


def effconv_name(depth: int, budget: int) -> str:
    """`EffConv-20 0.66M`."""
    return f"EffConv-{depth} {millions(budget)}"


def _printed(table: str) -> list[str]:
    return [row.name for row in paper.rows(table)] + control_names(CONTROL_BUDGETS[table])


def _row(experiment: str, name: str, *, protocol: Protocol, source: str | None, how: Mapping[str, Any]) -> Row:
    return Row(
        name=name,
        experiment=experiment,
        spec=_spec(dataset_of(experiment), name, protocol=protocol, source=source, how=how),
        paper=paper.row(experiment, name),
    )


def _spec(dataset: str, name: str, *, protocol: Protocol, source: str | None, how: Mapping[str, Any]) -> RunSpec:
    """how: threads, engine and precision; gpus: the number of processes, and whether they share batch norm."""
    (count, sync_bn), computed = how["gpus"], {key: value for key, value in how.items() if key != "gpus"}
    found = network(name)
    recipe = recipes.training(found, dataset, protocol)
    learning = None if found.budget is None else recipes.size_learning(found, dataset, protocol, recipe)
    return RunSpec(
        model=found.model,
        size_learning=learning,
        data=recipes.data(dataset, protocol, source),
        training=recipe,
        protocol=protocol.name,
        processes=None if count == 1 else _processes(name, recipe.batch_size, count, sync_bn),
        **computed,
    )


def _processes(name: str, batch_size: int, count: int, sync_bn: bool) -> Processes:
    if batch_size % count:
        fits = ", ".join(str(n) for n in range(2, 9) if batch_size % n == 0)
        raise UsageError(f"--gpus-per-run {count} does not divide {name}'s batch of {batch_size}; take one of {fits}")
    return Processes(count=count, batch_size=batch_size // count, sync_bn=sync_bn)


def _check_shared(experiment: str, engine: Engine, gpus_per_run: int, sync_bn: bool) -> None:
    """Raises `UsageError` for what several processes cannot share, or need not."""
    if gpus_per_run == 1 and sync_bn:
        raise UsageError("--sync-bn is for runs on several GPUs; add --gpus-per-run 2 or more, or drop it")
    if gpus_per_run > 1 and (dataset_of(experiment), engine) != (SHARED, "plain"):
        raise UsageError(
            "--gpus-per-run is for table4 (ImageNet-32) and --engine plain; elsewhere give each GPU a run of its own "
            "with --jobs"
        )
