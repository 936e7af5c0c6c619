"""What a run is: frozen, validated, hashed values. Plain data; no torch, no I/O.

A `RunSpec` describes one training run completely, but for the seed. Its identity is the SHA-256 of its canonical JSON
together with `PROTOCOL_VERSION`; the code's commit is provenance, never identity.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

# Raised by every change that alters results; a golden test fails when results change and this number did not.
PROTOCOL_VERSION = 1

DatasetName = Literal["mnist", "cifar10", "stl10", "imagenet32"]
Scalar = int | float | str | bool | None
Engine = Literal["plain", "graph"]  # one step after the other; whole steps as CUDA graphs
Precision = Literal["float32", "tf32", "bf16"]  # of convolutions and products on CUDA; weights are float32 always


class Frozen(BaseModel):
    """A value: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetFacts(Frozen):
    """Shape of a data set as its authors distribute it."""

    in_channels: int
    image_size: int
    num_classes: int
    train_images: int
    test_images: int
    title: str


DATASETS: dict[str, DatasetFacts] = {
    "mnist": DatasetFacts(
        in_channels=1, image_size=28, num_classes=10, train_images=60_000, test_images=10_000, title="MNIST"
    ),
    "cifar10": DatasetFacts(
        in_channels=3, image_size=32, num_classes=10, train_images=50_000, test_images=10_000, title="CIFAR-10"
    ),
    "stl10": DatasetFacts(
        in_channels=3, image_size=96, num_classes=10, train_images=5_000, test_images=8_000, title="STL-10"
    ),
    "imagenet32": DatasetFacts(
        in_channels=3, image_size=32, num_classes=1000, train_images=1_281_167, test_images=50_000, title="ImageNet-32"
    ),
}


class DataSpec(Frozen):
    """Which images a run sees. `source` tells canonical files from subsets, re-encodings and the bundled digits."""

    name: DatasetName
    source: str  # "canonical", "digits", or "other-" and 8 hex digits of the files' fingerprint
    train_images: int | None = None  # None: all of the source; else the first ones, class-balanced
    test_images: int | None = None


class ModelSpec(Frozen):
    """A network: the name of a builder in `reproduce.run.models` and its arguments beyond channels and classes."""

    family: str
    args: dict[str, Scalar | list[int]] = {}


Augmentation = Literal["none", "flip_crop", "flip_crop_reflect", "capsnet", "vgg5"]
Normalisation = Literal["mnist", "imagenet", "cifar10", "cifar10_exact", "stl10", "unit", "capsnet"]


class ParameterGroup(Frozen):
    """Parameters that are trained unlike the rest; the first group whose glob matches a name has the parameter."""

    names: str
    lr_factor: float = 1.0  # times the recipe's learning rate, under the same schedule
    weight_decay: float | None = None  # None: the recipe's


class Recipe(Frozen):
    """How a network is trained from scratch (stage 2, or the only stage of a baseline). Epochs may be fractions."""

    epochs: int
    batch_size: int
    optimizer: Literal["adam", "adamw", "sgd"]
    lr: float
    lr_floor: float = 0.0  # of the exponential schedule
    adam_eps: float = 1e-8
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["flexconv_cosine", "steps", "constant", "exponential", "redrawn"]
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 1.0  # at each milestone; of the exponential schedule, each epoch
    groups: tuple[ParameterGroup, ...] = ()
    loss: Literal["cross_entropy", "capsnet"] = "cross_entropy"
    kernel_penalty: float = 0.0  # times the norms of the sampled kernels and their biases, added to the loss
    augmentation: Augmentation
    normalisation: Normalisation
    drop_last: bool = False
    evaluate_every: int  # test-set evaluation after every so many epochs, and always after the last


class SizeLearning(Frozen):
    """Stage 1 of Algorithm 1: how kernel sizes are learned. The strings name readings in `effconv`'s registries."""

    budget: int  # p_d of Eq. 4: weights of the learnable convolutions
    epochs: int
    batch_size: int
    augmentation: Augmentation
    source: Literal["data", "random", "init_only"] = "data"  # the last two are controls that see no image
    max_size: int = 7
    lam: float = 2.0
    lr: float = 1e-4
    kernel_lr: float = 1e-3
    weight_decay: float = 1e-3
    tolerance: float = 0.01
    size_predictor: str = "bigru"
    kernel_predictor: str = "per_position"
    budget_value: str = "hard"
    budget_scope: str = "learnable"
    readout: str = "snap_ema"
    mask_centre: str = "pixel"
    mask_denominator: str = "v2"
    padding: str = "right"
    labels: Literal["true", "shuffled"] = "true"


class Processes(Frozen):
    """One run in several processes, each on its own part of every batch: on CUDA one for each GPU of a node."""

    count: int
    batch_size: int  # images of a full batch in each process; batch norm sees no more, unless `sync_bn`
    sync_bn: bool = False  # batch norm over the whole batch

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.count < 2:
            raise ValueError("a run in one process has no `processes`")
        return self


class RunSpec(Frozen):
    """One training run, fully resolved, without its seed."""

    model: ModelSpec
    size_learning: SizeLearning | None = None
    data: DataSpec
    training: Recipe
    protocol: str
    threads: int = 1
    precision: Precision = "float32"
    engine: Engine = "plain"
    processes: Processes | None = None  # None: one

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        sizes = {self.training.batch_size} | ({self.size_learning.batch_size} if self.size_learning else set())
        if self.processes is not None and sizes != {self.processes.count * self.processes.batch_size}:
            raise ValueError("the batches of all processes together must be those of both stages")
        return self

    @model_serializer(mode="wrap")
    def _one_process_unsaid(self, as_usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One process is no part of the values, so specs from before there could be more keep their ids."""
        values: dict[str, Any] = as_usual(self)
        if values.get("processes", self) is None:
            del values["processes"]
        return values

    @property
    def world_size(self) -> int:
        """Processes, and on CUDA GPUs, that one run takes."""
        return 1 if self.processes is None else self.processes.count

    @property
    def sync_bn(self) -> bool:
        """Whether batch norm sees the parts of all processes."""
        return self.processes is not None and self.processes.sync_bn

    @property
    def spec_id(self) -> str:
        """64 hex digits: SHA-256 of this spec and the protocol version."""
        return sha256_of({"spec": self.model_dump(mode="json"), "protocol_version": PROTOCOL_VERSION})

    def run_id(self, seed: int) -> str:
        return f"{self.spec_id[:16]}-s{seed}"

    @property
    def cell_id(self) -> str:
        """Like `spec_id`, but blind to where the images come from: what a table's cell asks for."""
        data = self.data.model_copy(update={"source": ""})
        return sha256_of({"spec": self.model_copy(update={"data": data}).model_dump(mode="json")})


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that is hashed: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Protocol(Frozen):
    """How long and how: a base (`paper`, `quick`, `tiny`), a recipe, and what was derived from the base.

    The name says it all and is parsed back: `quick-sgd-8e-2se-10000` is `quick` with the SGD recipe, 8 training epochs,
    2 size-learning epochs and 10,000 training images.
    """

    base: Literal["paper", "quick", "tiny"]
    recipe: Literal["flexconv", "sgd"] = "flexconv"
    epochs: int | None = None
    size_epochs: int | None = None
    train_images: int | None = None

    @property
    def name(self) -> str:
        parts = [
            self.base,
            "" if self.recipe == "flexconv" else self.recipe,
            "" if self.epochs is None else f"{self.epochs}e",
            "" if self.size_epochs is None else f"{self.size_epochs}se",
            "" if self.train_images is None else str(self.train_images),
        ]
        return "-".join(part for part in parts if part)

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Inverse of `name`. Raises `ValueError` for anything else."""
        match = re.fullmatch(
            r"(paper|quick|tiny)(-sgd)?(?:-([1-9]\d*)e)?(?:-([1-9]\d*)se)?(?:-([1-9]\d*))?", name
        )
        if match is None:
            raise ValueError(f"no protocol is named {name!r}; use paper, quick or tiny")
        base, sgd, epochs, size_epochs, train_images = match.groups()
        return cls(
            base=base,  # type: ignore[arg-type]
            recipe="sgd" if sgd else "flexconv",
            epochs=int(epochs) if epochs else None,
            size_epochs=int(size_epochs) if size_epochs else None,
            train_images=int(train_images) if train_images else None,
        )
