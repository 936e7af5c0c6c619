"""A batch that is cut: how many images time and memory allow, and the line through two batches; with made-up clocks."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reproduce.report import clocked, times
from reproduce.run.timing import linux, memory, rows, trials, workloads
from reproduce.run.timing.batch_line import along_line
from reproduce.run.timing.place import Place, out_of_memory
from reproduce.run.timing.stopwatch import Stopwatch
from reproduce.run.timing.trials import fitting_batch
from reproduce.specs import DATASETS, RunSpec
from reproduce.store import Store
from reproduce.timing_store import TimingStore, read_timing
from reproduce.timings import RowTiming, StageTiming
from tests.reproduce.factory import spec_of

ROW = "CIFARResNet-44"
RESULTS = Path(__file__).parents[2] / "results"
GIB = 1 << 30


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Work:
    """Steps whose cost is a line: half of what each image takes forward, the rest backward."""

    clock: Clock
    lap: Callable[[str], None]
    images: int
    fixed: float
    each: float
    steps: int = 1

    def start_epoch(self, epoch: int) -> None:
        pass

    def step(self) -> None:
        self.clock.now += self.each * self.images / 2
        self.lap("forward")
        self.clock.now += self.fixed + self.each * self.images / 2
        self.lap("backward")


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RowTiming]:
    """Times ResNet-44 on a CIFAR-10 of 72 training and 10 test images, 8 x 8, as if a step had these costs."""
    clock = Clock()
    facts = DATASETS["cifar10"].model_copy(update={"image_size": 8, "train_images": 72, "test_images": 10})
    monkeypatch.setitem(DATASETS, "cifar10", facts)
    monkeypatch.setattr("reproduce.run.machine.keep_freed_memory", lambda: None)
    monkeypatch.setattr(trials, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(rows, "Stopwatch", lambda device: Stopwatch(device, clock=clock))

    def run(fixed: float, each: float, limit: float) -> RowTiming:
        def steps(spec: RunSpec, network: Any, split: Any, device: Any, lap: Any) -> Work:
            return Work(clock, lap, spec.training.batch_size, fixed, each)

        monkeypatch.setattr(rows, "training_steps", steps)
        device = torch.device("cpu")
        data = workloads.RandomData(device=device)
        place = Place(store=Store(tmp_path), device=device, machine="0123456789ab", extrapolate_above=1e9, data=data)
        return rows.time_row(ROW, spec_of(ROW, source="random"), replace(place, step_limit=limit))

    return run


def training(record: RowTiming) -> StageTiming:
    assert record.training is not None and record.outcome == "finished", record.reason
    return record.training


def stage(images: int, seconds: float, **parts: float) -> StageTiming:
    """Three steps of so many images out of 640 an epoch; parts of a step."""
    steps = 640 // images
    return StageTiming(
        seconds=seconds * steps, how="steps", samples=[seconds * 1.2, seconds, seconds * 0.9], images=640,
        parts={name: spent * steps for name, spent in (parts or {"forward": seconds}).items()},
        batch_size=images, batch_cut=True, steps=steps, epochs=1,
    )  # fmt: skip


@pytest.mark.parametrize(("limit", "images"), [(30.0, [32, 8]), (20.0, [8, 2])])
def test_a_linear_cost_is_recovered_exactly(timed: Callable[..., RowTiming], limit: float, images: list[int]) -> None:
    """17 s for the kernels and 0.3 s for each image: the row's own steps of 64 would take 36.2 s."""
    found = training(timed(17.0, 0.3, limit))
    line = found.batch_line
    assert line is not None and line.used and line.images == images and line.own == 64
    assert (line.fixed, line.each) == pytest.approx((17.0, 0.3))
    assert line.seconds == pytest.approx([17.0 + 0.3 * count for count in images]) and len(line.samples) == 3
    assert found.seconds == pytest.approx(72 / 64 * 36.2) and found.how == "steps"
    assert found.parts["forward"] == pytest.approx(72 / 64 * 9.6)
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert (found.batch_cut, found.batch_size, found.steps) == (True, images[0], -(-72 // images[0]))


def test_a_batch_that_is_not_cut_and_the_smallest_have_no_line(timed: Callable[..., RowTiming]) -> None:
    whole, least = training(timed(0.1, 0.001, 20.0)), training(timed(30.0, 0.1, 20.0))
    assert not whole.batch_cut and whole.batch_line is None and whole.how == "epochs"
    assert least.batch_cut and least.batch_size == 2 and least.batch_line is None and least.how == "steps"
    assert least.seconds == pytest.approx(72 / 2 * 30.2)


@pytest.mark.parametrize(
    ("more", "fewer", "sign"),
    [(32.0, 4.0, (-1, 1)), (8.0, 9.0, (1, -1))],
    ids=["more than in proportion", "more images in less time"],
)
def test_a_line_below_zero_falls_back_to_proportion(more: float, fewer: float, sign: tuple[int, int]) -> None:
    spec = spec_of(ROW, source="random")
    many = stage(16, more)
    found = along_line(many, stage(4, fewer), spec.training)
    line = found.batch_line
    assert line is not None and not line.used and line.seconds == [more, fewer]
    assert (line.fixed * sign[0] > 0, line.each * sign[1] > 0) == (True, True)
    assert found.model_copy(update={"batch_line": None}) == many


def test_parts_follow_lines_of_their_own_and_add_up() -> None:
    """Of 10 + images seconds, `optimizer` shrinks by noise: along its line it would be below zero at 64."""
    more = stage(16, 26.0, forward=20.0, optimizer=0.1, data=5.9)
    fewer = stage(4, 14.0, forward=8.0, optimizer=0.6, data=5.4)
    found = along_line(more, fewer, spec_of(ROW, source="random").training)
    assert found.seconds == pytest.approx(640 / 64 * 74.0)
    assert found.parts["optimizer"] == 0.0 and sum(found.parts.values()) == pytest.approx(found.seconds)
    assert found.parts["forward"] / found.parts["data"] == pytest.approx((20 + 48) / (5.9 + 4 * 0.5))


def test_the_record_is_read_again_and_the_tables_name_the_line(
    timed: Callable[..., RowTiming], tmp_path: Path
) -> None:
    record, store = timed(17.0, 0.3, 30.0), TimingStore(tmp_path)
    store.write(record)
    (found,) = store.rows()
    assert found.model_copy(update={"digest": ""}) == record and training(found).batch_line is not None
    said = (
        "A step of 64 images is extrapolated from steps of 32 and 8 images by a line: 26.6 and 19.4 s, 17.0 s of them "
        "whatever the images."
    )
    assert times.extrapolated(found) == f"Extrapolated from 6 timed steps of training. {said}"
    assert f"{ROW}: {said}" in " ".join(clocked.text([found], [], {}, "cpu").split())


def test_the_tables_say_why_a_line_was_not_used(timed: Callable[..., RowTiming]) -> None:
    record, spec = timed(17.0, 0.3, 30.0), spec_of(ROW, source="random")
    back = record.model_copy(update={"training": along_line(stage(16, 32.0), stage(4, 4.0), spec.training)})
    assert times.cut(back) == (
        " Steps of 16 images instead of 64, in proportion to the images: a line through steps of 16 and 4 images "
        "(32.0 and 4.00 s) falls below zero."
    )


def test_older_records_of_cut_rows_keep_their_digest_and_their_words() -> None:
    paths = [path for path in RESULTS.glob("timings/*/cifar10/*.json") if '"batch_cut": true' in path.read_text()]
    old = [(path, text) for path in paths if "batch_line" not in (text := path.read_text())]
    assert old
    for path, text in old:
        record = read_timing(path)
        assert isinstance(record, RowTiming) and f'"{record.digest}"' in text
        assert "rather too long" in times.cut(record) and training(record).batch_line is None


def test_memory_cuts_the_batch_too(timed: Callable[..., RowTiming], monkeypatch: pytest.MonkeyPatch) -> None:
    """4 GiB and 0.3 GiB for each image: of 85 % of 20 GiB 43 images may be had, of the powers of two 32."""
    peaks = iter([int(4.6 * GIB), int(6.4 * GIB)])
    monkeypatch.setattr(memory, "memory_peak", lambda: next(peaks))
    monkeypatch.setattr(memory, "memory_room", lambda: 20 * GIB)
    found = training(timed(1.0, 0.1, 1e9))
    assert found.batch_cut and found.batch_line is not None and found.batch_line.images == [32, 8]
    assert found.seconds == pytest.approx(72 / 64 * 7.4)


@pytest.mark.parametrize(("breaks_at", "batch"), [(64, 32), (32, 16), (16, 8), (8, 2), (100, 64)])
def test_a_failed_allocation_halves_the_batch(breaks_at: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of the memory, by the estimate, a step is tried; the trial of 8 images may fail as well."""
    found: dict[int, int] = {2: 2 * GIB, 8: 8 * GIB}
    monkeypatch.setattr(memory.Peaks, "end", lambda self, images: self.found.update({images: found[images]}))
    monkeypatch.setattr(memory, "memory_room", lambda: 100 * GIB)

    def make(count: int) -> Callable[[], None]:
        def step() -> None:
            if count >= breaks_at:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

        return step

    place = SimpleNamespace(check=lambda: None, device=torch.device("cpu"))
    assert fitting_batch(make, 64, 1e9, place, least=2) == batch  # type: ignore[arg-type]


def test_another_error_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("the shapes do not agree")

    with pytest.raises(RuntimeError, match="shapes"):
        memory.holding(lambda count: broken, 64, 8)
    assert not out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert out_of_memory(RuntimeError("could not create a primitive")) and out_of_memory(MemoryError())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_linux_tells_the_peak_and_the_room() -> None:
    linux.restart_peak()
    before, room = linux.memory_peak(), linux.memory_room()
    assert before is not None and room is not None and before < room
    with mmap.mmap(-1, 64 << 20) as held:  # fresh pages; a tensor may get some that were kept from an earlier one
        held.write(b"1" * len(held))
        after = linux.memory_peak()
    assert after is not None and after - before > 50 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_the_room_ends_at_ulimit() -> None:
    code = "from reproduce.run.timing.linux import memory_room; print(memory_room())"
    # In KiB. No torch: 1 GiB of address space is plenty for the reader alone.
    command = f"ulimit -v 1048576 && exec '{sys.executable}' -c '{code}'"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert 0 < int(found.stdout) <= GIB


def test_a_machine_that_tells_nothing_sets_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "PROC", tmp_path)
    monkeypatch.setattr(linux, "GROUPS", tmp_path)
    assert linux.memory_peak() is None and linux.memory_room() is None
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("VmSize:\t 300 kB\nVmHWM:\t 250 kB\nVmRSS:\t 200 kB\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    1000 kB\n")
    assert (linux.memory_peak(), linux.memory_room()) == (250 * 1024, 1200 * 1024)
    (tmp_path / "self" / "limits").write_text("Max address space         921600  unlimited  bytes\n")
    assert linux.memory_room() == 800 * 1024
    (tmp_path / "self" / "cgroup").write_text("4:memory:/a/b\n0::/c\n")
    (tmp_path / "memory" / "a" / "b").mkdir(parents=True)
    (tmp_path / "memory" / "a" / "b" / "memory.limit_in_bytes").write_text("500000\n")
    assert linux.memory_room() == 500000
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "memory.max").write_text("max\n")
    assert linux.memory_room() == 500000
    (tmp_path / "memory.max").write_text("400000\n")
    assert linux.memory_room() == 400000
