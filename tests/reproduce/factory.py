"""Records for tests, built by hand: a spec of a row, and the few values that a test is about."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce import experiments
from reproduce.records import (
    Clock,
    DataOrigin,
    Evaluation,
    KernelPicture,
    Metrics,
    Outcome,
    Params,
    RunRecord,
    Snapped,
    StageClock,
)
from reproduce.specs import DATASETS, PROTOCOL_VERSION, Protocol, RunSpec, sha256_of
from reproduce.store import Store, slug, write_atomically

JPEG = "other-0123abcd"
NOTES = {"canonical": "", "digits": "", JPEG: " (class folders of JPEG, not the canonical files)"}


def spec_of(
    row: str, experiment: str = "table2", protocol: str = "paper", *, source: str = "canonical", **changes: Any
) -> RunSpec:
    """The spec of a row by name. `changes` replace fields of it."""
    found = experiments.rows(experiment, Protocol.parse(protocol), source=source)
    return next(one.spec for one in found if one.name == row).model_copy(update=changes)


def evaluation(top1: float, epoch: int) -> Evaluation:
    """Measures that all follow from top-1, so that a test can tell them apart."""
    return Evaluation(
        epoch=epoch, top1=top1, top5=top1 + 5, precision=top1 + 0.1, recall=top1 + 0.2, f1=top1 + 0.3, loss=0.5
    )


def make_record(
    spec: RunSpec,
    seed: int = 0,
    top1: float = 90.0,
    *,
    status: Any = "finished",
    reason: str = "",
    version: int = PROTOCOL_VERSION,
    epoch_seconds: Sequence[float] = (20.0, 20.0),
    size_seconds: Sequence[float] = (40.0,),
    shared_device: bool = False,
    machine: str = "0123456789ab",
    device: str = "cpu",
    sizes: Sequence[int] | None = None,
    kernel_sizes: dict[str, list[int]] | None = None,
    finished: str = "2030-01-01T01:00:00Z",
) -> RunRecord:
    """A complete, valid record, with the digest that belongs to it."""
    learned = _sizes(spec, seed, sizes) if spec.size_learning else None
    eq3 = 654_336 if spec.size_learning is None else spec.size_learning.budget + 1000 * seed
    done = status == "finished"
    last = evaluation(top1, spec.training.epochs)
    best = evaluation(top1 + 0.5, max(1, spec.training.epochs - 1))
    spec_id = sha256_of({"spec": spec.model_dump(mode="json"), "protocol_version": version})
    first = StageClock(epoch_seconds=list(size_seconds)) if learned else None
    clock = {"started": "2030-01-01T00:00:00Z", "finished": finished, "size_learning": first, "device": device}
    record = RunRecord(
        protocol_version=version,
        spec_id=spec_id,
        run_id=f"{spec_id[:16]}-s{seed}",
        spec=spec,
        seed=seed,
        outcome=Outcome(status=status, reason=reason),
        metrics=Metrics(last=last, best=best, train_loss=0.1) if done else None,
        correct_bits=None,
        sizes=learned,
        snapped=_snapped(list(learned.values())) if learned else None,
        kernel_sizes=kernel_sizes,
        params=Params(eq3=eq3, total=eq3 + 2_458),
        kernels=[_kernel(layer, size, seed) for layer, size in learned.items()] if learned and done else [],
        clock=Clock.model_validate(
            {**clock, "training": StageClock(epoch_seconds=list(epoch_seconds)), "shared_device": shared_device}
        ),
        machine=machine,
        data=origin(spec),
        code={"commit": "0" * 40, "dirty": False},
    )
    return record.model_copy(update={"digest": record.computed_digest()})


def origin(spec: RunSpec) -> DataOrigin:
    facts, source = DATASETS[spec.data.name], spec.data.source
    title = f"scikit-learn's digits in place of {facts.title}" if source == "digits" else facts.title + NOTES[source]
    return DataOrigin(
        name=spec.data.name,
        source=source,
        title=title,
        canonical=source == "canonical",
        train_images=spec.data.train_images or facts.train_images,
        test_images=spec.data.test_images or facts.test_images,
        files=[],
    )


def put(store: Store, *records: RunRecord) -> None:
    """Write records as a run of their own protocol version would have."""
    for record in records:
        spec = record.spec
        path = store.runs / spec.data.name / slug(spec) / spec.protocol / f"{record.run_id}.json"
        write_atomically(path, record.model_dump(mode="json"))


def store_with(folder: Path, *records: RunRecord) -> Store:
    """A store in `folder` that holds these records and a machine."""
    store = Store(folder)
    put(store, *records)
    machine = {"cpu": "Example CPU", "cores": 2, "gpu": None, "torch": "2.9.0"}
    write_atomically(folder / "machines" / "0123456789ab.json", machine)
    return store


def _sizes(spec: RunSpec, seed: int, sizes: Sequence[int] | None) -> dict[str, int]:
    depth = int(str(spec.model.args["depth"]))
    blocks = (depth - 2) // 6 if spec.model.family == "cifar_resnet" else (depth - 4) // 6
    names = [f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3) for block in range(blocks) for conv in (1, 2)]
    draw = random.Random(f"{seed}-{depth}")
    chosen = sizes or [min(7, max(1, round(draw.gauss(4.5, 1.3)))) for _ in names]
    return dict(zip(names, chosen, strict=True))


def _snapped(sizes: Sequence[int]) -> Snapped:
    moved = [1, *[0] * (len(sizes) - 1)]
    return Snapped(
        soft=[size + 0.25 for size in sizes],
        rounded=[size - step for size, step in zip(sizes, moved, strict=True)],
        moved=moved,
        error_before=-0.0321,
        error_after=0.0012,
        differs_from_initial=7,
    )


def _kernel(layer: str, size: int, seed: int) -> KernelPicture:
    """A blob off the centre, with some noise."""
    draw = random.Random(f"{layer}-{size}-{seed}")
    middle = (size - 1) / 2
    taps = [
        [draw.gauss(0, 0.4) + 2 ** -((i - middle) ** 2 + (j - middle) ** 2) for j in range(size)] for i in range(size)
    ]
    return KernelPicture(layer=layer, size=size, kernel=taps, mean_abs=[[abs(tap) for tap in line] for line in taps])
