"""How each baseline's own authors train it, data set by data set: full schedules, before any protocol shortens them.

ResNets and Wide ResNets are not here: they are EffConv's own networks and share its settings, whichever reading of
them is chosen (R-15). The one exception is Table 4's WRN-28-1, which the paper cites with a recipe of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from reproduce.specs import ModelSpec, ParameterGroup, Recipe

Augmentation = Literal["none", "flip_crop", "flip_crop_reflect"]
Normalisation = Literal["mnist", "imagenet", "cifar10", "stl10"]

# FlexConv's sheet: the mask's means and sigmas learn at a tenth of the rate.
MASK = ParameterGroup(names="*mask_params", lr_factor=0.1)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """FlexConv's settings for one data set, as far as they differ between data sets."""

    epochs: int
    batch_size: int
    augmentation: Augmentation
    normalisation: Normalisation


FLEXCONV = {
    "mnist": Setting(epochs=350, batch_size=64, augmentation="none", normalisation="mnist"),
    "cifar10": Setting(epochs=350, batch_size=64, augmentation="flip_crop", normalisation="imagenet"),
    "stl10": Setting(epochs=100, batch_size=256, augmentation="none", normalisation="stl10"),
    "imagenet32": Setting(epochs=350, batch_size=2048, augmentation="flip_crop", normalisation="imagenet"),
}


def flexconv(dataset: str, **changes: Any) -> Recipe:
    """FlexConv (its experiments/readme.md): Adam at 0.01, five epochs of warm-up, cosine; R-18: no batch dropped."""
    setting = FLEXCONV[dataset]
    values: dict[str, Any] = {
        "epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "optimizer": "adam",
        "lr": 0.01,
        "schedule": "flexconv_cosine",
        "warmup_epochs": 5.0,
        "augmentation": setting.augmentation,
        "normalisation": setting.normalisation,
        "drop_last": False,
        "evaluate_every": 1,
    }
    return Recipe(**(values | changes))


def authors_recipe(model: ModelSpec, dataset: str) -> Recipe | None:
    """The full recipe of a baseline's own authors; None for the networks that share EffConv's."""
    if model.family == "wide_resnet" and dataset == "imagenet32":
        return _imagenet32_wide_resnet()
    make = RECIPES.get(model.family)
    return None if make is None else make(model, dataset)


def _flexnet(model: ModelSpec, dataset: str) -> Recipe:
    """FlexConv's command for each kernel network: SIREN at a tenth of the rate, a mask wherever there is FlexConv."""
    masked = model.args.get("layer", "flexconv") == "flexconv"
    return flexconv(
        dataset,
        lr=0.001 if model.args.get("kernel_net") == "siren" else 0.01,
        groups=(MASK,) if masked else (),
        # Their "weight decay" is a penalty on the norms of sampled kernels and biases, on ImageNet-32 alone.
        kernel_penalty=1e-5 if dataset == "imagenet32" else 0.0,
    )


def _ckcnn7(model: ModelSpec, dataset: str) -> Recipe:
    """R-27: as CKCNN-16, since nothing is known of it."""
    return flexconv(dataset, lr=0.001)


def _njet(model: ModelSpec, dataset: str) -> Recipe:
    """N-JetNet's demo: SGD, 90 epochs, decay on every parameter, sigma's logarithm included."""
    # on all training images; the demo keeps a tenth of them for validation. Both networks of Table 2.
    return Recipe(
        epochs=90,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="steps",
        milestones=(30.0, 60.0),
        gamma=0.1,
        augmentation="flip_crop",
        normalisation="cifar10_exact",
        evaluate_every=1,
    )


def _dcn(model: ModelSpec, dataset: str) -> Recipe:
    """DCN's CIFAR-10 script: SGD without decay, 100 epochs, one step at 80, pixels in 0..1, last batch dropped."""
    return Recipe(
        epochs=100,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        schedule="steps",
        milestones=(80.0,),
        gamma=0.1,
        augmentation="flip_crop",
        normalisation="unit",
        drop_last=True,
        evaluate_every=1,
    )


def _capsnet(model: ModelSpec, dataset: str) -> Recipe:
    """Efficient-CapsNet's config: Adam (Keras's epsilon), 0.97 an epoch down to a tenth, batches of 16."""
    return Recipe(
        epochs=150,
        batch_size=16,
        optimizer="adam",
        adam_eps=1e-7,
        lr=5e-4,
        schedule="exponential",
        gamma=0.97,
        lr_floor=5e-5,
        augmentation="capsnet",
        normalisation="capsnet",
        loss="capsnet",
        evaluate_every=1,
    )


def _vgg5(model: ModelSpec, dataset: str) -> Recipe:
    """SpinalNet's MNIST script: Adam whose rate is drawn anew whenever an epoch is no improvement."""
    # no improvement of the *training* accuracy; theirs looks at the test set.
    return Recipe(
        epochs=200,
        batch_size=100,
        optimizer="adam",
        lr=0.005,
        schedule="redrawn",
        augmentation="vgg5",
        normalisation="mnist",
        evaluate_every=1,
    )


def _nin(model: ModelSpec, dataset: str) -> Recipe:
    """NiN's cuda-convnet parameters: biases at twice the rate and without decay, the last layer at a tenth."""
    # schedule as for its CIFAR-10, pixels in 0..1; neither is published for MNIST.
    return Recipe(
        epochs=260,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="steps",
        milestones=(200.0, 230.0),
        gamma=0.1,
        groups=(
            ParameterGroup(names="head.bias", lr_factor=0.2, weight_decay=0.0),
            ParameterGroup(names="head.weight", lr_factor=0.1),
            ParameterGroup(names="*.bias", lr_factor=2.0, weight_decay=0.0),
        ),
        augmentation="none",
        normalisation="unit",
        evaluate_every=1,
    )


def _resnet18(model: ModelSpec, dataset: str) -> Recipe:
    """R-37: as FlexConv's authors trained this network on STL-10; the settings behind the printed 81.0 are unknown."""
    return flexconv(dataset, epochs=350)


def _imagenet32_wide_resnet() -> Recipe:
    """Chrabaszcz et al.: 40 epochs that show every image and its mirror image, so 80 here; L2 without the half."""
    # mean and deviation by channel; theirs subtracts the mean image and divides by 255.
    return Recipe(
        epochs=80,
        batch_size=128,
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-3,
        schedule="steps",
        milestones=(20.0, 40.0, 60.0),
        gamma=0.2,
        augmentation="flip_crop",
        normalisation="imagenet",
        drop_last=True,
        evaluate_every=1,
    )


RECIPES: dict[str, Callable[[ModelSpec, str], Recipe]] = {
    "flexnet": _flexnet,
    "flex_resnet": _flexnet,
    "ckcnn7": _ckcnn7,
    "njet_resnet": _njet,
    "njet_all_cnn": _njet,
    "njet_nin": _njet,
    "dcn": _dcn,
    "efficient_capsnet": _capsnet,
    "vgg5": _vgg5,
    "nin": _nin,
    "resnet18": _resnet18,
}
