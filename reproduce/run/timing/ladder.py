"""The fairness ladder: FlexNet-16 against EffConv-20 at equal treatment, on three levels and at kernel sizes held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from baselines.flexnet import horizon_of
from baselines.large_conv import by_fft_where_faster
from reproduce import experiments
from reproduce.errors import Interrupted
from reproduce.run.machine import settings
from reproduce.run.recording import code
from reproduce.run.splits import Split
from reproduce.run.timing.certificate import Watch
from reproduce.run.timing.pairs import PAIRS, Step, measure_pair
from reproduce.run.timing.place import Place, failure
from reproduce.run.timing.trials import fitting_batch, no_lap, trial_seconds, wait, with_batch
from reproduce.run.timing.workloads import (
    Sizes,
    SizeSteps,
    Steps,
    network_of,
    one_by_one,
    sizes_for,
    training_steps,
)
from reproduce.specs import DATASETS, Engine, Precision, Protocol, RunSpec
from reproduce.timings import Level, PairTiming, Side, pair_timing_id
from reproduce.traces import now

CLAIMS = ("table1", "table2", "table3")
LEVELS: tuple[Level, ...] = ("ii", "iii", "i")
FLEXNET, EFFCONV = "FlexNet-16", "EffConv-20 0.66M"
HELD = {"table1": (5, 9, 15, 21, 29), "table2": (5, 9, 15, 21, 33), "table3": (15, 33, 97)}  # 29, 33, 97: the grids
BLOCK_SECONDS = {"cuda": 2.0, "cpu": 0.5}  # at the least, and one step
METHODS = ("auto", "fft", "direct")
METHODS_OF_B = ("direct", "auto")
TRIALS = 3  # of each of these, which are some per cent apart
MOST_BUDGET_STEPS = 10_000  # until the sizes meet the budget; it takes some hundreds
CLOSE = 3.0  # times the fastest


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One pair to be measured."""

    claim: str
    level: Level
    a: Side
    b: Side
    device: str

    @property
    def timing_id(self) -> str:
        return pair_timing_id(self.a, self.b, self.level, self.device)

    @property
    def name(self) -> str:
        """`table2 ii FlexNet-16 at 9 x 9 / EffConv-20 0.66M`."""
        held = "" if self.a.kernel_size is None else f" at {self.a.kernel_size} x {self.a.kernel_size}"
        grid = ", full grid" if self.a.full_grid else ""
        stage = ", size learning" if self.a.stage == "size_learning" else ""
        return f"{self.claim} {self.level} {self.a.name}{held}{grid}{stage} / {self.b.name}"


def rungs(claim: str, device: str, *, engine: Engine, precision: Precision, threads: int) -> Iterator[Rung]:
    """All pairs of a claim: EffConv's two stages, then FlexNet at each size; level i also with the full grid.

    At the grid's own size the full grid changes nothing, and has no pair.

    On levels ii and iii CUDA always has graphs, and bf16 unless told otherwise; level i never has either. What the
    claims hang on comes first, as time may run out: levels ii and iii, and sizes in the middle, which masks learn.
    """
    fast: tuple[Engine, Precision] = (engine, precision)
    if device == "cuda":
        fast = "graph", "bf16" if precision == "float32" else precision
    sides: dict[Level, tuple[Side, Side]] = {}
    for level in LEVELS:
        how = ("plain", "float32") if level == "i" else fast
        specs = {
            row.name: row.spec.model_copy(update={"engine": how[0], "precision": how[1], "threads": threads})
            for row in experiments.rows(claim, Protocol(base="paper"), source="random")
        }
        sides[level] = Side(name=FLEXNET, spec=specs[FLEXNET]), Side(name=EFFCONV, spec=specs[EFFCONV])
    for level, (_, training) in sides.items():
        learning = training.model_copy(update={"stage": "size_learning"})
        yield Rung(claim=claim, level=level, a=learning, b=training, device=device)
    grid = horizon_of(DATASETS[sides["i"][0].spec.data.name].image_size)
    middle = HELD[claim][(len(HELD[claim]) - 1) // 2]
    for size in sorted(HELD[claim], key=lambda size: (abs(size - middle), size)):
        for level, (flexnet, training) in sides.items():
            for full_grid in (False, True) if level == "i" and size < grid else (False,):
                a = flexnet.model_copy(update={"kernel_size": size, "full_grid": full_grid})
                yield Rung(claim=claim, level=level, a=a, b=training, device=device)


def time_rung_or_reason(rung: Rung, place: Place, *, step_limit: float) -> PairTiming | str:
    """The pair, or why it could not be measured: too little memory, say. Raises `Interrupted` and `OSError`."""
    try:
        return time_rung(rung, place, step_limit=step_limit)
    except (Interrupted, OSError):
        raise
    except Exception as error:
        return failure(error, rung.a.spec, place.device)


def time_rung(rung: Rung, place: Place, *, step_limit: float) -> PairTiming:
    """Measures one pair. `step_limit`: seconds of a step above which the CPU cuts the batch, of both sides.

    Raises `Interrupted`, and whatever goes wrong inside, too little memory for one.
    """
    started, device, spec = now(), place.device, rung.b.spec
    with settings(spec.threads, spec.precision), Watch(device, spec.threads, dict(place.ceilings)) as watch:
        sizes = sizes_for(spec, place.store)
        own = min(rung.a.spec.training.batch_size, spec.training.batch_size)

        def make(side: Side, batch: int, method: str | None = None) -> Step:
            return step_of(rung, side, sizes, batch, method, place)

        limit = step_limit if device.type == "cpu" else None
        method, batch = method_and_batch(rung, lambda *asked: make(rung.a, *asked), own, limit, place)
        method_of_b = fastest_of_b(rung, lambda method: make(rung.b, batch, method), place)
        found = measure_pair(
            make(rung.a, batch, method),
            make(rung.b, batch, method_of_b),
            pairs=PAIRS,
            block_seconds=BLOCK_SECONDS[device.type],
            synchronize=lambda: wait(device),
            stop=place.stop,
            say=place.say,
        )
    of_a, of_b = (
        {"step_seconds": seconds, "steps_in_block": count}
        for seconds, count in zip(found.step_seconds, found.steps_in_block, strict=True)
    )
    own_sizes = sizes.by_layer if rung.a.name == rung.b.name else None
    low, high = found.interval
    return PairTiming(
        timing_id=rung.timing_id,
        claim=rung.claim,
        level=rung.level,
        a=rung.a.model_copy(update={"method": method, "sizes": own_sizes} | of_a),
        b=rung.b.model_copy(update={"method": method_of_b, "sizes": sizes.by_layer} | of_b),
        batch_size=batch,
        batch_cut=batch < own,
        ratios=found.ratios,
        ratio=found.ratio,
        low=low,
        high=high,
        control=found.control,
        control_ratio=found.control_ratio,
        device=device.type,  # type: ignore[arg-type]
        certificate=watch.certificate(),
        machine=place.machine,
        code=code(),
        started=started,
        finished=now(),
    )


def step_of(rung: Rung, side: Side, sizes: Sizes, batch: int, method: str | None, place: Place) -> Step:
    """One step of a side after another, with `batch` images each."""
    spec, device = with_batch(side.spec, batch), place.device
    split = place.data.train(spec.data.name)
    if side.stage == "size_learning":
        work: Steps = learning_on_budget(spec, split, device, engine="loop" if rung.level == "i" else spec.engine)
    else:
        network = network_of(spec, sizes) if side.kernel_size is None else held(spec, side, rung.level, method)
        if side.kernel_size is None and method == "auto":
            by_fft_where_faster(network)
        work = training_steps(spec, network, split, device, no_lap)
    return one_by_one(work, full=len(split) // batch)


def learning_on_budget(spec: RunSpec, split: Split, device: torch.device, *, engine: str) -> SizeSteps:
    """Size learning where its sizes are for most of the stage: on budget."""
    assert spec.size_learning is not None
    work, tolerance = SizeSteps(spec, split, device, no_lap, engine=engine), spec.size_learning.tolerance
    for _ in range(MOST_BUDGET_STEPS):
        if abs(work.learner.budget_step()["budget_error"]) <= tolerance:
            break
    return work


def held(spec: RunSpec, side: Side, level: Level, method: str | None) -> nn.Module:
    """A FlexNet whose kernels stay at one size, made one by one on level i and in one batch above."""
    model = spec.model
    if side.full_grid:
        model = model.model_copy(update={"args": {**model.args, "full_grid": True}})
    network = network_of(spec.model_copy(update={"model": model}), Sizes(held=side.kernel_size))
    network.use(method)  # type: ignore[operator]
    network.batched = level != "i"  # type: ignore[assignment]
    network.fuse(level != "i")  # type: ignore[operator]
    return network


def method_and_batch(
    rung: Rung, make: Callable[[int, str | None], Step], own: int, limit: float | None, place: Place
) -> tuple[str | None, int]:
    """How a FlexNet convolves, and how many images a step has; `limit` in seconds of a step, None for no limit.

    Directly, but on level iii whatever trial steps show to be the fastest.
    """
    if rung.level != "iii" or rung.a.kernel_size is None:
        method = None if rung.a.kernel_size is None else "direct"
        return method, own if limit is None else fitting_batch(lambda count: make(count, method), own, limit, place)

    def fastest(methods: Iterable[str], batch: int) -> dict[str, float]:
        """Seconds of a step; the fastest first."""
        seconds = {method: trial_seconds(make(batch, method), place) for method in methods}
        return dict(sorted(seconds.items(), key=lambda item: item[1]))

    if limit is None:
        return next(iter(fastest(METHODS, own))), own
    alone = fastest(METHODS, 1)
    first, least = next(iter(alone.items()))
    batch = fitting_batch(lambda count: make(count, first), own, limit, place)
    # One image does not decide: an FFT of the kernels serves a whole batch. But what is direct and slow stays so.
    close = [method for method, seconds in alone.items() if method != "direct" or seconds < CLOSE * least]
    return (first if batch == 1 or len(close) == 1 else next(iter(fastest(close, batch)))), batch


def fastest_of_b(rung: Rung, make: Callable[[str], Step], place: Place) -> str | None:
    """How EffConv's training convolves: on level iii as trial steps show to be the fastest, else None.

    Its size learning is direct everywhere. On CUDA `fft_is_faster` wants larger kernels.
    """
    if rung.level != "iii" or place.device.type != "cpu":
        return None
    steps = {method: make(method) for method in METHODS_OF_B}
    seconds = {method: [trial_seconds(step, place) for _ in range(TRIALS)] for method, step in steps.items()}
    return min(METHODS_OF_B, key=lambda method: min(seconds[method]))
