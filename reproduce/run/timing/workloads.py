"""What is timed: random images, a row's network at its sizes, and the steps of both stages as the runs take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import effconv
from effconv.result import History
from reproduce.records import RunRecord
from reproduce.run import models
from reproduce.run.batches import Batches, steps_per_epoch
from reproduce.run.engine import make_stepper, make_together
from reproduce.run.size_controls import draw, learner_of
from reproduce.run.size_learning import autocast, readings, resized, settings
from reproduce.run.splits import Split
from reproduce.run.streams import generator, stream_seed
from reproduce.specs import DATASETS, ModelSpec, RunSpec
from reproduce.store import Store

SEED = 0
CHUNK = 10_000  # images made at once
MOST_ON_CPU = 100_000  # images; the steps of a larger data set are extrapolated there, and need fewer
Lap = Callable[[str], None]


class Steps(Protocol):
    """One stage, a step at a time: `reproduce.run.engine`'s stepper, and `SizeSteps`."""

    steps: int

    def start_epoch(self, epoch: int) -> None: ...

    def step(self) -> None: ...


def random_split(dataset: str, count: int, device: torch.device, *, part: str = "train") -> Split:
    """`count` images of a data set's shape and their labels: uint8 from 1 to 255, as zeros would make some layers idle.

    By chunks on the device, so that an ImageNet-32 needs hardly more than its own 3.9 GB.
    """
    facts = DATASETS[dataset]
    rng = generator(SEED, "timing", dataset, part, device=device)
    shape = (count, facts.in_channels, facts.image_size, facts.image_size)
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    for chunk in images.split(CHUNK):
        chunk.random_(1, 256, generator=rng)
    labels = torch.randint(facts.num_classes, (count,), generator=rng, device=device)
    return Split(images=images, labels=labels)


@dataclass(kw_only=True)
class RandomData:
    """The random images of one data set at a time, kept as long as rows of that data set follow each other."""

    device: torch.device
    kept: dict[tuple[str, str], Split] = field(default_factory=dict)

    def train(self, dataset: str) -> Split:
        return self.get(dataset, "train", DATASETS[dataset].train_images)

    def test(self, dataset: str) -> Split:
        return self.get(dataset, "test", DATASETS[dataset].test_images)

    def get(self, dataset: str, part: str, count: int) -> Split:
        if any(name != dataset for name, _ in self.kept):
            self.kept.clear()
        if (dataset, part) not in self.kept:
            held = count if self.device.type == "cuda" else min(count, MOST_ON_CPU)
            self.kept[dataset, part] = random_split(dataset, held, self.device, part=part)
        return self.kept[dataset, part]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Kernel sizes of stage 2 and where they come from. `held`: one size for all kernels of a FlexNet."""

    by_layer: dict[str, int] | None = None
    held: int | None = None
    origin: str = ""


def sizes_for(spec: RunSpec, store: Store, *, together: int = 1) -> Sizes:
    """The sizes that a row is timed at: of its newest record, of whatever protocol, else representative ones."""
    record = newest_record(spec, store) if spec.size_learning is not None or has_masks(spec.model) else None
    if record is not None:
        run = f"run {record.run_id}, {record.spec.protocol}, seed {record.seed}"
        if record.sizes is not None:
            return Sizes(by_layer=record.sizes, origin=f"learned in {run}")
        sides = sorted(side for size in (record.kernel_sizes or {}).values() for side in size)
        held = sides[len(sides) // 2]
        return Sizes(held=held, origin=f"held at {held} x {held}, the median that {run} learned")
    if spec.size_learning is None:
        frozen = ", and held there" if together > 1 else ""
        return Sizes(origin=f"its own, as it starts{frozen}" if has_masks(spec.model) else "")
    if spec.size_learning.source == "random":
        return Sizes(by_layer=budget_course(spec).sizes, origin="drawn at random, seed 0")
    return Sizes(by_layer=budget_course(spec).sizes, origin="representative: from the budget alone, no images")


def has_masks(model: ModelSpec) -> bool:
    """Whether the network learns its sizes as masks, which can be held."""
    return model.family in ("flexnet", "flex_resnet") and model.args.get("layer", "flexconv") == "flexconv"


def newest_record(spec: RunSpec, store: Store) -> RunRecord | None:
    """The last finished run of the same network with the same budget on the same data set that has learned sizes."""

    def key(one: RunSpec) -> object:
        learning = one.size_learning
        told = None if learning is None else (learning.budget, learning.source, learning.labels)
        return one.data.name, one.model, told

    done = (record for record in store.records() if record.outcome.status == "finished")
    known = [one for one in done if (one.sizes or one.kernel_sizes) and key(one.spec) == key(spec)]
    return max(known, key=lambda record: record.clock.finished, default=None)


@dataclass(frozen=True, kw_only=True)
class BudgetCourse:
    """What the budget alone makes of the sizes: after `moving` steps they meet it, and stay from then on."""

    moving: int
    sizes: dict[str, int]


def budget_course(spec: RunSpec) -> BudgetCourse:
    """Follows lambda L_param of Eq. 8 on the CPU, without images, until the budget holds or stage 1 would end."""
    learning = spec.size_learning
    assert learning is not None
    network = models.build(spec.model, spec.data.name, stream_seed(SEED, "initialisation", "size_learning"))
    learner = learner_of(network, spec, settings(learning, SEED), readings(learning))
    moving = 0
    if learning.source == "random":
        draw(learner, SEED)
    else:
        most = learning.epochs * steps_per_epoch(DATASETS[spec.data.name].train_images, learning.batch_size)
        while moving < most and abs(learner.budget_step()["budget_error"]) > learning.tolerance:
            moving += 1
        learner.ema = learner.last  # where the average ends up when the sizes stay
    return BudgetCourse(moving=moving, sizes=learner.result(network, History(), {}).sizes)


def network_of(spec: RunSpec, sizes: Sizes, *, seed: int = SEED, hold: bool = False) -> nn.Module:
    """The network of stage 2 on the CPU. hold: masks that learn do not move the sizes."""
    if sizes.by_layer is not None:
        return resized(spec, seed, sizes.by_layer)
    network = models.build(spec.model, spec.data.name, stream_seed(seed, "initialisation"))
    held = sizes.held
    if held is None and hold and has_masks(spec.model):
        held = max(max(size) for size in network.kernel_sizes().values())  # type: ignore[operator]
    if held is not None:
        network.hold(held)  # type: ignore[operator]
    return network


def training_steps(spec: RunSpec, network: nn.Module, split: Split, device: torch.device, lap: Lap) -> Steps:
    """Stage 2, or the only stage of a baseline, as runs take it."""
    return make_stepper(
        network.to(device),
        split,
        spec.training,
        seed=SEED,
        device=device,
        engine=spec.engine,
        precision=spec.precision,
        lap=lap,
    )


def steps_together(
    spec: RunSpec, networks: Sequence[nn.Module], split: Split, device: torch.device, lap: Lap
) -> Steps:
    """The same with several networks side by side, of the seeds from 0 on."""
    return make_together(
        [network.to(device) for network in networks],
        split,
        spec.training,
        seeds=range(SEED, SEED + len(networks)),
        device=device,
        precision=spec.precision,
        lap=lap,
    )


class SizeSteps:
    """Stage 1, as `effconv.learn_kernel_sizes` takes it. `engine`: of `SizeLearner`, if not the spec's."""

    def __init__(
        self, spec: RunSpec, split: Split, device: torch.device, lap: Lap, *, engine: str | None = None
    ) -> None:
        learning = spec.size_learning
        assert learning is not None
        network = models.build(spec.model, spec.data.name, stream_seed(SEED, "initialisation", "size_learning"))
        names = list(models.residual_convs(network, spec.model))
        with models.seeded(stream_seed(SEED, "size_learning")):
            self.learner = effconv.SizeLearner(
                network.to(device).train(),
                names,
                settings(learning, SEED),
                readings(learning),
                engine=engine or spec.engine,
                autocast=autocast(spec),
            )
        self.spec, self.learning, self.split, self.lap = spec, learning, split, lap
        self.steps = steps_per_epoch(len(split), learning.batch_size)
        self.history, self.done = History(), 0
        self.batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    def start_epoch(self, epoch: int) -> None:
        """epoch: from 0."""
        self.done = 0
        self.batches = iter(
            Batches(
                split=self.split,
                seed=SEED,
                stream=("size_learning",),
                epoch=epoch + 1,
                batch_size=self.learning.batch_size,
                augmentation=self.learning.augmentation,
                normalisation=self.spec.training.normalisation,
            )
        )

    def step(self) -> None:
        images, labels = next(self.batches)
        self.lap("data")
        found = self.learner.advance(images, labels, F.cross_entropy)
        self.done += 1
        if self.done == self.steps:
            found += self.learner.flush()
        self.lap("step")
        for seen in found:
            self.history.add(seen)
        self.lap("bookkeeping")


def one_by_one(work: Steps, *, full: int | None = None) -> Callable[[], None]:
    """A function that takes the next step, and begins a new epoch whenever one ends, after `full` steps if given."""
    epoch = done = -1

    def step() -> None:
        nonlocal epoch, done
        if done in (-1, full or work.steps):
            epoch, done = epoch + 1, 0
            work.start_epoch(epoch)
        work.step()
        done += 1

    return step
