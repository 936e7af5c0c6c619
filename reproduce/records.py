"""What came out of a run: one immutable, validated JSON document. Plain data; no torch, no I/O.

`spec`, `seed`, `outcome`, `metrics`, `correct_bits`, `sizes`, `snapped` and `params` hold nothing that depends on time
or machine. Every second stands in `clock`, hardware and software in `machine`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from reproduce.specs import RunSpec, sha256_of


class Part(BaseModel):
    """A part of a record. Unknown keys are kept, so that a newer record survives an older reader."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Signed(Part):
    """A record that holds a digest of itself, so that a change by hand is noticed."""

    digest: str = ""

    def computed_digest(self) -> str:
        """SHA-256 of the canonical JSON of this record without its digest."""
        return sha256_of({k: v for k, v in self.model_dump(mode="json").items() if k != "digest"})

    def signed(self) -> Self:
        """This record with the digest that belongs to it."""
        return self.model_copy(update={"digest": self.computed_digest()})


class Outcome(Part):
    status: Literal["finished", "diverged", "failed"]
    reason: str = ""


class Evaluation(Part):
    """Measures on the whole test set, in percent but for the loss. Precision, recall and F1 are macro averages."""

    epoch: int
    top1: float
    top5: float
    precision: float
    recall: float
    f1: float
    loss: float


class Metrics(Part):
    """`last` is the result; `best` is the epoch of highest top-1, selected on the test set and never the result."""

    last: Evaluation
    best: Evaluation
    best_selected_on: Literal["test"] = "test"
    train_loss: float


class Snapped(Part):
    """How the sizes came from the soft sizes: by layer, in forward order."""

    soft: list[float]  # v*, the read-out before rounding
    rounded: list[int]
    moved: list[int]  # sizes minus rounded
    error_before: float  # p(rounded) / p_d - 1
    error_after: float
    differs_from_initial: int  # layers that differ from snapping the initial v


class Params(Part):
    eq3: int | None  # weights of the learnable (residual) convolutions, Eq. 3
    total: int  # trainable parameters


class StageClock(Part):
    """Seconds. `epoch_seconds` has one entry an epoch and holds no evaluation."""

    epoch_seconds: list[float]
    evaluation_seconds: list[float] = []


class Clock(Part):
    started: str  # ISO 8601, UTC
    finished: str
    size_learning: StageClock | None = None
    training: StageClock
    device: str | None = None  # "cpu" or "cuda"
    shared_device: bool  # other work ran beside it, so its seconds are no timing
    resumed: int = 0  # how often the run was interrupted and resumed


class DataFile(Part):
    path: str  # relative to the data folder
    sha256: str
    bytes: int
    canonical: bool


class DataOrigin(Part):
    name: str
    source: str
    title: str  # for people: "CIFAR-10 (JPEG, not canonical)"
    canonical: bool
    train_images: int  # as used
    test_images: int
    files: list[DataFile]  # for an image folder: one entry, the folder's combined checksum


class KernelPicture(Part):
    """For Figure 2: of one learned layer, the kernel (first output, first input) and the mean absolute tap."""

    layer: str
    size: int
    kernel: list[list[float]]
    mean_abs: list[list[float]]


class RunRecord(Signed):
    """One spec, one seed, one result."""

    schema_version: int = 1
    kind: Literal["training"] = "training"
    protocol_version: int
    spec_id: str
    run_id: str
    spec: RunSpec
    seed: int
    outcome: Outcome
    metrics: Metrics | None
    correct_bits: str | None  # base64 of numpy.packbits over the test images in file order, last epoch
    sizes: dict[str, int] | None
    snapped: Snapped | None = None
    kernel_sizes: dict[str, list[int]] | None = None  # a baseline's own learned [height, width] by layer, at the end
    params: Params
    history: dict[str, list[dict[str, Any]]] = {}  # "size_learning", "training": at most 100 points each
    kernels: list[KernelPicture] = []
    clock: Clock
    machine: str  # id of RESULTS/machines/<id>.json
    data: DataOrigin
    code: dict[str, Any]  # {"commit": "...", "dirty": bool}
    lineage: dict[str, Any] = {}
