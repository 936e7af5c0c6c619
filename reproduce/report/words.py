"""Numbers, protocols, data and machines in the words of the tables and figures. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reproduce import recipes
from reproduce.networks import Network
from reproduce.paper import PaperRow, Printed
from reproduce.records import DataOrigin
from reproduce.report.statistics import Summary
from reproduce.specs import DATASETS, ModelSpec, Protocol, Recipe, SizeLearning

NOTHING = "-"
SMOKE_TEST = "A smoke test, no measurement: it runs on scikit-learn's bundled digits and shows that all parts work."


def heading(title: str, smoke: bool) -> str:
    """The paper's title; a smoke test is named as one."""
    return f"Smoke test on digits: the rows of {title}" if smoke else title


def title(printed: str, dataset: str, protocol: Protocol, smoke: bool) -> str:
    """Experiment, data set, and protocol with what it is of the paper's schedule."""
    return f"{heading(printed, smoke)}, protocol {protocol.name} ({schedule(dataset, protocol)})"


def measured(summary: Summary | None, *, count: bool = True, places: int = 2) -> str:
    """`92.35 ± 0.05 (n = 3)`; a single value has no deviation."""
    if summary is None:
        return NOTHING
    spread = "" if summary.std is None else f" ± {summary.std:.{places}f}"
    return f"{summary.mean:.{places}f}{spread}" + (f" (n = {summary.n})" if count else "")


def interval(summary: Summary | None) -> str:
    """`92.23 to 92.47`, or nothing at one value."""
    ends = None if summary is None else summary.interval
    return NOTHING if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def printed(value: Printed | None, std: Printed | None = None, *, approximate: bool = False) -> str:
    """A number as the paper prints it: `92.30 ± 0.11`, `~205`."""
    if value is None:
        return NOTHING
    return ("~" if approximate else "") + str(value) + ("" if std is None else f" ± {std}")


def printed_seconds(row: PaperRow) -> str:
    return printed(row.seconds, approximate=row.seconds_approximate)


def seconds(value: float) -> str:
    """A time to three digits, and whole seconds from 100 on: `0.402`, `17.8`, `1,832`."""
    places = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{places}f}"


def ratio(value: float) -> str:
    """`0.97`, `3.21`, `136`."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def kernel(height: int, width: int) -> str:
    """`7x5`; a square one as `5`."""
    return str(height) if height == width else f"{height}x{width}"


def counts(values: Sequence[int | None]) -> str:
    """Weights, of one or several seeds: `659,712` or `658,176 to 661,504`."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return NOTHING
    return f"{known[0]:,}" if known[0] == known[-1] else f"{known[0]:,} to {known[-1]:,}"


def millions(values: Sequence[int | None]) -> str:
    """Weights in short: `0.66M`."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known) / 1e6:.2f}M" if known else NOTHING


def number_list(numbers: Sequence[int]) -> str:
    """Sorted numbers such as seeds: `0`, `0, 2`, `0..4`."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]}..{numbers[-1]}"
    return ", ".join(str(number) for number in numbers)


def seed_list(seeds: Sequence[int]) -> str:
    """`seed 0`, `seeds 0..2`."""
    return ("seed " if len(seeds) == 1 else "seeds ") + number_list(seeds)


def per_cent(share: float) -> str:
    """A signed share: 0.0123 -> `+1.23 %`."""
    return f"{100 * share:+.2f} %"


def data_remark(origin: DataOrigin) -> str:
    """What a number's header or cell must say of data that are not the canonical files; empty for those."""
    if origin.canonical:
        return ""
    title = one_line(origin.title)
    match = re.search(r"\((.*)\)", title)
    return match[1] if match else title


def machine_title(description: Mapping[str, Any], device: str) -> str:
    """`NVIDIA H200, torch 2.9.0`: the hardware that computed, and torch."""
    gpu = description.get("gpu") if device != "cpu" else None
    hardware = gpu or description.get("cpu") or "unknown hardware"
    if not gpu and description.get("cores"):
        hardware = f"{hardware} ({description['cores']} cores)"
    torch = f", torch {description['torch']}" if description.get("torch") else ""
    return one_line(f"{hardware}{torch}")


def schedule(dataset: str, protocol: Protocol) -> str:
    """What a protocol is of the paper's schedule: `35 of 350 epochs of training, 1 of 10 of size learning`."""
    reading = "" if protocol.recipe == "flexconv" else ", with the other reading of the training settings (SGD, R-15)"
    if protocol.base == "paper" and protocol.name in ("paper", "paper-sgd"):
        return "the paper's full schedule" + reading
    whole = Protocol(base="paper", recipe=protocol.recipe)
    effconv = Network(model=ModelSpec(family="cifar_resnet", args={"depth": 20}), budget=1)
    full, ours = (recipes.training(effconv, dataset, one) for one in (whole, protocol))
    learn_full, learn_ours = (
        recipes.size_learning(effconv, dataset, one, stage2).epochs for one, stage2 in ((whole, full), (protocol, ours))
    )
    parts = [f"{ours.epochs} of {full.epochs} epochs of training", f"{learn_ours} of {learn_full} of size learning"]
    facts, data = DATASETS[dataset], recipes.data(dataset, protocol, None)
    if data.train_images is not None:
        parts.append(f"{data.train_images:,} of {facts.train_images:,} training images")
    if data.test_images is not None:
        parts.append(f"{data.test_images:,} of {facts.test_images:,} test images")
    return ", ".join(parts) + reading


def recipe(one: Recipe, full_epochs: int) -> str:
    """Stage 2 in one sentence. `full_epochs`: of the row's own full schedule."""
    optimiser = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[one.optimizer]
    momentum = f", {'Nesterov ' if one.nesterov else ''}momentum {one.momentum:g}" if one.momentum else ""
    evaluation = "every epoch" if one.evaluate_every == 1 else f"every {one.evaluate_every} epochs and the last"
    return (
        f"{_of(one.epochs, full_epochs)} epochs, batch {one.batch_size}, {optimiser}, learning rate {one.lr:g}"
        f"{momentum}, weight decay {one.weight_decay:g}{_groups(one)}, {_course(one)}, {_loss(one)}"
        f"{_augmentation(one.augmentation)}, {_constants(one.normalisation)}; evaluated after {evaluation}"
    )


def size_learning(one: SizeLearning) -> str:
    """Stage 1 in one sentence, without its budget."""
    return (
        f"{one.epochs} epochs, batch {one.batch_size}, AdamW, learning rate {one.lr:g} ({one.kernel_lr:g} for the "
        f"kernel predictor), weight decay {one.weight_decay:g}, lambda {one.lam:g}, sizes 1 to {one.max_size}, "
        f"{_augmentation(one.augmentation)}"
    )


def one_line(text: str) -> str:
    """Free text, such as a reason, made fit for a footnote."""
    return " ".join(text.split())


def _of(epochs: int, full: int) -> str:
    """`6 of 90`, or `90`."""
    return str(epochs) if epochs == full else f"{epochs} of {full}"


def _course(one: Recipe) -> str:
    if one.schedule == "flexconv_cosine":
        return f"cosine after {one.warmup_epochs:.3g} epochs of warm-up"
    if one.schedule == "steps":
        return f"times {one.gamma:g} after " + ", ".join(f"{epoch:.3g}" for epoch in one.milestones) + " epochs"
    if one.schedule == "exponential":
        return f"times {one.gamma:.4g} each epoch, not below {one.lr_floor:g}"
    if one.schedule == "redrawn":
        return "rate drawn anew after each epoch that does not raise the best training accuracy"
    return "constant rate"


def _groups(one: Recipe) -> str:
    """What is trained unlike the rest: `, *.bias: rate x 2, decay 0`."""
    decays = (("" if group.weight_decay is None else f", decay {group.weight_decay:g}") for group in one.groups)
    found = (
        f"{group.names}: rate x {group.lr_factor:g}{decay}" for group, decay in zip(one.groups, decays, strict=True)
    )
    return f" ({'; '.join(found)})" if one.groups else ""


def _loss(one: Recipe) -> str:
    if one.loss == "capsnet":
        return "margin and reconstruction loss, "
    return f"{one.kernel_penalty:g} times the norms of kernels and biases in the loss, " if one.kernel_penalty else ""


def _augmentation(kind: str) -> str:
    return {
        "none": "no augmentation",
        "flip_crop": "random flips and crops",
        "flip_crop_reflect": "random flips and crops with reflected borders",
        "capsnet": "random rotation, shift, squeeze and erasing",
        "vgg5": "random perspective and rotation",
    }[kind]


def _constants(kind: str) -> str:
    other = {"unit": "pixels in 0..1", "capsnet": "pixels divided by 256"}
    title = {"imagenet": "ImageNet", "cifar10_exact": "CIFAR-10 (N-JetNet's)"}
    return other.get(kind) or f"normalised with the constants of {title.get(kind) or DATASETS[kind].title}"
