"""`reproduce time` from end to end on data sets made small; what is on disk is passed over, what is bad replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from reproduce import clocking
from reproduce.cli import main
from reproduce.errors import Interrupted
from reproduce.report import clocked, times
from reproduce.run.timing import ladder, rows, stage_clock, trials, workloads
from reproduce.run.timing.ladder import rungs
from reproduce.run.timing.place import Place
from reproduce.run.timing.trials import fitting_batch
from reproduce.specs import DATASETS
from reproduce.store import Store
from reproduce.timing_store import TimingStore
from reproduce.timings import RowTiming
from tests.reproduce.factory import spec_of

torch.set_num_threads(1)

CPU = torch.device("cpu")
RESNET, EFFCONV = "control: ResNet-20", "EffConv-20 0.10M"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CIFAR-10 of 70 training and 10 test images, 8 x 8."""
    facts = DATASETS["cifar10"].model_copy(update={"image_size": 8, "train_images": 70, "test_images": 10})
    monkeypatch.setitem(DATASETS, "cifar10", facts)
    monkeypatch.setattr(stage_clock, "MOST_EPOCHS", 2)
    monkeypatch.setattr(stage_clock, "WORK", 0.01)
    monkeypatch.setattr("reproduce.run.machine.keep_freed_memory", lambda: None)


@pytest.fixture
def reproduce(tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        found = CliRunner().invoke(main, ["time", *arguments, "--results", str(tmp_path), "--no-ceilings"])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.output
        return found

    return run


def one_row(results: Path) -> RowTiming:
    (record,) = TimingStore(results).rows()
    return record


def sizes_move(monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    course = rows.budget_course
    monkeypatch.setattr(rows, "budget_course", lambda spec: replace(course(spec), moving=steps))


def add_up(record: RowTiming) -> None:
    for stage in (record.size_learning, record.training):
        if stage is not None:
            assert sum(stage.parts.values()) == pytest.approx(stage.seconds, rel=1e-6)


def test_a_row_is_timed_once_and_printed_again(reproduce: Callable[..., Result], tmp_path: Path) -> None:
    first = reproduce("table2", "--rows", RESNET)
    assert first.exit_code == 0
    assert "control: ResNet-20" in first.stdout and max(map(len, first.stdout.splitlines())) <= 80
    assert "1 of 1: control: ResNet-20, CIFAR-10" in first.stderr
    record = one_row(tmp_path)
    assert record.training is not None and record.training.how == "epochs" and record.size_learning is None
    assert (record.training.images, record.training.steps, record.training.evaluation_how) == (70, 2, "whole")
    assert {"data", "forward", "backward", "optimizer"} <= record.training.parts.keys()
    assert {"building", "first step"} == record.training.one_off.keys()
    add_up(record)
    assert not (tmp_path / "runs").exists()
    second = reproduce("table2", "--rows", RESNET)
    assert "nothing to time" in second.stderr and second.stdout == first.stdout
    assert one_row(tmp_path) == record
    reproduce("table2", "--rows", RESNET, "--again")
    assert one_row(tmp_path).training != record.training


def test_both_stages_extrapolated(reproduce: Callable[..., Result], tmp_path: Path) -> None:
    found = reproduce("figure3", "--rows", EFFCONV, "--extrapolate-above", "0", "--json")
    document = json.loads(found.stdout)
    record = one_row(tmp_path)
    assert record.size_learning is not None and record.training is not None
    assert record.size_learning.how == record.training.how == "steps"
    # The mean of so many full batches of 64, by 70 / 64 steps an epoch, and the start of one.
    mean = sum(record.training.samples) / len(record.training.samples)
    start = record.training.parts["rest"]
    assert mean * 70 / 64 <= record.training.seconds <= mean * 70 / 64 + start
    assert "representative" in record.sizes_from and record.sizes is not None
    assert record.size_learning.sizes == record.sizes
    add_up(record)
    (row,) = document["rows"]
    weighted = (10 * record.size_learning.seconds + 350 * record.training.seconds) / 360
    assert row["weighted"] == pytest.approx(weighted)


def test_what_comes_from_steps_is_timed_anew_once_whole_epochs_are_asked_for(
    reproduce: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("table2", "--rows", RESNET)
    reproduce(*line, "--extrapolate-above", "0")
    rough = one_row(tmp_path)
    assert rough.training is not None and rough.training.how == "steps"
    assert "nothing to time" in reproduce(*line, "--extrapolate-above", str(rough.training.seconds)).stderr
    assert "to be timed anew in whole epochs, about" in reproduce(*line, "--dry-run").stdout
    with monkeypatch.context() as broken:
        broken.setattr(rows, "training_steps", lambda *_: 1 / 0)
        assert reproduce(*line).exit_code == 1
    assert one_row(tmp_path) == rough
    reproduce(*line)
    whole = one_row(tmp_path)
    assert whole.training is not None and whole.training.how == "epochs"
    assert "nothing to time" in reproduce(*line).stderr
    assert "nothing to time" in reproduce(*line, "--extrapolate-above", "0").stderr  # nor back to steps


def test_whole_epochs_of_size_learning_count_the_first_once(
    reproduce: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes_move(monkeypatch, steps=1)
    reproduce("figure3", "--rows", EFFCONV)
    stage = one_row(tmp_path).size_learning
    assert stage is not None and stage.how == "epochs" and len(stage.samples) == 2
    assert stage.seconds == pytest.approx(0.1 * stage.samples[0] + 0.9 * stage.samples[1])
    add_up(one_row(tmp_path))


def test_sizes_that_move_for_several_epochs_have_all_of_them_timed_or_steps_along_their_course(
    reproduce: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps make an epoch here. STL-10's 20 do, and its sizes move for 128: two epochs said 99 s, steps 117."""
    sizes_move(monkeypatch, steps=8)
    reproduce("figure3", "--rows", EFFCONV)
    stage = one_row(tmp_path).size_learning
    assert stage is not None and stage.how == "epochs" and len(stage.samples) == stage.epochs == 10
    assert stage.seconds == pytest.approx(sum(stage.samples) / 10)
    add_up(one_row(tmp_path))
    monkeypatch.setattr(stage_clock, "MINUTE", 0.0)
    line = ("figure3", "--rows", EFFCONV)
    reproduce(*line, "--again")
    record = one_row(tmp_path)
    assert record.size_learning is not None and record.training is not None
    assert (record.size_learning.how, record.training.how) == ("steps", "epochs")
    assert "nothing to time" in reproduce(*line).stderr


def test_out_of_memory_is_named_recorded_and_tried_again(
    reproduce: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as broken:
        broken.setattr(rows, "training_steps", full)
        found = reproduce("table2", "--rows", RESNET)
    assert found.exit_code == 1 and "Traceback" not in found.output
    record = one_row(tmp_path)
    assert record.outcome == "failed" and record.reason.startswith("out of memory: this machine is too small")
    assert reproduce("table2", "--rows", RESNET).exit_code == 0
    assert one_row(tmp_path).outcome == "finished"


def test_an_invalid_timing_is_measured_anew(reproduce: Callable[..., Result], tmp_path: Path) -> None:
    reproduce("table2", "--rows", RESNET)
    store, record = TimingStore(tmp_path), one_row(tmp_path)
    busy = record.certificate.model_copy(update={"invalid": "another process computes on the GPU"})
    store.path(record).unlink()
    store.write(record.model_copy(update={"certificate": busy}))
    assert "to be timed" in reproduce("table2", "--rows", RESNET, "--dry-run").stdout
    reproduce("table2", "--rows", RESNET)
    assert not one_row(tmp_path).certificate.invalid
    assert "to be timed" not in reproduce("table2", "--rows", RESNET, "--dry-run").stdout


def test_a_damaged_record_stands_in_the_way_and_is_named(reproduce: Callable[..., Result], tmp_path: Path) -> None:
    reproduce("table2", "--rows", RESNET)
    (path,) = (tmp_path / "timings").rglob("*.json")
    path.write_text("{")
    found = reproduce("table2", "--rows", RESNET)
    assert found.exit_code == 1 and f"error: {path.relative_to(tmp_path)}" in found.stderr
    assert reproduce("table2", "--rows", RESNET, "--again").exit_code == 0
    assert one_row(tmp_path).outcome == "finished"


def test_a_stop_keeps_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the second stage, the row goes on with it."""
    said: list[str] = []
    place = replace(_place(tmp_path), stop=lambda: said == ["size learning", "training"], say=said.append)
    spec = spec_of(EFFCONV, "figure3", source="random")
    with pytest.raises(Interrupted):
        rows.time_row(EFFCONV, spec, place)
    (kept,) = (tmp_path / ".resume").glob("*/size_learning.json")
    seconds = json.loads(kept.read_text())["values"]["seconds"]
    record = rows.time_row(EFFCONV, spec, place)
    assert said == ["size learning", "training", "training", "evaluation"]
    assert record.size_learning is not None and record.size_learning.seconds == seconds
    assert not kept.parent.exists()


def _place(results: Path) -> Place:
    data = workloads.RandomData(device=CPU)
    return Place(store=Store(results), device=CPU, machine="0123456789ab", extrapolate_above=60.0, data=data)


def _rungs() -> list[ladder.Rung]:
    return list(rungs("table2", "cpu", engine="plain", precision="float32", threads=1))


def test_names_of_rows_and_pairs() -> None:
    names = CliRunner().invoke(main, ["time", "table2", "--list"]).stdout.splitlines()
    assert "FlexNet-16, CIFAR-10" in names and "table2 iii FlexNet-16 at 33 x 33 / EffConv-20 0.66M" in names
    full = [name for name in names if "full grid" in name]  # below 9 x 9, the grid of the images here
    assert full == ["table2 i FlexNet-16 at 5 x 5, full grid / EffConv-20 0.66M"]
    alone = CliRunner().invoke(main, ["time", "table2", "--rows", "FlexNet-16", "--list"]).stdout
    assert alone == "FlexNet-16, CIFAR-10\n"
    assert CliRunner().invoke(main, ["time", "--rows", "FlexNet-16, CIFAR-10", "--list"]).stdout == alone
    pairs = CliRunner().invoke(main, ["time", "table2", "--ladder-only", "--rows", "* 5 x 5*", "--list"]).stdout
    assert [name.split(" / ")[0] for name in pairs.splitlines()] == [
        "table2 ii FlexNet-16 at 5 x 5",
        "table2 iii FlexNet-16 at 5 x 5",
        "table2 i FlexNet-16 at 5 x 5",
        "table2 i FlexNet-16 at 5 x 5, full grid",
    ]


def test_a_glob_that_matches_nothing_is_a_usage_error(reproduce: Callable[..., Result]) -> None:
    for noun, options in {"row": [], "pair": ["--ladder-only"]}.items():
        found = reproduce("table2", "--rows", "nothing", *options)
        assert found.exit_code == 2 and found.stderr.startswith(f"error: no {noun} matches 'nothing'")
        assert len(found.stderr.splitlines()) == 1


def test_a_precision_that_the_device_lacks_is_refused_before_any_work(
    reproduce: Callable[..., Result], tmp_path: Path
) -> None:
    found = reproduce("table2", "--rows", "CIFARResNet-44", "--precision", "bf16")
    assert found.exit_code == 1 and "--precision bf16 needs a CUDA device" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_level_i_is_plain_and_cuda_captures_above() -> None:
    found = list(rungs("table2", "cuda", engine="plain", precision="float32", threads=1))
    how = {(one.level, one.a.spec.engine, one.a.spec.precision) for one in found}
    assert how == {("i", "plain", "float32"), ("ii", "graph", "bf16"), ("iii", "graph", "bf16")}
    assert all(one.a.spec.engine == one.b.spec.engine for one in found)
    assert len({one.timing_id for one in found}) == len(found) == 19


@pytest.mark.parametrize(
    ("fixed", "each", "limit", "batch"),
    [(0.0, 0.1, 20.0, 64), (5.0, 1.0, 20.0, 8), (0.0, 25.0, 20.0, 1), (30.0, 0.1, 20.0, 1), (0.0, 1.0, 20.0, 16)],
)
def test_the_batch_is_cut_so_that_a_step_is_short(
    fixed: float, each: float, limit: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "trial_seconds", lambda count, place: fixed + each * count)
    said: list[str] = []
    place: Any = SimpleNamespace(say=said.append)
    make: Any = int  # the step is its number of images
    assert fitting_batch(make, 64, limit, place) == batch
    assert bool(said) == (fixed + each >= limit)
    assert fitting_batch(make, 64, limit, place, least=2) == max(2, batch)


def test_a_row_with_long_steps_is_timed_with_fewer_images_and_says_so(tmp_path: Path) -> None:
    spec = spec_of("CIFARResNet-44", source="random")
    place = replace(_place(tmp_path), step_limit=1e-9, extrapolate_above=0.0)
    record = rows.time_row("CIFARResNet-44", spec, place)
    assert record.spec == spec and record.training is not None and record.training.batch_cut
    assert record.training.batch_size == 2 and record.training.steps == 35
    told = " ".join(clocked.text([record], [], {}, "cpu").split())
    assert "CIFARResNet-44: Steps of 2 images instead of 64, each with all that a step costs besides" in told
    assert "Steps of 2 images instead of 64" in times.extrapolated(record)
    whole = rows.time_row("CIFARResNet-44", spec, replace(place, step_limit=1e9))
    assert whole.training is not None and whole.training.batch_size == 64 and not times.cut(whole)


@pytest.mark.parametrize(("level", "method"), [("ii", "direct"), ("iii", "fft")])
def test_level_iii_takes_the_fastest_method_at_the_batch(
    level: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one image alone "auto" would win by far; "direct" is so slow that it is not tried again."""
    seconds = {(1, "auto"): 2.0, (1, "fft"): 30.0, (1, "direct"): 9.0, (2, "auto"): 8.0, (2, "fft"): 6.0}
    monkeypatch.setattr(ladder, "trial_seconds", lambda asked, place: seconds[asked])
    monkeypatch.setattr(ladder, "fitting_batch", lambda make, own, limit, place: 2)
    rung = next(one for one in _rungs() if one.level == level and one.a.kernel_size == 5)
    make: Any = lambda *asked: asked  # noqa: E731
    found = ladder.method_and_batch(rung, make, 64, 1.0, _place(tmp_path))
    assert found == (method, 2)


@pytest.mark.parametrize(
    ("level", "held", "faster", "method"),
    [
        ("iii", 5, "auto", "auto"),
        ("iii", 5, "direct", "direct"),
        ("ii", 5, "auto", None),
        ("iii", None, "auto", "auto"),
    ],
)
def test_on_level_iii_effconv_too_convolves_as_is_fastest(
    level: str, held: int | None, faster: str, method: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the best of several trials: the first of each is slow."""
    trials_of = {name: iter([9.0, 1.0 if name == faster else 2.0, 3.0]) for name in ("auto", "direct")}
    monkeypatch.setattr(ladder, "trial_seconds", lambda asked, place: next(trials_of[asked]))
    rung = next(one for one in _rungs() if one.level == level and one.a.kernel_size == held)
    make: Any = lambda method: method  # noqa: E731
    assert ladder.fastest_of_b(rung, make, _place(tmp_path)) == method


def test_a_pair_on_level_iii_says_how_both_convolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "PAIRS", 1)
    monkeypatch.setattr(ladder, "BLOCK_SECONDS", {"cpu": 0.0})
    monkeypatch.setattr(ladder, "METHODS_OF_B", ("auto",))
    monkeypatch.setattr(ladder, "method_and_batch", lambda *asked: ("fft", 2))
    asked: list[Any] = []
    monkeypatch.setattr(ladder, "by_fft_where_faster", asked.append)
    rung = next(one for one in _rungs() if one.level == "iii" and one.a.kernel_size == 5)
    found = ladder.time_rung(rung, _place(tmp_path), step_limit=1.0)
    assert (found.a.method, found.b.method) == ("fft", "auto")
    assert len(asked) == 2 and not any(hasattr(network, "hold") for network in asked)  # for the trial and for the pair


def test_one_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "PAIRS", 1)
    monkeypatch.setattr(ladder, "BLOCK_SECONDS", {"cpu": 0.0})
    monkeypatch.setattr(ladder, "fitting_batch", lambda make, own, limit, place: 2)
    rung = next(one for one in _rungs() if one.level == "i" and one.a.kernel_size == 5 and one.a.full_grid)
    found = ladder.time_rung(rung, _place(tmp_path), step_limit=1.0)
    assert found.a.method == "direct" and found.batch_cut and found.batch_size == 2
    assert found.b.sizes is not None and found.a.sizes is None
    assert found.ratio == found.low == found.high > 1
    assert found.timing_id == rung.timing_id


@pytest.mark.slow
def test_a_ladder_from_end_to_end(
    reproduce: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "HELD", {"table2": (5,)})
    monkeypatch.setattr(ladder, "PAIRS", 3)
    found = reproduce("table2", "--ladder-only")
    assert found.exit_code == 0, found.stderr
    pairs = TimingStore(tmp_path).pairs()
    assert sorted((one.level, one.a.name, one.a.full_grid) for one in pairs) == [
        ("i", "EffConv-20 0.66M", False), ("i", "FlexNet-16", False), ("i", "FlexNet-16", True),
        ("ii", "EffConv-20 0.66M", False), ("ii", "FlexNet-16", False),
        ("iii", "EffConv-20 0.66M", False), ("iii", "FlexNet-16", False),
    ]  # fmt: skip
    for one in pairs:
        assert one.batch_size == 64 and not one.batch_cut and len(one.ratios) == 3 and one.low <= one.ratio <= one.high
        assert (one.a.method is None) == (one.a.name != "FlexNet-16")
        assert (one.b.method is None) == (one.level != "iii")
    lines = found.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("FlexNet-16 / EffConv-20 0.66M at 5 x 5" in line for line in lines)
    assert "nothing to time" in reproduce("table2", "--ladder-only").stderr


@pytest.mark.cuda
@pytest.mark.parametrize(("engine", "precision"), [("plain", "float32"), ("graph", "bf16")])
def test_a_row_on_cuda(reproduce: Callable[..., Result], tmp_path: Path, engine: str, precision: str) -> None:
    how = ("--device", "cuda", "--engine", engine, "--precision", precision)
    found = reproduce("figure3", "--rows", EFFCONV, *how)
    assert found.exit_code == 0, found.stderr
    record = one_row(tmp_path)
    assert record.device == "cuda" and record.training is not None and "drain" in record.training.parts
    assert ("capture" in record.training.one_off) == (engine == "graph")
    add_up(record)


def test_ceilings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"copy_tb_s": 0.0123, "matmul_tflop_s": 0.25}
    monkeypatch.setattr("reproduce.run.timing.ceilings.measure_ceilings", lambda device: measured)
    found = CliRunner().invoke(main, ["time", "--ceilings", "--device", "cpu", "--results", str(tmp_path)])
    assert found.exit_code == 0 and "copy, read and written, TB/s" in found.stdout and "0.0123" in found.stdout
    assert not list(tmp_path.iterdir())  # nothing was timed
    again = CliRunner().invoke(main, ["time", "--ceilings", "--json", "--device", "cpu", "--results", str(tmp_path)])
    assert json.loads(again.stdout) == measured


def test_long_work_says_so_and_names_what_is_cheaper() -> None:
    lines: list[str] = []
    job = clocking.Job(name="", path=Path(), found=None, measure=lambda place: "", seconds=400.0)
    clocking.warn_if_long([job], lines.append)
    assert not lines
    clocking.warn_if_long([job, job], lines.append)
    assert "2 timings, about 13 min" in lines[0] and "--time-budget" in lines[0]
