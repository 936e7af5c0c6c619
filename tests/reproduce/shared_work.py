"""What the processes of `test_distributed` do: importable by a fresh interpreter, each call one process's part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reproduce.errors import Interrupted
from reproduce.run import models, size_learning
from reproduce.run.context import Run
from reproduce.run.distributed import Group, OutOfStep, joined
from reproduce.run.resume import Notes, Slot
from reproduce.run.size_steps import Epochs, Follower
from reproduce.run.training import train
from reproduce.specs import DataSpec, ModelSpec, Recipe, RunSpec, SizeLearning
from tests.reproduce.run_samples import Quiet, StopAt, learning, never, recipe, synthetic

CPU = torch.device("cpu")
BATCH = 16


class InDouble(nn.Module):
    """A network in float64 whose norms see one image at a time, so that only the images of a step matter."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = grouped(net).double()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.net(images.double())
        return scores


def grouped(net: nn.Module) -> nn.Module:
    """Group norm in place of batch norm, everywhere."""
    for name, child in net.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(net, name, nn.GroupNorm(4, child.num_features))
        else:
            grouped(child)
    return net


def network(depth: int = 20) -> nn.Module:
    return InDouble(models.build(ModelSpec(family="cifar_resnet", args={"depth": depth}), "imagenet32", 3))


def with_dropout(family: str) -> nn.Module:
    """Batch norm, which counts by process, and noise; FlexNet has both."""
    if family == "flexnet":
        return models.build(ModelSpec(family="flexnet", args={"blocks": 3, "width": 4}), "cifar10", 3)
    net = models.build(ModelSpec(family=family, args={"depth": 8}), "cifar10", 3)
    return nn.Sequential(nn.Dropout(0.1), net)


def once(images: int) -> Recipe:
    return recipe(epochs=1, batch_size=BATCH, evaluate_every=1)


def trained(rank: int, size: int, folder: Path, images: int) -> None:
    """One epoch of training; leaves the weights and the loss of each process."""
    torch.set_num_threads(1)
    net = network()
    slot = Slot(folder / "training.pt", every=1e9)
    options: dict[str, Any] = {"seed": 0, "device": CPU, "resume": slot, "progress": Quiet(), "stop": never}
    if size == 1:
        result = train(net, synthetic(images), once(images), **options)
    else:
        with joined(rank, size, folder / "store", device=CPU) as group:
            result = train(net, synthetic(images), once(images), **options, group=group)
    assert result.metrics is not None
    found = {"weights": net.state_dict(), "loss": result.history[0]["train_loss"], "top1": result.metrics.last.top1}
    torch.save(found, folder / f"{rank}.pt")


def stopped_and_resumed(rank: int, size: int, folder: Path, family: str, stops: tuple[int, ...]) -> None:
    """Two epochs of training, interrupted when the first process is asked so often; leaves the weights."""
    torch.set_num_threads(1)
    data = synthetic(55)
    chosen = recipe(batch_size=5 * size, kernel_penalty=1e-5 if family == "flexnet" else 0.0)
    for attempt, at in enumerate((*stops, 10**9)):
        net = with_dropout(family)
        with joined(rank, size, folder / f"store{attempt}", device=CPU) as group:
            slot = Slot(folder / "training.pt", every=1e9)
            stop = StopAt(at) if rank == 0 else never
            try:
                train(net, data, chosen, seed=0, device=CPU, resume=slot, progress=Quiet(), stop=stop, group=group)
            except Interrupted:
                assert at < 10**9
            else:
                assert at == 10**9
    torch.save(net.state_dict(), folder / f"{rank}.pt")


def learned(rank: int, size: int, folder: Path, images: int) -> None:
    """One epoch of size learning; leaves what was found, and all weights in the state that the first process saves."""
    torch.set_num_threads(1)
    size_learning.build = lambda *_: network(8)  # type: ignore[assignment]
    chosen = RunSpec(
        model=ModelSpec(family="cifar_resnet", args={"depth": 8}),
        size_learning=stage_1(),
        data=DataSpec(name="imagenet32", source="test"),
        training=once(images),
        protocol="tiny",
    )
    epochs = Epochs(split=synthetic(images).train, seed=0, learning=stage_1(), normalisation="imagenet")
    follower = Follower(
        epochs=epochs,
        steps=5,
        notes=Notes(folder / "notes.json"),
        every=1e9,
        progress=Quiet(),
        stop=never,
    )
    options: dict[str, Any] = {"device": CPU, "checkpoint": folder / "size_learning.pt"}
    if size == 1:
        result = size_learning.call(chosen, 0, epochs, follower, **options)
    else:
        with joined(rank, size, folder / "store", device=CPU) as group:
            result = size_learning.call(chosen, 0, epochs, follower, **options, group=group)
    torch.save({"sizes": result.sizes, "history": result.history}, folder / f"{rank}.pt")


def stage_1() -> SizeLearning:
    return learning(epochs=1, batch_size=BATCH)


def out_of_step(rank: int, size: int, folder: Path) -> None:
    """Whether processes whose weights differ in a bit notice it, and equal ones do not."""
    with joined(rank, size, folder / "store", device=CPU) as group:
        group.check([torch.ones(3), torch.tensor(2.0, dtype=torch.float64)], "ones")
        off = torch.tensor([1.0, 1.0, 1.0 + rank * 2.0**-23])
        try:
            group.check([torch.ones(3), off], "weights")
        except OutOfStep as error:
            (folder / f"{rank}.txt").write_text(str(error))


def means(rank: int, size: int, folder: Path) -> None:
    """The mean of what two processes hold: 1 image here, 3 there."""
    with joined(rank, size, folder / "store", device=CPU) as group:
        a, b = torch.tensor([[4.0 * rank], [8.0]]), torch.tensor(-4.0 * rank)
        group.average([a, b], 1 + 2 * rank)
        torch.save([a, b], folder / f"{rank}.pt")


def fail_in_second(run: Run, group: Group | None) -> None:
    """Work that goes on until the second process raises an error of its own."""
    assert group is not None
    for step in range(1000):
        if step == 3 and group.rank == 1:
            raise ValueError("the second one\nhas had enough")
        group.agree(False)


def wait_for_ever(run: Run, group: Group | None) -> None:
    """Work that says which process does it, and never ends."""
    assert group is not None
    (run.folder / f"pid{group.rank}").write_text(str(os.getpid()))
    while True:
        group.agree(False)
