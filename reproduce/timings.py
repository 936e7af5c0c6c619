"""What a stopwatch found: seconds per epoch of one row, and the ratio of two networks. Plain data; no torch, no I/O.

A time belongs to the machine that it was taken on. Each record holds the certificate of what went on there meanwhile.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from reproduce.records import Part, Signed
from reproduce.specs import RunSpec, sha256_of

RANDOM = "random"  # `DataSpec.source` of a timing: random images of the data set's shape and count
Stage = Literal["size_learning", "training"]
Level = Literal["i", "ii", "iii"]

LEVELS: dict[str, str] = {
    "i": "plain eager float32, one kernel network and one predictor after the other, direct convolution",
    "ii": "the same treatment for both: device data, kernels in one batch, direct convolution",
    "iii": "each at its best: also FFT or direct convolution, whichever is faster",
}


class BatchLine(Part):
    """Where a batch is cut: seconds of a step = fixed + each x images, exactly through the medians of two batches.

    A step has costs that no image adds to, such as the networks that make its kernels. Older records have no line.
    """

    images: list[int]  # of a step: the most that were allowed, and fewer
    seconds: list[float]  # the median step of each
    own: int  # images of the row's own step, to which the line is drawn out
    fixed: float
    each: float
    # False where `fixed` or `each` is below zero: then the stage's seconds are in proportion to the images, from steps
    # of the first batch alone.
    used: bool
    samples: list[float]  # of each timed step of the second batch


class StageTiming(Part):
    """One stage of one row. All times in seconds of wall time."""

    # To consume every training image once: the median of whole epochs, or mean step x steps; along a line, the step of
    # the row's own batch x its steps. Where sizes move, the mean over the stage: the first epoch, and the median of the
    # later ones in place of the rest.
    seconds: float
    how: Literal["epochs", "steps"]  # whole epochs, or extrapolated from steps
    samples: list[float]  # of each whole epoch, or of each timed step
    parts: dict[str, float]  # of `seconds`: data, forward, backward, optimizer, ...; they add up to it
    # building, capturing, the first step; not in `seconds`
    one_off: dict[str, float] = Field(default_factory=dict)
    evaluation_seconds: float | None = None  # one pass over the test set; not in `seconds`
    evaluation_how: Literal["whole", "steps"] | None = None
    images: int  # in an epoch
    images_held: int | None = None  # on the device, where fewer than an epoch's were enough for the steps
    batch_size: int
    batch_cut: bool = False  # smaller than the row's own, so that a step stays short and fits into memory
    batch_line: BatchLine | None = None  # how a cut batch's steps were drawn out to the row's own
    steps: int  # in an epoch, of this batch size
    epochs: int  # E1 or E2 of the `paper` protocol
    floor_seconds: float | None = None  # what the measured ceilings of this device allow, by `reproduce.floors`
    sizes: dict[str, int] | None = None  # by layer, where they ended in size learning; older records do not tell


class Certificate(Part):
    """What the device and the machine did while the clock ran. None where a machine does not tell."""

    device: str  # its name: "NVIDIA H200", or the CPU's
    threads: int
    seconds: float | None = None  # that all of it took, by a clock that nobody sets; older records have none
    load_before: float | None  # load average over one minute
    load_after: float | None
    others_cores: float | None = None  # that all other processes kept busy, on average; older records have none
    huge_pages_mib: float | None = None  # of this process's memory at the end; older records have none
    others_on_device: int | None = None  # other processes on the GPU at the start or end
    clocks_mhz: dict[str, float] = Field(default_factory=dict)  # "sm", "memory": least seen during the run
    power_watt: float | None = None  # mean
    temperature_celsius: float | None = None  # highest
    throttled: list[str] = Field(default_factory=list)  # reasons that NVML, or the battery, gave
    # copy_tb_s, matmul_tflop_s, kernel_us_eager, kernel_us_graph
    ceilings: dict[str, float] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)  # throttled, on battery, busy: for people
    invalid: str = ""  # why these seconds are no timing; empty: they are


class RowTiming(Signed):
    """Seconds per epoch of one row on one machine."""

    schema_version: int = 1
    kind: Literal["timing"] = "timing"
    name: str  # of the row
    timing_id: str
    # Networks of so many seeds side by side on the device, whose seconds (samples, parts) are those of all, divided by
    # their number: shared time, which stands in no cell beside time alone. One-off costs are those of all.
    together: int = 1
    spec: RunSpec  # under `paper`, data source "random"; engine, precision and threads among it
    device: Literal["cpu", "cuda"]
    sizes: dict[str, int] | None = None  # of stage 2, by layer; None where the network has its own
    sizes_from: str = ""  # where they come from, for people
    size_learning: StageTiming | None = None  # T1
    training: StageTiming | None = None  # T2
    outcome: Literal["finished", "failed"] = "finished"
    reason: str = ""  # out of memory, say
    certificate: Certificate
    machine: str  # id of RESULTS/machines/<id>.json
    code: dict[str, Any]
    started: str  # ISO 8601, UTC
    finished: str


class Side(Part):
    """One network of a pair."""

    name: str  # of its row
    spec: RunSpec
    stage: Stage = "training"
    kernel_size: int | None = None  # where a FlexNet's kernels are held; None: its own, or no FlexNet
    full_grid: bool = False  # evaluates the kernel network at all positions and crops afterwards
    sizes: dict[str, int] | None = None
    # Of its convolutions: "direct", "fft" or, by `baselines.large_conv`'s rule, "auto". None: direct, with no choice.
    method: str | None = None
    step_seconds: float | None = None  # median
    steps_in_block: int = 1


class PairTiming(Signed):
    """How many times as long `a` takes as `b`, side by side in one process."""

    schema_version: int = 1
    kind: Literal["timing_pair"] = "timing_pair"
    timing_id: str
    claim: str  # the experiment whose claim it bears on: "table2"
    level: Level
    a: Side
    b: Side
    batch_size: int  # of both
    batch_cut: bool = False  # smaller than the rows' own, so that a step stays short
    ratios: list[float]  # seconds of a over seconds of b, pair by pair
    ratio: float  # their median
    low: float  # order-statistic interval; the least and greatest where there are fewer than 9 pairs
    high: float
    control: list[float]  # a against a, measured likewise
    control_ratio: float  # must be 1.00 +- 0.03
    device: Literal["cpu", "cuda"]
    certificate: Certificate
    machine: str
    code: dict[str, Any]
    started: str
    finished: str


Timing = RowTiming | PairTiming


def row_timing_id(spec: RunSpec, device: str, together: int = 1) -> str:
    """16 hex digits: what was timed, blind to when and where."""
    shared = {} if together == 1 else {"together": together}
    return sha256_of({"spec": spec.model_dump(mode="json"), "device": device, **shared})[:16]


def pair_timing_id(a: Side, b: Side, level: str, device: str) -> str:
    """16 hex digits: which pair was timed, blind to what the measuring itself finds out, such as the batch size."""
    asked = {"name", "spec", "stage", "kernel_size", "full_grid"}
    sides = [side.model_dump(mode="json", include=asked) for side in (a, b)]
    return sha256_of({"sides": sides, "level": level, "device": device})[:16]


def epoch_seconds(record: RowTiming) -> tuple[float, float] | None:
    """(weighted by the epochs E1 and E2, plain mean of the stages), R-23; None without stage 2."""
    if record.training is None:
        return None
    timed = stages(record).values()
    weighted = sum(stage.epochs * stage.seconds for stage in timed) / sum(stage.epochs for stage in timed)
    return weighted, sum(stage.seconds for stage in timed) / len(timed)


def stages(record: RowTiming) -> dict[Stage, StageTiming]:
    """The stages that were timed, in their order."""
    both: dict[Stage, StageTiming | None] = {"size_learning": record.size_learning, "training": record.training}
    return {name: stage for name, stage in both.items() if stage is not None}
