"""What a person sees of runs: plain lines now and then, or live ones; at most 80 columns, never on stdout."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reproduce.naming import clock_time
from reproduce.run import progress
from reproduce.run.outcome import StepDone
from reproduce.run.progress import Pace, Progress, Remote, one_line


def step_done(
    stage: str, epoch: tuple[int, int], step: tuple[int, int], loss: float = 1.0, **measured: float
) -> StepDone:
    """Each pair: which one, of how many."""
    (at, epochs), (done, steps) = epoch, step
    return StepDone(stage=stage, epoch=at, epochs=epochs, step=done, steps=steps, loss=loss, **measured)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_at_ends_of_epochs_and_seldom(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    shown = Progress(file=out)
    shown.run("EffConv-20 0.66M seed 0", {"sizes": 20, "training": 40})
    for epoch in (1, 2):
        for step in range(1, 11):
            clock[0] += 1
            shown.update(step_done("sizes", (epoch, 2), (step, 10), 2.5, budget_error=0.012))
    shown.update(step_done("training", (1, 4), (10, 10), 1.25, top1=43.2))  # too soon after the last line
    shown.done("EffConv-20 0.66M seed 0", "top-1 43.20 % after 4 epochs")
    shown.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "EffConv-20 0.66M seed 0  sizes 1/2 100%  loss 2.500  budget +1.2%  0:50 left"
    assert lines[1].startswith("EffConv-20 0.66M seed 0  sizes 2/2 100%") and len(lines) == 3
    assert lines[2] == "EffConv-20 0.66M seed 0: top-1 43.20 % after 4 epochs"
    assert capsys.readouterr() == ("", "")


def test_a_long_epoch_gives_a_sign_of_life(clock: list[float]) -> None:
    out = io.StringIO()
    shown = Progress(file=out)
    shown.run("run")
    for step in range(1, 130):
        clock[0] += 1
        shown.update(step_done("training", (1, 3), (step, 1000)))
    assert len(out.getvalue().splitlines()) == 2


def test_live_lines_on_a_terminal() -> None:
    out = io.StringIO()
    shown = Progress()
    shown.console = Console(file=out, force_terminal=True, width=80)
    shown.run("one")
    shown.update(step_done("training", (1, 2), (1, 4)), run="one")
    shown.update(step_done("training", (1, 2), (3, 4), top1=50.0), run="two")
    assert list(shown.lines) == ["one", "two"]
    shown.done("one", "top-1 50.00 % after 2 epochs")
    shown.close()
    assert "one: top-1 50.00 % after 2 epochs" in out.getvalue() and list(shown.lines) == ["two"]


def test_the_time_left_spans_the_stage_to_come(clock: list[float]) -> None:
    pace = Pace(work={"sizes": 100, "training": 300})
    pace.update("sizes", 40, 100)  # resumed here
    assert pace.seconds_left() is None
    clock[0] += 20
    pace.update("sizes", 50, 100)
    assert pace.seconds_left() == pytest.approx(2.0 * (50 + 300))
    pace.update("training", 1, 300)
    clock[0] += 3
    pace.update("training", 2, 300)
    assert pace.seconds_left() == pytest.approx(3.0 * 298)


def test_lines_fit_eighty_columns() -> None:
    line = one_line("Wide-EffConv-28-1 0.66M seed 0", "training 350/350 100%", "loss 1000.123  top-1 100.00", 360_000.0)
    assert len(line) <= 79 and line.endswith("100:00:00 left")
    assert clock_time(7) == "0:07" and clock_time(750) == "12:30" and clock_time(11_100) == "3:05:00"


def test_a_worker_sends_everything_but_not_every_step(clock: list[float]) -> None:
    sent: list[tuple[object, ...]] = []
    remote = Remote(lambda *args, **kwargs: sent.append((*args, kwargs)))
    remote.run("a", {"training": 4})
    for step in range(1, 5):
        clock[0] += 0.2
        remote.update(step_done("training", (1, 1), (step, 4)))
    remote.done("a", "fine")
    assert [message[0] for message in sent] == ["run", "update", "update", "done"]
    assert sent[2][1:] == (step_done("training", (1, 1), (4, 4)), {"run": "a"})
