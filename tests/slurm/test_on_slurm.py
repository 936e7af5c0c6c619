"""`--backend slurm` on a real SLURM: arrays, packing, a time limit, cancelling, the head killed; waits are named."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproduce import traces
from reproduce.records import RunRecord
from reproduce.run.resume import Notes
from reproduce.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster"), pytest.mark.xdist_group("slurm")]

LIMIT = 300.0  # seconds for whatever is waited for
ROWS = "EffConv-20*,Net in Net"
LONG = 100_000  # epochs: hours
REPRODUCE = [sys.executable, "-m", "reproduce"]
START = [*REPRODUCE, "table1", "--protocol", "tiny", "--device", "cpu", "--backend", "slurm"]


def until(what: str, condition: Callable[[], Any], more: Callable[[], str] = str) -> Any:
    """What the condition gives once it is true. Fails with what was waited for, and with what `more` tells then."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {LIMIT:.0f} s in vain until {what}; {more()}\n{scene()}")
        time.sleep(0.5)
    return found


def scene() -> str:
    """What SLURM says of its jobs, and the last that its daemons wrote: a wait in vain is seldom seen twice."""
    command = ["scontrol", "show", "job", "--oneliner"]
    jobs = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout
    logs = [f"{path.name}:\n{tail(path)}" for path in sorted(Path(os.environ["SLURM_CONF"]).parent.glob("*.log"))]
    return "\n".join([jobs, *logs])


def tail(path: Path, lines: int = 40) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def told(results: Path) -> str:
    """Who is at each run of this folder, how far, and what its jobs printed."""
    runs = [f"{one.name}: {traces.job(one)}, {traces.whereabouts(one)}" for one in unfinished(results)]
    return "\n".join(runs + [f"{path.name}:\n{tail(path)}" for path in sorted((results / ".slurm").glob("*.out"))])


class Head:
    """A `reproduce table1` that is under way; what it says lies in a file."""

    def __init__(self, results: Path, log: Path, options: tuple[str, ...]) -> None:
        self.log = log
        with log.open("wb") as file:
            command = [*START, "--results", str(results), *options]
            self.process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ends(self) -> int:
        """Its exit code."""
        until("the command ends", lambda: self.process.poll() is not None, lambda: f"it said: {self.said}")
        return self.process.returncode

    def submitted(self) -> str:
        """The line about its jobs."""
        found = until("jobs are submitted", lambda: re.search(r"submitted .*", self.said), lambda: self.said)
        return str(found[0])


Begin = Callable[..., Head]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def begin(results: Path, tmp_path: Path) -> Iterator[Begin]:
    """Starts the command with these options; ends what is left of it, and of its jobs."""
    heads: list[Head] = []

    def begun(*options: str) -> Head:
        heads.append(Head(results, tmp_path / f"head{len(heads)}.log", options))
        return heads[-1]

    yield begun
    end(heads, results)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, cluster: str) -> Iterator[tuple[Head, Path]]:
    """A run of hours whose job may take two minutes, under way since the first test that asks for it; its results."""
    place = tmp_path_factory.mktemp("limited")
    options = ("--rows", "Net in Net", "--seeds", "0", "--epochs", str(LONG), "--time", "2m")
    head, results = Head(place / "results", place / "head.log", options), place / "results"
    yield head, results
    end([head], results)


def end(heads: list[Head], results: Path) -> None:
    """What is left of these, and of their jobs."""
    for head in heads:
        head.process.kill()
        head.process.wait()
    jobs = {claim.job for folder in unfinished(results) if (claim := traces.job(folder)) and claim.job[0].isdigit()}
    for job in jobs:
        subprocess.run(["scancel", job], check=False)
    until("the jobs are gone", lambda: not jobs & queue().keys())


def unfinished(results: Path) -> list[Path]:
    return sorted((results / ".resume").glob("*"))


def queue() -> dict[str, str]:
    """The state of each job."""
    command = ["squeue", "--array", "--noheader", "--format=%i %T"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def reproduce(*arguments: str) -> str:
    """What one of the other commands prints."""
    command = [*REPRODUCE, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT).stdout


def records(results: Path) -> list[RunRecord]:
    return Store(results).records()


def resumed(folder: Path) -> int:
    """How often the run in this folder was taken up again; -1 before it has begun."""
    return int(Notes(folder / traces.NOTES).load(resumed=int).get("resumed", -1))


def steps(folder: Path) -> int:
    """Epochs of training that the run in this folder has come to."""
    found = traces.whereabouts(folder)
    return found.epoch if found is not None and found.stage == "training" else 0


def epochs(folder: Path) -> list[list[int]]:
    """Of each attempt, the epochs of training that its log tells of."""
    attempts = (folder / traces.LOG).read_text().split("\n--- ")
    return [[int(epoch) for epoch in re.findall(rf"training (\d+)/{LONG}", text)] for text in attempts]


def test_what_is_cancelled_stays_so_until_the_command_is_run_again(begin: Begin, results: Path) -> None:
    """`reproduce cancel` ends one run, and its job if that is all it holds; `scancel` ends all runs of a job.

    The runs take hours, so none is over before the test comes to it, however slow the machine.
    """
    command = ("--rows", "Net in Net", "--seeds", "0..2", "--epochs", str(LONG))
    head = begin(*command, "--pack", "2")
    job, alone = (f"{head.submitted().split()[2].partition('_')[0]}_{index}" for index in range(2))
    first, second, third = until("the runs are known", lambda: len(unfinished(results)) == 3 and unfinished(results))
    until("the run with a job of its own is trained", lambda: steps(third) > 2, lambda: told(results))
    said = reproduce("cancel", third.name, "--results", str(results))
    assert re.search(rf"cancelled; job {alone} on .* saves its state and ends", said)
    until("its job has ended", lambda: alone not in queue())
    assert traces.cancelled(third) and traces.job(third) is None and head.process.poll() is None
    assert f"cancelled: Net in Net seed 2 ({third.name})" in reproduce("status", "--results", str(results))

    reached = steps(first)
    until("the other job goes on", lambda: steps(first) > reached + 2, lambda: told(results))
    subprocess.run(["scancel", job], check=True)
    assert head.ends() == 1
    assert head.said.count("cancelled; the same command goes on with it") == 3 and "Traceback" not in head.said
    assert unfinished(results) == [first, second, third]
    assert all(map(traces.cancelled, (first, second, third)))
    until("the job is gone", lambda: job not in queue())
    time.sleep(3)
    assert not {job, alone} & queue().keys()  # nothing brings them back but a command
    reached = steps(first)

    again = begin(*command, "--pack", "2")
    taken_up = lambda: resumed(first) == resumed(third) == 1 and steps(first) > reached  # noqa: E731
    until("both are taken up where they were", taken_up, lambda: told(results))
    assert again.process.poll() is None and not records(results)


@pytest.mark.usefixtures("limited")  # its waiting goes on beside this one and the next
def test_an_array_of_packed_jobs(begin: Begin, results: Path, tmp_path: Path) -> None:
    """Its records are those of the same command without SLURM."""
    head = begin("--rows", ROWS, "--seeds", "0..1", "--pack", "2", "--max-jobs", "2")
    assert re.fullmatch(r"submitted jobs \d+_0 to \d+_1, 4 runs", head.submitted())
    local = Head(tmp_path / "local", tmp_path / "local.log", ("--rows", ROWS, "--seeds", "0..1", "--backend", "inline"))
    assert head.ends() == 0, head.said
    assert "EffConv-20" in head.said and not unfinished(results)
    assert not list((results / ".slurm").glob("*.pkl"))

    assert local.ends() == 0, local.said
    shared = {"clock", "machine", "code", "lineage", "digest"}
    found, expected = (
        [record.model_dump(mode="json", exclude=shared) for record in records(folder)]
        for folder in (results, tmp_path / "local")
    )
    assert len(found) == 4 and found == expected

    again = begin("--rows", ROWS, "--seeds", "0..1")
    assert again.ends() == 0 and "nothing to run: 4 of 4" in again.said


def test_the_head_is_killed_and_started_again(begin: Begin, results: Path) -> None:
    """Its jobs go on, one at work and one still waiting; the second head submits nothing and loses nothing."""
    command = ("--rows", ROWS, "--seeds", "0..1", "--epochs", "20", "--pack", "2", "--max-jobs", "1")
    head = begin(*command)
    array = head.submitted().split()[2].split("_")[0]
    begun = lambda: any(traces.whereabouts(folder) for folder in unfinished(results))  # noqa: E731
    until("a run has begun", begun, lambda: told(results))
    head.process.send_signal(signal.SIGKILL)
    head.ends()
    before = [state for job, state in queue().items() if job.split("_")[0] == array]
    assert sorted(before) == ["PENDING", "RUNNING"]

    second = begin(*command)
    assert second.ends() == 0, second.said
    assert "submitted" not in second.said and "waits for it" in second.said
    assert [record.clock.resumed for record in records(results)] == [0, 0, 0, 0]
    assert not unfinished(results) and not os.listdir(results / ".resume")


def test_an_option_that_sbatch_refuses_is_one_line(begin: Begin, results: Path) -> None:
    head = begin("--rows", "Net in Net", "--seeds", "0", "--partition", "no-such-partition")
    assert head.ends() == 1
    assert re.search(r"error: sbatch refused the jobs: .*[Pp]artition", head.said) and "Traceback" not in head.said
    assert not any(traces.job(folder) for folder in unfinished(results))


def test_the_time_limit_requeues(limited: tuple[Head, Path]) -> None:
    """SLURM holds a requeued job for two minutes; then the run goes on from where it was. Its log tells of both."""
    head, results = limited
    job = head.submitted().split()[2].rstrip(",")
    (folder,) = until("the run has begun", lambda: [one for one in unfinished(results) if steps(one)])
    until("the job runs again, and the run goes on", lambda: len(list(filter(None, epochs(folder)))) > 1)
    first, second, *_ = filter(None, epochs(folder))
    assert max(first) > 1 and min(second) > max(first) and resumed(folder) >= 1
    assert head.process.poll() is None and not records(results)

    subprocess.run(["scancel", job], check=True)
    assert head.ends() == 1
    assert "cancelled" in head.said and traces.cancelled(folder)
