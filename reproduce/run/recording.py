"""Everything that a record says about a run, put together when it has ended."""

from __future__ import annotations

import functools
import io
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduce.complexity import complexity
from reproduce.records import Clock, DataOrigin, KernelPicture, Outcome, Params, RunRecord, StageClock
from reproduce.run import machine, models
from reproduce.run.context import Run
from reproduce.run.outcome import rounded
from reproduce.run.stages import Result
from reproduce.specs import PROTOCOL_VERSION, RunSpec
from reproduce.store import place
from reproduce.traces import now


def record_of(run: Run, result: Result) -> RunRecord:
    """The record of a run that has ended, whatever its outcome."""
    learned, trained = result.learned, result.trained
    stages = {"size_learning": learned.history if learned else None, "training": trained.history if trained else None}
    record = RunRecord(
        protocol_version=PROTOCOL_VERSION,
        spec_id=run.spec.spec_id,
        run_id=run.spec.run_id(run.seed),
        spec=run.spec,
        seed=run.seed,
        outcome=result.outcome,
        metrics=trained.metrics if trained else None,
        correct_bits=trained.correct_bits if trained else None,
        sizes=learned.sizes if learned else None,
        snapped=learned.snapped if learned else None,
        params=result.params,
        history={stage: history for stage, history in stages.items() if history is not None},
        kernels=kernel_pictures(run, result),
        kernel_sizes=models.kernel_sizes(result.network) if result.network is not None else None,
        clock=clock_of(run, result),
        machine=run.began["machine"],
        data=run.dataset.origin,
        code=run.began["code"],
    )
    return record.signed()


def beginning(run: Run, before: dict[str, Any], *, shared: bool) -> dict[str, Any]:
    """What a run notes when it begins or goes on: also all that the record of one that is cut off would need.

    before: the notes of the attempt before, empty if this is the first.
    """
    return {
        "started": before.get("started", now()),
        "resumed": before["resumed"] + 1 if before else 0,
        "shared": bool(before.get("shared")) or shared,
        "device": run.device.type,
        "machine": run.context.store.write_machine(machine.description()),
        "code": code(),
        "data": run.dataset.origin.model_dump(mode="json"),
    }


def failed_record(spec: RunSpec, seed: int, began: dict[str, Any], reason: str) -> RunRecord:
    """The record of a run that came to no end by itself, from what it noted; with gaps if it noted nothing."""
    counts = complexity(spec.model, spec.data.name)
    origin = began.get("data") or {
        "name": spec.data.name, "source": spec.data.source, "title": "not loaded",
        "canonical": spec.data.source == "canonical", "train_images": 0, "test_images": 0, "files": [],
    }  # fmt: skip
    record = RunRecord(
        protocol_version=PROTOCOL_VERSION,
        spec_id=spec.spec_id,
        run_id=spec.run_id(seed),
        spec=spec,
        seed=seed,
        outcome=Outcome(status="failed", reason=reason),
        metrics=None,
        correct_bits=None,
        sizes=None,
        params=Params(eq3=counts.eq3 if spec.size_learning is None else None, total=counts.total),
        clock=Clock(
            started=began.get("started", now()),
            finished=now(),
            training=StageClock(epoch_seconds=[]),
            device=began.get("device"),
            shared_device=bool(began.get("shared", True)),
            resumed=began.get("resumed", 0),
        ),
        machine=began.get("machine", "unknown"),
        data=DataOrigin.model_validate(origin),
        code=began.get("code") or {"commit": "unknown", "dirty": None},
    )
    return record.signed()


def clock_of(run: Run, result: Result) -> Clock:
    return Clock(
        started=run.began["started"],
        finished=now(),
        size_learning=result.learned.clock if result.learned else None,
        training=result.trained.clock if result.trained else StageClock(epoch_seconds=[]),
        device=run.device.type,
        shared_device=run.began["shared"],
        resumed=run.began["resumed"],
    )


def kernel_pictures(run: Run, result: Result) -> list[KernelPicture]:
    """Figure 2: of each learned layer, one kernel and the mean absolute weight of each tap, after training."""
    if result.network is None or result.learned is None or result.outcome.status != "finished":
        return []
    return [
        KernelPicture(
            layer=layer,
            size=conv.kernel_size[0],
            kernel=rounded(conv.weight[0, 0].tolist()),
            mean_abs=rounded(conv.weight.abs().mean(dim=(0, 1)).tolist()),
        )
        for layer, conv in models.residual_convs(result.network, run.spec.model).items()
    ]


@functools.cache
def code() -> dict[str, Any]:
    """Which commit this is, and whether tracked files were changed since, results aside, which a timing `--again`
    changes; "unknown" outside a checkout.

    As it was when this process, or the one it was forked from, first asked: what it has imported stays as it is.
    """
    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": None}


def git(*arguments: str) -> str:
    """Output of a git command about the folder of this file. May raise `OSError` or `SubprocessError`."""
    where = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=where, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def save_weights(path: Path, network: nn.Module) -> None:
    """The state dict, on the CPU and contiguous, written atomically. May raise `OSError`."""
    buffer = io.BytesIO()
    torch.save({key: value.cpu().contiguous() for key, value in network.state_dict().items()}, buffer)
    place(path, buffer.getvalue())
