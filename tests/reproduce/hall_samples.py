"""Made-up specs and records for the tests of the hall."""

from __future__ import annotations

from typing import Any

from reproduce import experiments
from reproduce.records import Clock, DataOrigin, Evaluation, Metrics, Outcome, Params, RunRecord, StageClock
from reproduce.specs import PROTOCOL_VERSION, Protocol, RunSpec


def spec_of(
    name: str = "EffConv-20 0.66M", *, experiment: str = "table2", protocol: str = "tiny", source: str | None = None
) -> RunSpec:
    rows = experiments.rows(experiment, Protocol.parse(protocol), source=source)
    return next(row.spec for row in rows if row.name == name)


def record_of(
    spec: RunSpec, seed: int = 0, *, top1: float = 50.0, status: str = "finished", **changes: Any
) -> RunRecord:
    """A plausible record. A failed one has no metrics."""
    measured = Evaluation(epoch=2, top1=top1, top5=90.0, precision=top1, recall=top1, f1=top1, loss=1.5)
    learned = spec.size_learning is not None
    values: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "spec_id": spec.spec_id,
        "run_id": spec.run_id(seed),
        "spec": spec,
        "seed": seed,
        "outcome": Outcome(status=status, reason="" if status == "finished" else "made up"),  # type: ignore[arg-type]
        "metrics": Metrics(last=measured, best=measured, train_loss=1.2) if status == "finished" else None,
        "correct_bits": "AAAAAAAAAAA=" if status == "finished" else None,
        "sizes": {f"layer1.{index}.conv{1 + index % 2}": 3 + index % 3 for index in range(4)} if learned else None,
        "params": Params(eq3=660_000, total=662_458),
        "clock": Clock(
            started="2024-01-01T00:00:00+00:00",
            finished="2024-01-01T00:01:00+00:00",
            size_learning=StageClock(epoch_seconds=[3.0]) if learned else None,
            training=StageClock(epoch_seconds=[2.0, 2.0]),
            shared_device=True,
        ),
        "machine": "0123456789ab",
        "data": DataOrigin(
            name=spec.data.name,
            source=spec.data.source,
            title="bundled digits",
            canonical=False,
            train_images=64,
            test_images=64,
            files=[],
        ),
        "code": {"commit": "unknown", "dirty": None},
    }
    return RunRecord(**{**values, **changes})
