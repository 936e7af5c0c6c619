"""A time budget ends a command in time, with everything saved; the same command then ends with the very same record."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from reproduce import cli, commands, interrupting, naming, stopping
from reproduce.cli import main
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.records import RunRecord
from reproduce.run import context as contexts
from reproduce.run import evaluation, runner, stages
from reproduce.specs import Protocol
from reproduce.stopping import Stop, margin
from reproduce.store import Store
from tests.reproduce.hall_samples import record_of, spec_of
from tests.reproduce.run_samples import Quiet, StopAt, content, context, learning, spec

torch.set_num_threads(1)
LINE = ("table2", "--protocol", "tiny", "--rows", "control: ResNet-20", "--seeds", "0", "--device", "cpu")

MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A made-up clock for `Stop`: its only entry is the time."""
    now = [1000.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    return now


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [("90s", 90, "1.5 min"), ("9m", 540, "9 min"), ("1.5h", 5400, "1.5 h"), ("100", 100, "100 s")],
)
def test_spans(text: str, seconds: float, shown: str) -> None:
    assert naming.parse_span(text) == seconds
    assert naming.span(seconds) == shown


@pytest.mark.parametrize("text", ["0", "0m", "-3s", "9 min", "m", "", "1e3", "nan", "9d", "1:30"])
def test_what_is_no_span(here: Path, text: str) -> None:
    with pytest.raises(UsageError):
        naming.parse_span(text)
    result = reproduce("table2", "--protocol", "tiny", "--time-budget", text)
    assert result.exit_code == 2 and result.stdout == "" and "write for example 90s, 9m or 1.5h" in result.stderr
    assert list(here.iterdir()) == []


def test_every_computing_command_takes_a_budget_an_engine_and_a_precision() -> None:
    for name in ("table1", "table2", "table3", "table4", "figure2", "figure3", "ablation"):
        options = {option.name for option in main.commands[name].params}
        assert {"time_budget", "engine", "precision"} <= options


def test_the_margin_is_kept(clock: list[float]) -> None:
    assert margin(600) == 18 and margin(60) == 5
    stop = Stop(budget=600)
    clock[0] += 581
    assert not stop()
    clock[0] += 2
    assert stop()
    clock[0] -= 500  # once true, it stays true
    assert stop() and stop.out_of_time


def test_a_step_that_would_end_too_late_is_not_begun(clock: list[float]) -> None:
    stop = Stop(budget=100)  # until 95
    taken = 0
    while not stop():
        clock[0] += 20
        taken += 1
    assert taken == 4 and clock[0] == 1080


def test_one_long_wait_is_no_pace(clock: list[float]) -> None:
    """Loading, and now and then an evaluation, take longer than a step."""
    stop = Stop(budget=100)
    clock[0] += 60  # loading
    for _ in range(30):
        assert not stop()
        clock[0] += 1
    clock[0] += 5
    assert stop()


def test_signals_and_the_budget_are_one_mechanism_with_words_of_their_own() -> None:
    for budget, signalled, idle, kind, words in (
        (540.0, False, False, Interrupted, "time budget of 9 min used up; the same command goes on from here"),
        (540.0, True, False, Interrupted, "stopped; the same command goes on from here"),
        (None, True, True, Interrupted, "stopped; the same command goes on from here"),
        (3.0, False, True, UserError, "a time budget of 3 s ends before one step is done (5 s of it are kept"),
    ):
        with pytest.raises(kind, match=words.replace("(", r"\(")), cli.stop_on_signals(budget) as stop:
            stop.signalled = signalled
            raise Interrupted(idle=idle)


class Ticking(Stop):
    """A stop whose budget ends after so many looks."""

    looks = 0

    def __call__(self) -> bool:
        self.looks -= 1
        if self.looks < 0 and self.deadline is not None:
            self.deadline = 0.0
        return super().__call__()


def test_the_same_command_goes_on_until_the_record_is_that_of_one_go(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reproduce(*LINE, "--results", "whole").exit_code == 0
    monkeypatch.setattr(interrupting, "Stop", Ticking)
    cut = 0
    for looks in (3, 5, 4, 100):
        monkeypatch.setattr(Ticking, "looks", looks)
        result = reproduce(*LINE, "--results", "cut", "--time-budget", "9m")
        if result.exit_code == 0:
            break
        cut += 1
        assert result.exit_code == 1 and Store(Path("cut")).records() == []
        assert result.stderr.splitlines()[-1] == "time budget of 9 min used up; the same command goes on from here"
        assert result.stdout.startswith("# Smoke test")  # what there is, is printed
        assert "Traceback" not in result.stderr
    assert cut >= 2
    (whole,), (record,) = Store(Path("whole")).records(), Store(Path("cut")).records()
    assert content(record) == content(whole) and record.clock.resumed == cut
    assert reproduce(*LINE, "--results", "cut", "--time-budget", "9m").exit_code == 0  # nothing left to do


def test_a_real_budget_ends_inside_itself(here: Path) -> None:
    began = time.monotonic()
    many = ("table2", "--protocol", "tiny", "--seeds", "0..99", "--rows", "control: ResNet-20", "--device", "cpu")
    result = reproduce(*many, "--time-budget", "12s")
    assert result.exit_code == 1 and "time budget of 12 s used up" in result.stderr, result.stderr
    assert time.monotonic() - began < 12
    done = Store(here / "build/tiny").records()
    assert 0 < len(done) < 100 and all(record.outcome.status == "finished" for record in done)
    assert f"(n = {len(done)})" in result.stdout


def test_a_budget_that_is_too_short_for_one_step(here: Path) -> None:
    result = reproduce(*LINE, "--time-budget", "0.1s")
    assert result.exit_code == 1 and result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "0.1 s ends before one step is done" in lines[0] and "nothing was finished" in lines[0]
    assert Store(here / "build/tiny").records() == []


@pytest.mark.slow
def test_side_by_side_inside_the_budget(here: Path) -> None:
    began = time.monotonic()
    many = ("table2", "--protocol", "tiny", "--seeds", "0..99", "--rows", "control: ResNet-20", "--device", "cpu")
    result = reproduce(*many, "--time-budget", "40s", "--backend", "local", "--jobs", "2")
    assert result.exit_code == 1 and "time budget of 40 s used up" in result.stderr, result.stderr
    assert time.monotonic() - began < 40


def test_engine_and_precision_are_in_the_spec_and_the_defaults_are_as_ever(here: Path) -> None:
    def first(*options: str) -> str:
        return reproduce("table2", "--protocol", "quick", "--rows", "EffConv-20 0.66M", "--dry-run", *options).stdout

    plain = first()
    assert plain == first("--engine", "plain", "--precision", "float32")
    assert spec_of(protocol="quick").run_id(0) in plain
    assert len({plain, first("--engine", "graph"), first("--engine", "graph", "--precision", "bf16")}) == 3
    request = commands.Request(
        experiment="table2", protocol=Protocol(base="quick"), seeds=[0], engine="graph", precision="tf32"
    )
    for row in commands._all_rows(request, None):
        assert (row.spec.engine, row.spec.precision) == ("graph", "tf32")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_on_the_cpu_there_is_float32_alone(here: Path, precision: str) -> None:
    result = reproduce(*LINE, "--precision", precision)
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line == f"error: --precision {precision} needs a CUDA device; on the CPU there is float32 alone"


def test_out_of_memory_is_an_outcome_that_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(f"{MEMORY}\nmore")

    monkeypatch.setattr(stages, "train", full)
    result = reproduce(*LINE)
    assert result.exit_code == 1
    (record,) = Store(here / "build/tiny").records()
    assert record.outcome.status == "failed"
    assert record.outcome.reason == f"OutOfMemoryError: {MEMORY}"
    assert f"failed: {record.run_id}: {record.outcome.reason}" in result.stderr
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert reproduce(*LINE).exit_code == 0  # a failed run is tried again


def test_images_that_do_not_fit_on_the_device_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(contexts, "on", full)
    with pytest.raises(UserError, match="images of cifar10 do not fit"):
        runner.run(spec(), 0, context(tmp_path))


def test_what_was_finished_before_the_end_is_printed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_all(todo: list[Any], context: runner.Context) -> list[RunRecord]:
        context.store.write(record_of(todo[0][1], todo[0][2]))
        raise Interrupted

    monkeypatch.setattr(runner, "run_all", run_all)
    result = reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--time-budget", "9m")
    assert result.exit_code == 1 and "50.00 (n = 1)" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("time budget of 9 min used up")


@pytest.mark.parametrize("engine", ["plain", "graph"])
def test_an_evaluation_stops_between_batches_and_is_done_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    run = spec(epochs=1).model_copy(update={"engine": engine})
    whole = runner.run(run, 0, context(tmp_path / "whole"))
    monkeypatch.setattr(evaluation, "BATCH", 10)  # four batches
    with pytest.raises(Interrupted):
        runner.run(run, 0, context(tmp_path / "cut", stop=StopAt(7)))  # the start, four steps, two batches
    state = Store(tmp_path / "cut").resume_dir(run, 0) / "training.pt"
    before = state.stat().st_mtime_ns
    with pytest.raises(Interrupted):
        runner.run(run, 0, context(tmp_path / "cut", stop=StopAt(3)))
    assert state.stat().st_mtime_ns == before  # no step was done, so a command can tell that it gets nowhere
    record = runner.run(run, 0, context(tmp_path / "cut"))
    assert record.metrics is not None and whole.metrics is not None
    assert record.correct_bits == whole.correct_bits
    assert record.metrics.train_loss == whole.metrics.train_loss and record.history == whole.history


def test_size_learning_stops_for_the_budget_too(tmp_path: Path) -> None:
    both = spec(learning(epochs=1), epochs=1)
    whole = runner.run(both, 0, context(tmp_path / "whole"))
    stop = Ticking(budget=540)
    stop.looks = 2
    with pytest.raises(Interrupted):
        runner.run(both, 0, context(tmp_path / "cut", stop=stop, progress=Quiet()))
    assert (Store(tmp_path / "cut").resume_dir(both, 0) / "size_learning.pt").exists()
    assert content(runner.run(both, 0, context(tmp_path / "cut"))) == content(whole)
