"""The training loop: what a step does, that a run repeats itself to the bit, and what happens when a loss explodes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from reproduce.errors import Interrupted, UserError
from reproduce.run import models
from reproduce.run.augmentation import normalise
from reproduce.run.batches import Batches, steps_per_epoch
from reproduce.run.datasets import Dataset, Split
from reproduce.run.optimizers import make_optimizer
from reproduce.run.outcome import TrainingResult, thinned
from reproduce.run.resume import Slot
from reproduce.run.streams import generator, stream_seed
from reproduce.run.training import train
from reproduce.specs import ModelSpec, Recipe
from tests.reproduce.run_samples import Quiet, StopAt, never, recipe, synthetic

RESNET8 = ModelSpec(family="cifar_resnet", args={"depth": 8})

# Loss and images' order are to stay what they are. If this number changes on purpose, raise PROTOCOL_VERSION in
# reproduce/specs.py and put the new one here.
GOLDEN = {"sgd": 2.5392878, "adam": 2.4977550}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(
    folder: Path, chosen: Recipe, dataset: Dataset | None = None, *, seed: int = 0, **changes: Any
) -> tuple[TrainingResult, torch.nn.Module]:
    net = models.build(RESNET8, "cifar10", stream_seed(seed, "initialisation"))
    values: dict[str, Any] = {"resume": Slot(folder / "training.pt", every=1e9), "progress": Quiet(), "stop": never}
    device = torch.device("cpu")
    result = train(net, dataset or synthetic(), chosen, seed=seed, device=device, **(values | changes))
    return result, net


def test_a_run_repeats_itself_to_the_bit(tmp_path: Path) -> None:
    first, net = trained(tmp_path / "a", recipe())
    torch.rand(3)  # the default generator plays no part
    second, other = trained(tmp_path / "b", recipe())
    assert first.metrics == second.metrics and first.history == second.history
    assert first.correct_bits == second.correct_bits
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))
    third, _ = trained(tmp_path / "c", recipe(), seed=1)
    assert third.history != first.history


def test_the_loop_is_the_plain_one(tmp_path: Path) -> None:
    """Against a loop written out: order, augmentation off, rate by step, the last partial batch kept."""
    chosen = recipe(optimizer="sgd", momentum=0.9, nesterov=True, weight_decay=1e-3, lr=0.05, augmentation="none")
    result, net = trained(tmp_path, chosen)
    data, plain = synthetic(), models.build(RESNET8, "cifar10", stream_seed(0, "initialisation"))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=1e-3)
    losses, warmup = [], 2
    for epoch in (1, 2):
        order, total = torch.randperm(40, generator=generator(0, "order", epoch)), 0.0
        for step in range(3):
            chosen_images = order[16 * step : 16 * step + 16]
            t = 3 * (epoch - 1) + step
            cosine = 1e-6 + (0.075 - 1e-6) * (1 + math.cos(math.pi * (t - 3) / 4)) / 2
            optimizer.param_groups[0]["lr"] = 0.05 * t / warmup if t < 3 else cosine
            images, labels = data.train.images[chosen_images], data.train.labels[chosen_images]
            loss = F.cross_entropy(plain(normalise(images, "imagenet")), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen_images)
        losses.append(total / 40)
    assert [point["train_loss"] for point in result.history] == pytest.approx(losses, rel=1e-3)
    assert result.history[-1]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
    for mine, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.contiguous(), theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_golden_loss(tmp_path: Path, optimizer: str) -> None:
    chosen = recipe(optimizer=optimizer, lr={"sgd": 0.02, "adam": 1e-3}[optimizer], schedule="constant")
    result, _ = trained(tmp_path, chosen)
    loss = result.history[-1]["train_loss"]
    assert loss == pytest.approx(GOLDEN[optimizer], rel=1e-4), (
        f"the loss after six steps is {loss!r}: results have changed. If that is meant, raise PROTOCOL_VERSION in "
        "reproduce/specs.py and put the new loss into GOLDEN"
    )


def test_it_learns(tmp_path: Path) -> None:
    result, _ = trained(tmp_path, recipe(epochs=6, augmentation="none", lr=0.003), synthetic(200, 50))
    assert result.metrics is not None and result.metrics.train_loss < result.history[0]["train_loss"] - 0.5


def test_evaluation_falls_on_the_stated_epochs_and_on_the_last(tmp_path: Path) -> None:
    result, _ = trained(tmp_path, recipe(epochs=5, evaluate_every=2))
    assert [point["epoch"] for point in result.history if "top1" in point] == [2, 4, 5]
    assert result.metrics is not None and result.metrics.last.epoch == 5
    assert result.metrics.best.top1 == max(point["top1"] for point in result.history if "top1" in point)
    assert len(result.clock.epoch_seconds) == 5 and len(result.clock.evaluation_seconds) == 3
    assert all(seconds > 0 for seconds in result.clock.epoch_seconds + result.clock.evaluation_seconds)


@pytest.mark.parametrize("changes", [{"lr": 1e30, "optimizer": "sgd"}, {"lr": 3e38}])
def test_a_loss_that_explodes_is_an_outcome(tmp_path: Path, changes: dict[str, Any]) -> None:
    result, _ = trained(tmp_path, recipe(schedule="constant", **changes))
    assert "not finite" in result.diverged
    assert result.metrics is None and result.correct_bits is None
    again, _ = trained(tmp_path, recipe(schedule="constant", **changes))  # from the saved state
    assert again.diverged == result.diverged


@pytest.mark.parametrize("chosen", [recipe(), recipe(optimizer="sgd", momentum=0.9), recipe(optimizer="adamw")])
def test_stopping_anywhere_changes_nothing(tmp_path: Path, chosen: Recipe) -> None:
    whole, net = trained(tmp_path / "whole", chosen)
    for at in (2, 3, 4, 5, 6, 7):
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            trained(folder, chosen, stop=StopAt(at))
        cut, other = trained(folder, chosen)
        assert cut.metrics == whole.metrics and cut.history == whole.history and cut.correct_bits == whole.correct_bits
        assert len(cut.clock.epoch_seconds) == 2
        for key, value in net.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_stopping_again_and_again_changes_nothing(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", recipe())
    for _ in range(20):
        try:
            cut, _ = trained(tmp_path / "cut", recipe(), stop=StopAt(2))
            break
        except Interrupted:
            pass
    assert cut.metrics == whole.metrics and cut.history == whole.history


def test_more_images_than_one_batch_are_needed_where_the_last_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="less than one batch"):
        trained(tmp_path, recipe(batch_size=64, drop_last=True))


def test_batches_cover_the_split_once_in_an_order_of_their_own() -> None:
    labels = torch.arange(10)
    split = Split(images=torch.zeros(10, 3, 8, 8, dtype=torch.uint8), labels=labels)
    values: dict[str, Any] = {"split": split, "seed": 0, "stream": (), "batch_size": 4}
    values |= {"augmentation": "none", "normalisation": "imagenet"}
    orders = [torch.cat([labels for _, labels in Batches(epoch=epoch, **values)]).tolist() for epoch in (1, 2, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == labels.tolist()
    assert orders[0] == orders[2] != orders[1]
    assert [len(labels) for _, labels in Batches(epoch=1, **values)] == [4, 4, 2]
    assert [len(labels) for _, labels in Batches(epoch=1, drop_last=True, **values)] == [4, 4]
    other = torch.cat([labels for _, labels in Batches(epoch=1, **(values | {"stream": ("size_learning",)}))]).tolist()
    assert other != orders[0]
    assert steps_per_epoch(10, 4) == 3 and steps_per_epoch(10, 4, drop_last=True) == 2


def test_batches_go_on_from_a_saved_place() -> None:
    values: dict[str, Any] = {"split": synthetic().train, "seed": 3, "stream": (), "epoch": 1, "batch_size": 8}
    values |= {"augmentation": "flip_crop", "normalisation": "imagenet"}
    whole = list(Batches(**values))
    first = Batches(**values)
    opened = iter(first)
    next(opened), next(opened)
    rest = list(Batches(skip=2, augmentation_rng=first.augmentation_rng, **values))
    assert len(rest) == 3
    for (a, b), (c, d) in zip(whole[2:], rest, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_one_group_holds_every_parameter() -> None:
    net = models.build(RESNET8, "cifar10", 0)
    for name in ("adam", "adamw", "sgd"):
        (group,) = make_optimizer(net, recipe(optimizer=name, weight_decay=1e-4)).param_groups
        assert len(group["params"]) == len(list(net.parameters())) and group["weight_decay"] == 1e-4


def test_streams_are_independent_and_stable() -> None:
    assert stream_seed(0, "order", 1) == stream_seed(0, "order", 1) < 2**63
    seeds = {stream_seed(seed, *names) for seed in range(3) for names in (("order", 1), ("order", 2), ("order1",), ())}
    assert len(seeds) == 12


def test_thinned_keeps_the_ends() -> None:
    points = [{"epoch": epoch} for epoch in range(1, 351)]
    kept = thinned(points)
    assert len(kept) == 100 and kept[0] == points[0] and kept[-1] == points[-1]
    assert thinned(points[:100]) == points[:100]
