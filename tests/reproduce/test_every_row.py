"""Every row of Tables 1-4: its network learns with its own loss and optimiser, and a run of it can be interrupted.

The quick suite takes one step of one row for each network; the slow one the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reproduce import experiments, paper
from reproduce.errors import Interrupted, UserError
from reproduce.experiments import Row
from reproduce.records import DataOrigin
from reproduce.run import models
from reproduce.run.augmentation import normalise
from reproduce.run.datasets import Dataset, Split
from reproduce.run.losses import make_loss
from reproduce.run.machine import keep_freed_memory
from reproduce.run.optimizers import make_optimizer
from reproduce.run.resume import Slot
from reproduce.run.training import train
from reproduce.specs import DATASETS, ModelSpec, Protocol, RunSpec
from tests.reproduce.run_samples import Quiet, StopAt, never

RATE = {"adam": 1e-3, "sgd": 1e-2}
ROWS = [row for table in experiments.EXPERIMENTS[:4] for row in experiments.rows(table, Protocol(base="paper"))]
# Batch sizes where a step takes too long at 16: solvers, kernels as large as the image, large images.
DEAR = {"dcn": 2, "ckcnn7": 4, "ckconv": 4, "table3-FlexNet-16": 2}
# Large images cost minutes; their networks are covered at the other sizes.
SMALL = [row for row in ROWS if row.experiment != "table3" or row.name == "CIFARResNet-18"]


def name(row: Row) -> str:
    return f"{row.experiment}-{row.name}"


def distinct(rows: list[Row]) -> list[Row]:
    """The first row of each network, data set and recipe: EffConv's budgets and controls share theirs."""
    found = {(str(row.spec.model), row.spec.data.name, str(row.spec.training)): row for row in reversed(rows)}
    return list(reversed(found.values()))


def one_of_each(rows: list[Row]) -> list[Row]:
    """The first row of each family, kernel network and layer."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        model = row.spec.model
        found.setdefault((model.family, model.args.get("layer"), model.args.get("kernel_net")), row)
    return list(found.values())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as runs do; a third less time where tensors are large


def images_of(dataset: str, count: int) -> tuple[Tensor, Tensor]:
    """Random uint8 images of a data set's shape, and labels."""
    facts, rng = DATASETS[dataset], torch.Generator().manual_seed(3)
    shape = (count, facts.in_channels, facts.image_size, facts.image_size)
    labels = torch.randint(facts.num_classes, (count,), generator=rng)
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8), labels


def losses(row: Row, *, steps: int, batch: int) -> list[float]:
    """Training losses of one batch, at a constant rate."""
    spec = row.spec
    recipe = spec.training.model_copy(update={"lr": RATE[spec.training.optimizer]})
    net = models.build(spec.model, spec.data.name, 0).train()
    pixels, labels = images_of(spec.data.name, batch)
    images, loss_of, optimizer = normalise(pixels, recipe.normalisation), make_loss(recipe), make_optimizer(net, recipe)
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * group["lr_factor"]
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, scores = loss_of(net, images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert scores.shape == (batch, DATASETS[spec.data.name].num_classes)
        found.append(loss.item())
    return found


@pytest.mark.parametrize("row", one_of_each(SMALL), ids=name)
def test_one_step_moves_every_parameter_that_should_move(row: Row) -> None:
    spec = row.spec
    net = models.build(spec.model, spec.data.name, 0).train()
    pixels, labels = images_of(spec.data.name, 2)
    loss, _ = make_loss(spec.training)(net, normalise(pixels, spec.training.normalisation), labels)
    assert loss.isfinite()
    loss.backward()  # type: ignore[no-untyped-call]
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), key


@pytest.mark.slow
@pytest.mark.parametrize("row", distinct(ROWS), ids=name)
def test_twenty_steps_lower_the_training_loss(row: Row) -> None:
    words = (row.spec.model.family, row.spec.model.args.get("layer"), name(row))
    found = losses(row, steps=20, batch=min(DEAR.get(str(word), 16) for word in words))
    assert min(found[-5:]) < found[0], found  # dropout makes single losses noisy


def small_run(row: Row) -> tuple[RunSpec, Dataset]:
    """Two epochs of two steps on four random images."""
    spec = row.spec
    changes: dict[str, Any] = {"epochs": 2, "batch_size": 2, "drop_last": False, "evaluate_every": 2}
    changes["lr"] = RATE[spec.training.optimizer]
    pixels, labels = images_of(spec.data.name, 6)
    splits = [Split(images=pixels[part], labels=labels[part]) for part in (slice(0, 4), slice(4, 6))]
    origin = DataOrigin(
        name=spec.data.name, source="test", title="", canonical=False, train_images=4, test_images=2, files=[]
    )
    dataset = Dataset(name=spec.data.name, train=splits[0], test=splits[1], origin=origin)
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)}), dataset


def trained(folder: Path, spec: RunSpec, dataset: Dataset, **changes: Any) -> nn.Module:
    net = models.build(spec.model, spec.data.name, 0)
    values: dict[str, Any] = {"resume": Slot(folder / "training.pt", every=1e9), "progress": Quiet(), "stop": never}
    train(net, dataset, spec.training, seed=0, device=torch.device("cpu"), **(values | changes))
    return net


@pytest.mark.slow
@pytest.mark.parametrize("row", one_of_each(SMALL), ids=name)
def test_an_interrupted_run_ends_as_if_it_had_not_been(row: Row, tmp_path: Path) -> None:
    spec, dataset = small_run(row)
    whole = trained(tmp_path / "whole", spec, dataset).state_dict()
    with pytest.raises(Interrupted):
        trained(tmp_path / "cut", spec, dataset, stop=StopAt(4))
    cut = trained(tmp_path / "cut", spec, dataset).state_dict()
    for key, value in whole.items():
        assert torch.equal(value, cut[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("row", one_of_each(SMALL), ids=name)
def test_weights_survive_a_file(row: Row, tmp_path: Path) -> None:
    spec = row.spec
    first, second = (models.build(spec.model, spec.data.name, seed) for seed in (0, 1))
    pixels, _ = images_of(spec.data.name, 2)
    images = normalise(pixels, spec.training.normalisation)
    with torch.no_grad():
        first.train()(images)  # without batch statistics CKCNN-16's kernels, as large as the image, overflow
        torch.save(first.state_dict(), tmp_path / "weights.pt")
        second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        found, loaded = first.eval()(images), second.eval()(images)
    assert found.isfinite().all()
    assert torch.equal(found, loaded)


def test_a_network_that_cannot_take_the_images_says_which_it_takes() -> None:
    with pytest.raises(UserError, match=r"efficient_capsnet on CIFAR-10: .*28 x 28"):
        models.build(ModelSpec(family="efficient_capsnet"), "cifar10", 0)


def test_each_printed_number_has_a_source() -> None:
    for table in experiments.EXPERIMENTS[:4]:
        for row in paper.rows(table):
            assert row.source == "own" or row.origin, row.name
