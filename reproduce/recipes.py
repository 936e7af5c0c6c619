"""How long and how each row is trained: EffConv's settings, the baselines' own, and the protocols' fractions."""

from __future__ import annotations

from reproduce.authors import FLEXCONV, Augmentation, Normalisation, authors_recipe, flexconv
from reproduce.networks import Network
from reproduce.specs import DATASETS, DataSpec, Protocol, Recipe, SizeLearning

QUICK = 10  # quick is one tenth of the epochs of both stages
TINY_EPOCHS, TINY_SIZE_EPOCHS, TINY_BATCH = 2, 1, 16
SIZE_EPOCHS = {"mnist": 10, "cifar10": 10, "stl10": 10, "imagenet32": 5}  # the paper's stage 1
TINY_IMAGES = {"mnist": 64, "cifar10": 64, "stl10": 16, "imagenet32": 64}


def training(found: Network, dataset: str, protocol: Protocol) -> Recipe:
    """Stage 2, or the only stage of a baseline, shortened as the protocol says.

    Warm-up, milestones and decay scale with the epochs, so the shape of the schedule stays.
    """
    full = full_training(found, dataset, protocol)
    epochs = protocol.epochs or _shortened(full.epochs, protocol.base, TINY_EPOCHS)
    scale = epochs / full.epochs
    tiny = protocol.base == "tiny"
    return full.model_copy(
        update={
            "epochs": epochs,
            "batch_size": min(full.batch_size, TINY_BATCH) if tiny else full.batch_size,
            "warmup_epochs": round(full.warmup_epochs * scale, 9),
            "milestones": tuple(round(milestone * scale, 9) for milestone in full.milestones),
            "gamma": round(full.gamma ** (1 / scale), 9) if full.schedule == "exponential" else full.gamma,
            "drop_last": full.drop_last and not _small(dataset, protocol, full.batch_size),
            "evaluate_every": 5 if protocol.base == "quick" else 1,
        }
    )


def full_training(found: Network, dataset: str, protocol: Protocol) -> Recipe:
    """The full schedule. `protocol.recipe` chooses only for the networks that share EffConv's settings."""
    own = None if found.budget is not None else authors_recipe(found.model, dataset)
    if own is not None:
        return own
    # 'the original model's settings, following FlexConv' read as FlexConv's own. FlexConv's "weight decay" on
    # ImageNet-32 acts on its own layers alone, so there is none here.
    return _sgd(found.model.family, dataset) if protocol.recipe == "sgd" else flexconv(dataset)


def _small(dataset: str, protocol: Protocol, batch_size: int) -> bool:
    """Whether dropping the last batch would leave little or nothing: so few images that no step may be lost."""
    images = protocol.train_images or DATASETS[dataset].train_images
    return protocol.base == "tiny" or images < 10 * batch_size


def size_learning(found: Network, dataset: str, protocol: Protocol, stage2: Recipe) -> SizeLearning:
    """Stage 1 with the paper's settings; batch size, augmentation and normalisation are those of stage 2.

    The rates stay constant. A control differs in where the sizes or the labels come from and in nothing else.
    """
    assert found.budget is not None
    epochs = protocol.size_epochs or _shortened(SIZE_EPOCHS[dataset], protocol.base, TINY_SIZE_EPOCHS)
    # the paper gives no batch size or augmentation for this stage.
    return SizeLearning(
        budget=found.budget,
        epochs=epochs,
        batch_size=stage2.batch_size,
        augmentation=stage2.augmentation,
        source={"random": "random", "init-only": "init_only"}.get(found.control or "", "data"),  # type: ignore[arg-type]
        labels="shuffled" if found.control == "shuffled" else "true",
    )


def data(dataset: str, protocol: Protocol, source: str | None) -> DataSpec:
    """Which images. `source` None: the bundled digits under `tiny`, the canonical files otherwise."""
    tiny = protocol.base == "tiny"
    few = TINY_IMAGES[dataset] if tiny else None
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


def _sgd(family: str, dataset: str) -> Recipe:
    """R-15, the other reading: SGD with steps, as the networks' own authors train them on CIFAR-10.

    On other data sets the same schedule; MNIST is neither flipped nor cropped, as a mirrored digit is none.
    """
    wide = family == "wide_resnet"
    augmentation: Augmentation = "flip_crop_reflect" if wide else "flip_crop"
    by_family: Normalisation = "cifar10" if wide else "imagenet"
    own = FLEXCONV[dataset].normalisation
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
