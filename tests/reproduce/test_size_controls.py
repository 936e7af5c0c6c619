"""The controls of size learning: random sizes and those of the budget loss alone; on budget, repeatable, no data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import effconv
from reproduce.errors import Interrupted, UserError
from reproduce.run.models import build
from reproduce.run.runner import run
from reproduce.run.size_controls import Course, draw, learner_of, without_images
from reproduce.run.size_learning import Learned, learn, readings, settings
from reproduce.run.size_steps import shuffled
from reproduce.run.streams import stream_seed
from reproduce.specs import ModelSpec, RunSpec
from reproduce.store import Store
from tests.reproduce.run_samples import Quiet, StopAt, content, context, learning, never, spec, synthetic

torch.set_num_threads(1)
NUMBERS = ("budget", "epochs", "max_size", "lam", "lr", "kernel_lr", "weight_decay", "tolerance")


def control(source: str, depth: int = 8, **changes: Any) -> RunSpec:
    """ResNet-8 at 120,000 weights unless said otherwise."""
    model = ModelSpec(family="cifar_resnet", args={"depth": depth})
    return spec(learning(source=source, **changes)).model_copy(update={"model": model})


def sizes(one: RunSpec, seed: int = 0, steps: int = 5, quiet: Quiet | None = None) -> effconv.KernelSizes:
    assert one.size_learning is not None
    course = Course(epochs=one.size_learning.epochs, steps=steps, progress=quiet or Quiet(), stop=never)
    given = settings(one.size_learning, seed), readings(one.size_learning)
    return without_images(one, seed, *given, course)[0]


def learned(one: RunSpec, folder: Path, **changes: Any) -> Learned:
    """Stage 1 on random images."""
    values: dict[str, Any] = {"device": torch.device("cpu"), "every": 60.0, "progress": Quiet(), "stop": never}
    return learn(one, 0, synthetic(size=8), folder=folder, **(values | changes))


def weights(found: dict[str, int], one: RunSpec) -> int:
    """Eq. 3 of the network itself."""
    net = effconv.resize(build(one.model, "cifar10", 0), found)
    return sum(w.numel() for name, w in net.named_parameters() if w.dim() == 4 and name.startswith("layer"))


@pytest.mark.parametrize("budget", [500_000, 660_000])
def test_random_sizes_of_the_rows_meet_their_budget(budget: int) -> None:
    one = control("random", depth=20, budget=budget)
    first, second = sizes(one, 0).sizes, sizes(one, 1).sizes
    assert first != second
    assert all(abs(weights(found, one) / budget - 1) <= 0.01 for found in (first, second))


def test_random_sizes_meet_every_budget_and_repeat_themselves() -> None:
    for seed in range(8):
        one = control("random", budget=(40_000, 120_000, 300_000)[seed % 3])
        found = sizes(one, seed)
        assert one.size_learning is not None
        assert abs(found.params / one.size_learning.budget - 1) <= 0.01
        assert found.sizes == sizes(one, seed).sizes
        assert [a - b for a, b in zip(found.sizes.values(), found.snapped.soft, strict=True)] == found.snapped.moved
        assert found.snapped.differs_from_initial == 0 and found.history == []


def test_random_sizes_are_drawn_uniformly() -> None:
    one = control("random", depth=20, budget=660_000)
    assert one.size_learning is not None
    learner = learner_of(build(one.model, "cifar10", 0), one, settings(one.size_learning, 0), effconv.Readings())
    drawn = []
    for seed in range(60):
        draw(learner, seed)
        drawn += learner.ema.tolist()
    counts = [drawn.count(size) for size in range(1, 8)]
    assert sum(counts) == 60 * 18
    assert sum((n - 60 * 18 / 7) ** 2 / (60 * 18 / 7) for n in counts) < 22.5  # chi-square, 6 degrees, p = 0.001


def test_sizes_without_images_begin_where_effconvs_do(tmp_path: Path) -> None:
    theirs = learned(spec(learning(kernel_predictor="free")), tmp_path / "a").history[0]
    ours = learned(control("init_only", kernel_predictor="free"), tmp_path / "b").history[0]
    for key in ("v", "s", "budget_loss", "budget_error", "budget_grad"):
        assert ours[key] == theirs[key], key
    assert "class_grad" not in ours and "loss" not in ours


def test_init_only_is_effconv_with_the_class_loss_off() -> None:
    """Against `learn_kernel_sizes` itself with a loss that is 0 whatever the network says."""
    one = control("init_only", epochs=3, lr=3e-3)
    found = sizes(one, steps=4)
    assert one.size_learning is not None
    network = build(one.model, "cifar10", stream_seed(0, "initialisation", "size_learning"))
    batches = [(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))] * 4
    theirs = effconv.learn_kernel_sizes(
        network,
        batches,
        loss_fn=lambda outputs, _: 0 * outputs.nan_to_num().sum(),
        **asdict(settings(one.size_learning, 0)),
    )
    assert found.sizes == theirs.sizes and found.snapped == theirs.snapped and found.settings == theirs.settings
    assert [point["v"] for point in found.history] == [point["v"] for point in theirs.history]
    assert found.history[0]["v"] != found.history[-1]["v"]


def test_init_only_reaches_the_budget_by_itself() -> None:
    one = control("init_only", depth=20, budget=660_000, epochs=1)
    start, found = sizes(one, steps=1), sizes(one, steps=150)
    assert start.history[0]["budget_error"] < -0.3
    assert min(abs(point["budget_error"]) for point in found.history) < 0.05
    assert abs(weights(found.sizes, one) / 660_000 - 1) <= 0.01
    assert sizes(one, 1, steps=150).sizes != found.sizes


def test_labels_and_images_have_no_say(tmp_path: Path) -> None:
    for source in ("random", "init_only"):
        one = control(source)
        here = learned(one, tmp_path / source)
        other = learn(
            one, 0, synthetic(train=37, size=12), device=torch.device("cpu"), folder=tmp_path / f"{source}2",
            every=60.0, progress=Quiet(), stop=never,
        )  # fmt: skip
        assert (here.sizes, here.snapped, here.history) == (other.sizes, other.snapped, other.history)


def test_as_many_steps_as_size_learning_would_take(tmp_path: Path) -> None:
    quiet = Quiet()
    found = learned(control("init_only", batch_size=16, epochs=2), tmp_path, progress=quiet)
    steps = [(at.epoch, at.step, at.steps) for at in quiet.updates]
    assert steps == [(epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)]  # 40 images
    assert all(at.stage == "sizes" and at.budget_error is not None for at in quiet.updates)
    assert [(point["epoch"], point["step"]) for point in found.history] == [(e, s) for e, s, _ in steps]
    assert len(found.clock.epoch_seconds) == 2


def test_the_settings_of_a_spec_are_used() -> None:
    plain = sizes(control("init_only", epochs=4))
    for change in ({"lam": 0.01}, {"lr": 1e-2}, {"weight_decay": 0.5}, {"budget_value": "soft"}):
        assert sizes(control("init_only", epochs=4, **change)).snapped.soft != plain.snapped.soft, change
    last = sizes(control("init_only", epochs=4, readout="snap_last"))
    assert last.snapped.soft == last.history[-1]["v"] != plain.snapped.soft


def test_stopping_and_going_on(tmp_path: Path) -> None:
    one = control("init_only")
    whole = learned(one, tmp_path / "whole")
    with pytest.raises(Interrupted):
        learned(one, tmp_path / "halves", stop=StopAt(4))
    assert not (tmp_path / "halves" / "sizes.json").exists()
    again = learned(one, tmp_path / "halves")
    assert (again.sizes, again.snapped, again.history) == (whole.sizes, whole.snapped, whole.history)
    quiet = Quiet()
    assert learned(one, tmp_path / "halves", progress=quiet).sizes == whole.sizes
    assert quiet.updates == []  # it was done


@pytest.mark.parametrize("source", ["random", "init_only"])
def test_a_budget_out_of_reach_is_one_line(source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nearest reachable") as caught:
        learned(control(source, budget=9_000_000), tmp_path)
    assert "\n" not in str(caught.value)


def test_torchs_random_state_stays() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    sizes(control("init_only"))
    sizes(control("random"))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("source", ["random", "init_only"])
def test_a_whole_run_and_its_record(source: str, tmp_path: Path) -> None:
    one = control(source, epochs=1)
    record = run(one, 0, context(tmp_path / "a"))
    assert record.outcome.status == "finished" and record.sizes is not None and record.params.eq3 is not None
    assert abs(record.params.eq3 / 120_000 - 1) <= 0.01
    assert record.params.eq3 == weights(record.sizes, one)
    assert record.clock.size_learning is not None
    assert len(record.clock.size_learning.epoch_seconds) == (0 if source == "random" else 1)
    assert content(run(one, 0, context(tmp_path / "b"))) == content(record)
    assert Store(tmp_path / "a").find(one, 0) == record


def test_shuffled_labels_keep_the_classes_counts_and_the_images(tmp_path: Path) -> None:
    split = synthetic(train=57).train
    mixed = shuffled(split, 0)
    assert torch.equal(mixed.labels.bincount(), split.labels.bincount())
    assert torch.equal(mixed.images, split.images) and not torch.equal(mixed.labels, split.labels)
    assert not torch.equal(mixed.labels, shuffled(split, 1).labels)
    found = learned(spec(learning(labels="shuffled", kernel_predictor="free")), tmp_path)
    assert abs(weights(found.sizes, spec()) / 120_000 - 1) <= 0.01


def test_settings_are_those_of_the_spec() -> None:
    one = learning(epochs=3, lam=0.5, lr=1e-2, kernel_lr=1e-4, weight_decay=0.1, tolerance=0.02, max_size=5)
    found = settings(one, 7)
    assert all(getattr(found, name) == getattr(one, name) for name in NUMBERS)
    assert found.seed == stream_seed(7, "size_learning")
