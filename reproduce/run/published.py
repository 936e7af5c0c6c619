"""`reproduce evaluate`: a checkpoint of the FlexConv authors on a data set's test images, with their normalisation.

Nothing in a checkpoint is run: it is loaded as plain tensors, and all that describes the network is read off these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.flexnet import horizon_of, load_published
from baselines.published import Plan, read_published, unwrapped
from reproduce.authors import FLEXCONV
from reproduce.errors import UserError
from reproduce.naming import clock_time
from reproduce.plan import cores
from reproduce.records import Evaluation
from reproduce.run import checkpoints, datasets, machine, sources
from reproduce.run.context import on
from reproduce.run.downloads import DEFAULT_ROOT
from reproduce.run.evaluation import evaluate
from reproduce.specs import DATASETS, DatasetFacts, DataSpec

Say = Callable[[str], None]
MOST_HORIZON = 4  # times the image's side: beyond, a damaged number would ask for more memory than there is
GAP = 10.0  # seconds between two lines of progress


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A rebuilt network and what was read off its tensors."""

    network: nn.Module
    plan: Plan

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters() if parameter.requires_grad)

    def architecture(self) -> dict[str, Any]:
        plan, sizes = self.plan, self.network.kernel_sizes()  # type: ignore[operator]
        return {
            "layer": "FlexConv" if plan.structure.masked else "CKConv",
            "kernel_net": plan.structure.kernel_net,
            "blocks": len(plan.widths),
            "stem": plan.stem,
            "widths": list(plan.widths),
            "horizon": plan.horizon,
            "in_channels": plan.in_channels,
            "classes": plan.num_classes,
            "kernel_sizes": [list(size) for size in sizes.values()],
        }


def evaluate_published(
    file: Path, dataset: str, *, data_root: Path | None, cache: Path | None, device: str, say: Say
) -> dict[str, Any]:
    """Every number that the command prints. `say` hears of the progress.

    Raises `UserError` for a file that is no such checkpoint or of other images, for missing images and devices.
    """
    where, checkpoint = machine.choose_device(device), load(file, dataset)
    root = data_root or DEFAULT_ROOT
    if sources.find(dataset, root) is None:
        raise UserError(
            f"no {DATASETS[dataset].title} images in {root}; give their folder with --data-root DIR, or fetch them "
            f"with `reproduce data {dataset} --download`"
        )
    spec = DataSpec(name=dataset, source=datasets.identify(dataset, root, cache=cache))  # type: ignore[arg-type]
    found = datasets.load(spec, data_root=root, cache=cache)
    images = len(found.test)
    say(f"{file.name} on {images:,} test images of {found.origin.title}, on {where.type}")
    # Threads that wait for each other on busy cores take far longer than one alone.
    with machine.settings(1 if machine.others_at_work(1) else cores()):
        network = checkpoint.network.to(where)
        network.register_forward_hook(counter(images, say))
        done = evaluate(network, on(found.test, where), normalisation=FLEXCONV[dataset].normalisation, epoch=0)
    if done is None:
        raise UserError(f"{file}: the network's outputs are not finite; it is untrained, diverged or damaged")
    return report(file, dataset, checkpoint, done.measures, images) | {
        "data": found.origin.title,
        "canonical": found.origin.canonical,
        "device": where.type,
        "gpu": torch.cuda.get_device_name(where) if where.type == "cuda" else None,
    }


def report(
    file: Path, dataset: str, checkpoint: Checkpoint, measures: Evaluation, images: int
) -> dict[str, Any]:
    """What does not depend on where it was measured."""
    return {
        "checkpoint": file.name,
        "dataset": dataset,
        "images": images,
        "top1": measures.top1,
        "top5": measures.top5,
        "loss": measures.loss,
        "parameters": checkpoint.parameters,
        "architecture": checkpoint.architecture(),
    }


def load(file: Path, dataset: str) -> Checkpoint:
    """The network of a file, if it is one for this data set's images. Raises `UserError`."""
    facts = DATASETS[dataset]
    horizon = horizon_of(facts.image_size)  # for a network that never ran: theirs take it from the first images
    try:
        tensors = unwrapped(read(file))
        for name, tensor in tensors.items():
            checkpoints.check_whole(name, tensor)
        plan = read_published(tensors, horizon=horizon)
        check_fits(plan, facts)
        return Checkpoint(network=load_published(tensors, horizon=horizon).float(), plan=plan)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def read(file: Path) -> Mapping[str, Any]:
    """What `torch.save` wrote, by torch's restricted loader. Raises `UserError` for a file that it does not take."""
    if not file.is_file():
        raise UserError(f"there is no file {file}; name the checkpoint that is to be evaluated")
    with file.open("rb") as stream:
        try:
            found: Mapping[str, Any] = checkpoints.load(stream, torch.device("cpu"))
        except checkpoints.Foreign as error:
            raise UserError(
                f"{file} holds more than tensors ({error}), which could run code when loaded, so it is refused; "
                "save the state dict alone, by torch.save(model.state_dict(), file)"
            ) from error
        except Exception as error:  # a damaged file may fail anywhere in torch's reader
            raise UserError(f"{file} is no checkpoint that torch.save wrote, or is damaged; replace it") from error
    return found


def check_fits(plan: Plan, facts: DatasetFacts) -> None:
    """Raises `ValueError` for a network of other images or classes than the data set's."""
    if plan.in_channels != facts.in_channels:
        raise ValueError(f"this network takes {plan.in_channels} channels, {facts.title} has {facts.in_channels}")
    if plan.num_classes != facts.num_classes:
        raise ValueError(f"this network tells {plan.num_classes} classes, {facts.title} has {facts.num_classes}")
    if plan.horizon > MOST_HORIZON * facts.image_size:
        raise ValueError(f"its kernels may be {plan.horizon} wide, {facts.title}'s images are {facts.image_size}")


def counter(total: int, say: Say) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    """A forward hook that says now and then how many images have passed, and how long the rest will take."""
    done, began = 0, time.monotonic()
    told = began

    def hook(_module: nn.Module, inputs: tuple[Any, ...], _outputs: Any) -> None:
        nonlocal done, told
        done, now = done + len(inputs[0]), time.monotonic()
        if done < total and now - told >= GAP:
            told = now
            say(f"{done:,} of {total:,} images, {clock_time((now - began) / done * (total - done))} left")

    return hook


def text(found: Mapping[str, Any]) -> str:
    """`evaluate_published`'s numbers for people."""
    net, facts = found["architecture"], DATASETS[found["dataset"]]
    smallest, largest = min(net["kernel_sizes"]), max(net["kernel_sizes"])
    other = "" if net["horizon"] == horizon_of(facts.image_size) else f", not that of {facts.title}'s images"
    lines = {
        "checkpoint": found["checkpoint"],
        "data": f"{found['data']}, test set, {'canonical' if found['canonical'] else 'not canonical'}",
        "images": f"{found['images']:,}",
        "network": f"{net['layer']}, {net['kernel_net']} kernels, {net['blocks']} blocks",
        "widths": f"{net['stem']} | {', '.join(map(str, net['widths']))}",
        "horizon": f"{net['horizon']}{other}; kernels from {'x'.join(map(str, smallest))} to "
        f"{'x'.join(map(str, largest))}",
        "parameters": f"{found['parameters']:,}",
        "device": found["device"] + (f" ({found['gpu']})" if found["gpu"] else ""),
        "top-1": f"{found['top1']:.2f} %",
        "top-5": f"{found['top5']:.2f} %",
        "loss": f"{found['loss']:.4f}",
    }
    return "\n".join(f"{name:<12}{value}" for name, value in lines.items())
