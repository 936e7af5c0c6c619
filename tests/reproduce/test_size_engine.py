"""Stage 1 with engine `graph`: the spec's engine reaches it, its course is the plain one's, its time counts once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import effconv
from reproduce.run.resume import Notes
from reproduce.run.size_learning import Learned, learn
from reproduce.run.size_steps import Epochs, Follower
from reproduce.specs import Engine
from tests.reproduce.run_samples import Quiet, learning, never, spec, synthetic


def _learned(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Learned, Quiet]:
    quiet, engines = Quiet(), []
    whole = effconv.learn_kernel_sizes

    def noting(*args: object, **options: object) -> effconv.KernelSizes:
        engines.append(options["engine"])
        return whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(effconv, "learn_kernel_sizes", noting)
    chosen = spec(learning()).model_copy(update={"engine": engine})
    device = torch.device("cpu")
    found = learn(chosen, 0, synthetic(), device=device, folder=folder, every=60.0, progress=quiet, stop=never)
    assert engines == [engine]
    return found, quiet


def _places(told: Quiet) -> list[tuple[str, int, int, int, int]]:
    return [(at.stage, at.epoch, at.epochs, at.step, at.steps) for at in told.updates]


def test_stage_1_with_engine_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, told = _learned("plain", tmp_path / "plain", monkeypatch)
    began = time.perf_counter()
    graph, told_late = _learned("graph", tmp_path / "graph", monkeypatch)
    took = time.perf_counter() - began
    assert graph.sizes == plain.sizes
    assert _places(told_late) == _places(told)
    losses = [[point["loss"] for point in found.history][:2] for found in (plain, graph)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert 0 < sum(graph.clock.epoch_seconds) < took


def test_steps_told_of_at_once_have_their_time_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("reproduce.run.size_steps.time.perf_counter", lambda: now[0])
    split = synthetic().train
    epochs = Epochs(split=split, seed=0, learning=learning(), normalisation="imagenet")
    follower = Follower(epochs=epochs, steps=3, notes=Notes(tmp_path / "n"), every=60.0, progress=Quiet(), stop=never)
    for _ in epochs():
        now[0] += 2.0
    for step in (1, 2, 3):
        follower(effconv.Step(1, 2, step, 1.0, None, 0.0, [3]))
    now[0] += 50.0  # between epochs: nobody's time
    for step, _ in enumerate(epochs(), 1):
        now[0] += 1.0
        follower(effconv.Step(2, 2, step, 1.0, None, 0.0, [3]))
        now[0] += 4.0  # the next batch is asked for later
    assert follower.clock().epoch_seconds == [6.0, 3.0]
