"""How long and how each network is trained: settings by data set, the SGD reading, and the protocols' fractions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reproduce.specs import DataSpec, Protocol, Recipe, SizeLearning

Augmentation = Literal["none", "flip_crop", "flip_crop_reflect"]
Normalisation = Literal["mnist", "imagenet", "cifar10", "stl10"]

QUICK = 10  # quick is one tenth of the epochs of both stages
TINY_EPOCHS, TINY_SIZE_EPOCHS, TINY_BATCH = 2, 1, 16


@dataclass(frozen=True, kw_only=True)
class Setting:
    """FlexConv's settings for one data set, as far as they differ between data sets."""

    epochs: int
    batch_size: int
    augmentation: Augmentation
    normalisation: Normalisation
    size_epochs: int = 10  # the paper's stage 1
    tiny_images: int = 64


SETTINGS = {
    "mnist": Setting(epochs=350, batch_size=64, augmentation="none", normalisation="mnist"),
    "cifar10": Setting(epochs=350, batch_size=64, augmentation="flip_crop", normalisation="imagenet"),
    "stl10": Setting(epochs=100, batch_size=256, augmentation="none", normalisation="stl10", tiny_images=16),
    "imagenet32": Setting(
        epochs=350, batch_size=2048, augmentation="flip_crop", normalisation="imagenet", size_epochs=5
    ),
}


def training(family: str, dataset: str, protocol: Protocol) -> Recipe:
    """Stage 2, or the only stage of a baseline, shortened as the protocol says.

    Warm-up and milestones scale with the epochs, so the shape of the schedule stays.
    """
    full = _sgd(family, dataset) if protocol.recipe == "sgd" else _flexconv(dataset)
    epochs = protocol.epochs or _shortened(full.epochs, protocol.base, TINY_EPOCHS)
    scale = epochs / full.epochs
    tiny = protocol.base == "tiny"
    return full.model_copy(
        update={
            "epochs": epochs,
            "batch_size": min(full.batch_size, TINY_BATCH) if tiny else full.batch_size,
            "warmup_epochs": round(full.warmup_epochs * scale, 9),
            "milestones": tuple(round(milestone * scale, 9) for milestone in full.milestones),
            "evaluate_every": 5 if protocol.base == "quick" else 1,
        }
    )


def size_learning(budget: int, dataset: str, protocol: Protocol, stage2: Recipe) -> SizeLearning:
    """Stage 1 with the paper's settings; batch size, augmentation and normalisation are those of stage 2.

    The rates stay constant.
    """
    full = SETTINGS[dataset].size_epochs
    epochs = protocol.size_epochs or _shortened(full, protocol.base, TINY_SIZE_EPOCHS)
    # the paper gives no batch size or augmentation for this stage.
    return SizeLearning(budget=budget, epochs=epochs, batch_size=stage2.batch_size, augmentation=stage2.augmentation)


def data(dataset: str, protocol: Protocol, source: str | None) -> DataSpec:
    """Which images. `source` None: the bundled digits under `tiny`, the canonical files otherwise."""
    tiny = protocol.base == "tiny"
    few = SETTINGS[dataset].tiny_images if tiny else None
    return DataSpec(
        name=dataset,  # type: ignore[arg-type]
        source=source or ("digits" if tiny else "canonical"),
        train_images=protocol.train_images or few,
        test_images=few,
    )


def _shortened(epochs: int, base: str, tiny: int) -> int:
    """Epochs of `paper`, `quick` or `tiny`."""
    # quick and tiny are stated fractions, not settings of the paper.
    return {"paper": epochs, "quick": max(1, epochs // QUICK), "tiny": tiny}[base]


def _flexconv(dataset: str) -> Recipe:
    """FlexConv's settings (its experiments/readme.md): Adam, no decay, five epochs of warm-up, cosine."""
    setting = SETTINGS[dataset]
    # 'the original model's settings, following FlexConv' read as FlexConv's own. FlexConv's "weight decay" on
    # ImageNet-32 acts on its own layers alone, so it is 0 here. R-18: the last partial batch is kept.
    return Recipe(
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        optimizer="adam",
        lr=0.01,
        schedule="flexconv_cosine",
        warmup_epochs=5.0,
        augmentation=setting.augmentation,
        normalisation=setting.normalisation,
        drop_last=False,
        evaluate_every=1,
    )


def _sgd(family: str, dataset: str) -> Recipe:
    """R-15, the other reading: SGD with steps, as the networks' own authors train them on CIFAR-10.

    On other data sets the same schedule; MNIST is neither flipped nor cropped, as a mirrored digit is none.
    """
    wide = family == "wide_resnet"
    augmentation: Augmentation = "flip_crop_reflect" if wide else "flip_crop"
    by_family: Normalisation = "cifar10" if wide else "imagenet"
    own = SETTINGS[dataset].normalisation
    return Recipe(
        epochs=200,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=wide,
        weight_decay=5e-4 if wide else 1e-4,
        schedule="steps",
        # In finished epochs. Wide ResNets step at the start of epochs 60, 120 and 160, counted from one.
        milestones=(59.0, 119.0, 159.0) if wide else (100.0, 150.0),
        gamma=0.2 if wide else 0.1,
        augmentation="none" if dataset == "mnist" else augmentation,
        normalisation=own if dataset in ("mnist", "stl10") else by_family,
        drop_last=False,
        evaluate_every=1,
    )
