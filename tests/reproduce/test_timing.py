"""The stopwatch, the statistics of pairs, the course of the sizes, and where timings are kept; with made-up clocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce.errors import Interrupted, UserError
from reproduce.run.timing import pairs, stage_clock, workloads
from reproduce.run.timing.pairs import measure_pair, order_interval
from reproduce.run.timing.stopwatch import Stopwatch
from reproduce.specs import RunSpec
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import Certificate, PairTiming, RowTiming, Side, StageTiming, pair_timing_id, row_timing_id
from tests.reproduce.factory import make_record, spec_of

torch.set_num_threads(1)

CPU = torch.device("cpu")
MACHINE = "0123456789ab"
EFFCONV, FLEXNET = "EffConv-20 0.66M", "FlexNet-16"


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.now += seconds

        return work


@pytest.fixture
def clock() -> Clock:
    return Clock()


def stage(seconds: float = 10.0, epochs: int = 10, **changes: Any) -> StageTiming:
    values: dict[str, Any] = {
        "seconds": seconds, "how": "epochs", "samples": [seconds], "parts": {"forward": seconds}, "images": 50_000,
        "batch_size": 64, "steps": 782, "epochs": epochs,
    }  # fmt: skip
    return StageTiming(**(values | changes))


def certificate(**changes: Any) -> Certificate:
    values: dict[str, Any] = {"device": "a CPU", "threads": 1, "load_before": 0.1, "load_after": 0.1}
    return Certificate(**(values | changes))


def row_timing(spec: RunSpec | None = None, **changes: Any) -> RowTiming:
    spec = spec or spec_of(EFFCONV, source="random")
    values: dict[str, Any] = {
        "name": EFFCONV, "timing_id": row_timing_id(spec, "cpu"), "spec": spec, "device": "cpu",
        "size_learning": stage(20.0, 10), "training": stage(10.0, 350), "certificate": certificate(),
        "machine": MACHINE, "code": {"commit": "unknown"}, "started": "2030-01-01T00:00:00Z",
        "finished": "2030-01-01T01:00:00Z",
    }  # fmt: skip
    return RowTiming(**(values | changes))


def pair_timing(**changes: Any) -> PairTiming:
    a = Side(name=FLEXNET, spec=spec_of(FLEXNET, source="random"), kernel_size=9)
    b = Side(name=EFFCONV, spec=spec_of(EFFCONV, source="random"))
    values: dict[str, Any] = {
        "timing_id": pair_timing_id(a, b, "ii", "cpu"), "claim": "table2", "level": "ii", "a": a, "b": b,
        "batch_size": 64, "ratios": [2.0, 3.0, 4.0], "ratio": 3.0, "low": 2.0, "high": 4.0, "control": [1.0],
        "control_ratio": 1.0, "device": "cpu", "certificate": certificate(), "machine": MACHINE,
        "code": {"commit": "unknown"}, "started": "2030-01-01T00:00:00Z", "finished": "2030-01-01T01:00:00Z",
    }  # fmt: skip
    return PairTiming(**(values | changes))


def test_parts_add_up_to_the_whole(clock: Clock) -> None:
    watch = Stopwatch(clock=clock)
    clock.spend(7)()  # before the start: nobody's
    watch.start()
    for part, seconds in (("data", 1.0), ("forward", 2.5), ("data", 0.5)):
        clock.spend(seconds)()
        watch.lap(part)
    clock.spend(0.25)()
    assert watch.stop() == 4.25
    assert watch.parts == {"data": 1.5, "forward": 2.5, "rest": 0.25}


def test_a_drift_of_the_machine_hits_both_sides_alike(clock: Clock) -> None:
    """Each block is slower than the one before; A B B A takes that out of the mean of two ratios."""
    slowness = [1.0]

    def step(seconds: float) -> Callable[[], None]:
        def work() -> None:
            clock.now += seconds * slowness[0]
            slowness[0] *= 1.001

        return work

    found = measure_pair(step(0.3), step(0.1), block_seconds=0.0, clock=clock)
    assert len(found.ratios) == len(found.control) == 9
    assert found.ratios[0] < 3.0 < found.ratios[1]
    assert found.ratio == pytest.approx(3.0, rel=0.002)
    assert found.control_ratio == pytest.approx(1.0, rel=0.002)


def test_blocks_last_as_long_as_asked_and_give_seconds_a_step(clock: Clock) -> None:
    found = measure_pair(clock.spend(0.5), clock.spend(0.125), block_seconds=2.0, clock=clock)
    assert found.steps_in_block == (4, 16)
    assert found.step_seconds == pytest.approx((0.5, 0.125))
    assert found.ratio == pytest.approx(4.0)
    assert found.interval == pytest.approx((4.0, 4.0))


def test_a_pair_over_five_minutes_is_measured_three_times_and_says_how_long(clock: Clock) -> None:
    said: list[str] = []
    found = measure_pair(clock.spend(200.0), clock.spend(101.0), block_seconds=0.0, clock=clock, say=said.append)
    assert len(found.ratios) == len(found.control) == 3
    assert said == ["3 pairs and 3 of the control, about 35:03"]  # 3 x 301 s, 6 x 200 s


def test_a_short_pair_says_nothing(clock: Clock) -> None:
    measure_pair(clock.spend(1.0), clock.spend(1.0), block_seconds=0.0, clock=clock, say=pytest.fail)


def test_the_control_of_slow_blocks_is_shorter(clock: Clock) -> None:
    found = measure_pair(clock.spend(1.1), clock.spend(1.0), block_seconds=0.0, clock=clock)
    assert (len(found.ratios), len(found.control)) == (9, 3)


def test_rounds_before_the_first_do_not_count(clock: Clock) -> None:
    slow_at_first = iter([12.0, 11.0, 9.0])  # a trial and two rounds

    def a() -> None:
        clock.now += next(slow_at_first, 6.0)

    assert measure_pair(a, clock.spend(2.0), block_seconds=0.0, clock=clock).ratios == [3.0] * 9


def test_a_stop_ends_between_blocks(clock: Clock) -> None:
    with pytest.raises(Interrupted):
        measure_pair(clock.spend(1.0), clock.spend(1.0), block_seconds=0.0, clock=clock, stop=lambda: clock.now > 105)


def test_interval_is_from_the_second_to_the_eighth_of_nine() -> None:
    assert order_interval([9.0, 1.0, 3.0, 2.0, 8.0, 4.0, 7.0, 5.0, 6.0]) == (2.0, 8.0)
    assert pairs.coverage(9, 2) == pytest.approx(0.961, abs=5e-4)
    assert order_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    # Twenty values: the 6th to the 15th (95.9 %), as tables of the sign test have it.
    assert order_interval([float(i) for i in range(1, 21)]) == (6.0, 15.0)


def test_points_share_a_stage_by_nearness() -> None:
    walked: list[int] = []
    points = stage_clock.points_along(90, 1000, lambda: walked.append(1))
    assert [point.weight for point in points] == pytest.approx([0.015, 0.03, 0.03, 0.925])
    far = []
    for point in points:
        point.reach()
        far.append(len(walked))
    assert far == [0, 30, 60, 90]


def test_points_of_sizes_that_never_move_are_one() -> None:
    assert [point.weight for point in stage_clock.points_along(0, 1000, lambda: None)] == [1.0]


def test_random_images_are_never_zero_and_repeat() -> None:
    one, again = (workloads.random_split("mnist", 64, CPU) for _ in range(2))
    assert one.images.shape == (64, 1, 28, 28) and one.images.dtype == torch.uint8
    assert int(one.images.min()) == 1 and int(one.images.max()) == 255
    assert torch.equal(one.images, again.images) and torch.equal(one.labels, again.labels)
    assert int(one.labels.min()) >= 0 and int(one.labels.max()) < 10


def test_representative_sizes_meet_the_budget() -> None:
    course = workloads.budget_course(spec_of("EffConv-20 0.10M", "figure3", source="random"))
    assert course.moving > 0
    network = workloads.resized(spec_of("EffConv-20 0.10M", "figure3", source="random"), 0, course.sizes)
    count = sum(p.numel() for name, p in network.named_parameters() if ".conv" in name and p.dim() == 4)
    assert count == pytest.approx(100_000, rel=0.01)


def test_learned_sizes_of_the_newest_record_come_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = make_record(spec_of(EFFCONV, protocol="quick"), 0, sizes=[3] * 18, finished="2030-01-01T01:00:00Z")
    new = make_record(spec_of(EFFCONV, protocol="tiny"), 1, sizes=[4] * 18, finished="2031-01-01T01:00:00Z")
    for record in (new, old):
        store.write(record)
    found = workloads.sizes_for(spec_of(EFFCONV, source="random"), store)
    assert found.by_layer == new.sizes
    assert found.origin == f"learned in run {new.run_id}, tiny, seed 1"


def test_flexnet_is_held_at_the_median_that_it_learned(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(spec_of(FLEXNET, protocol="quick"), kernel_sizes={"a": [5, 7], "b": [9, 7], "c": [33, 3]}))
    found = workloads.sizes_for(spec_of(FLEXNET, source="random"), store)
    assert found.held == 7 and "7 x 7" in found.origin
    network = workloads.network_of(spec_of(FLEXNET, source="random"), found)
    assert set(network.kernel_sizes().values()) == {(7, 7)}  # type: ignore[operator]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    store = TimingStore(tmp_path)
    row, pair = row_timing(), pair_timing()
    assert store.write(row).parent == tmp_path / "timings" / MACHINE / "cifar10"
    assert store.write(pair).parent == tmp_path / "timings" / MACHINE / "table2"
    (found,) = store.rows()
    assert found.digest and found.model_copy(update={"digest": ""}) == row
    assert [one.ratio for one in store.pairs()] == [3.0]
    assert store.find_row(row.spec, "cpu", MACHINE) == found
    assert store.find_row(row.spec, "cuda", MACHINE) is None
    assert store.find_row(row.spec, "cpu", "ffffffffffff") is None
    assert store.find_pair(pair.timing_id, MACHINE) is not None
    assert store.problems == []


@pytest.mark.parametrize("text", ["{", "[1]", '{"kind": "timing"}', "null"])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    store = TimingStore(tmp_path)
    path = store.write(row_timing())
    path.write_text(text)
    assert store.rows() == []
    (problem,) = store.problems
    assert problem.startswith(f"timings/{MACHINE}/cifar10/") and problem.count("\n") == 0
    with pytest.raises(UserError):
        store.write(row_timing())


def test_a_changed_number_does_not_match_the_digest(tmp_path: Path) -> None:
    store = TimingStore(tmp_path)
    path = store.write(row_timing())
    document = json.loads(path.read_text())
    document["training"]["seconds"] = 1.0
    path.write_text(json.dumps(document))
    assert store.rows() == []
    assert "digest" in store.problems[0]


FAILED = {"outcome": "failed", "reason": "out of memory"}


@pytest.mark.parametrize(
    ("old", "new", "again", "replaced"),
    [
        ({}, {}, False, False),
        ({}, {}, True, True),
        ({}, FAILED, True, False),
        (FAILED, FAILED, False, True),
        (FAILED, {}, False, True),
        ({"certificate": certificate(invalid="another process computes on the GPU")}, {}, False, True),
    ],
)
def test_only_what_is_no_timing_gives_way(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], again: bool, replaced: bool
) -> None:
    store = TimingStore(tmp_path)
    store.write(row_timing(**old))
    store.write(row_timing(name="new", **new), again=again)
    assert [record.name == "new" for record in store.rows()] == [replaced]
