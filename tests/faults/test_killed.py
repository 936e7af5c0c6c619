"""`kill -9` of workers and heads, and two heads at once: the same command ends with the same records, each made once.

Real processes: the command line with `--backend local`, whose workers end themselves where a fault is planned.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.commands import Place, until
from tests.faults.recorder import FULL, KILLED, Recorder

pytestmark = pytest.mark.slow

HEAD, TWO = "`kill -9` of the head", "two heads on one store"
# Phases, as `reproduce.phases` has them; after a step of each stage; when the record is there and so is the state.
MOMENTS = ("claim", "data", "sizes", "sizes+1", "snap", "training", "training+1", "write", "rename", "renamed")
RANDOM = 10
LONGEST = 3.0  # seconds after the claim: about a run's length; what has ended by then is killed after its end
KILLS = 10 if FULL else 3  # of heads, at random moments


def kill_and_repeat(place: Place, faults: dict[int, str], whole: dict[int, Any]) -> list[object]:
    """What was lost or differs after a command whose workers were killed and the same command again."""
    first = place.run(faults=faults)
    done = {int(path.name.removeprefix("done-")) for path in place.folder.glob("done-*")}
    assert done == faults.keys(), f"not every fault came: {sorted(faults.keys() - done)}\n{first.said}"
    assert "Traceback" not in first.said
    again = place.run()
    assert again.code == 0, again.said
    return place.wrong(whole)


def test_workers_killed_at_every_phase(
    place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder
) -> None:
    here = place(len(MOMENTS))
    lost = kill_and_repeat(here, {seed: f"kill@{moment}" for seed, moment in enumerate(MOMENTS)}, whole)
    told = "claim, data, stage 1 and its first step, snap, stage 2 and its first step, write, rename, after the rename"
    recorder.tried(KILLED, "a worker of the command line, at each phase", len(MOMENTS), lost, told)


def test_workers_killed_at_random_moments(
    place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder
) -> None:
    draw = random.Random(5)
    moments = {seed: f"kill@claim~{draw.uniform(0, LONGEST):.3f}" for seed in range(RANDOM)}
    recorder.tried(KILLED, "a worker of the command line, at random moments", RANDOM,
                   kill_and_repeat(place(RANDOM), moments, whole))  # fmt: skip


def test_a_killed_worker_harms_no_other_run_and_is_told(
    place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder
) -> None:
    here = place(3)
    first = here.run(faults={1: "kill@training+1"})
    lines = [line for line in first.said.splitlines() if "was killed" in line]
    assert first.code == 1 and len(lines) == 1 and "seed 1" in lines[0], first.said
    found = here.outcomes()
    lost = [seed for seed in (0, 2) if found.get(seed) != whole[seed]]
    recorder.tried(KILLED, "the runs beside a killed one", 2, lost)


def test_the_head_killed_with_workers_at_work(
    place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder
) -> None:
    """They go on without it; a new head waits for them and starts only the others."""
    here = place(4)
    first = here.start(faults={0: "pause@training", 1: "pause@training"})
    until(lambda: here.times("training").total() == 2, "both workers are in stage 2")
    first.kill()
    assert len(here.at_work()) == 2
    second = here.start()
    until(lambda: len(re.findall(r"waits? for it|under way", second.said)) >= 2, "the new head sees both runs")
    (here.folder / "go").touch()
    assert second.wait().code == 0, second.said
    recorder.tried(HEAD, "while two workers are at work", 1, [*here.wrong(whole), *here.repeated()])


def test_heads_killed_at_random_moments(
    place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder
) -> None:
    here, draw = place(6), random.Random(6)
    for _ in range(KILLS):
        head = here.start()
        seen = len(here.journal()) + draw.randint(0, 12)
        until(lambda: len(here.journal()) >= seen or head.process.poll() is not None, "the runs to come as far")  # noqa: B023
        head.kill()
    last = here.run()
    assert last.code == 0, last.said
    recorder.tried(HEAD, "at random moments, one head after the other on one store", KILLS,
                   [*here.wrong(whole), *here.repeated()])  # fmt: skip


def test_two_heads_at_once(place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder) -> None:
    here = place(6)
    heads = [here.start(), here.start()]
    codes = [head.wait().code for head in heads]
    assert codes == [0, 0], "\n".join(head.said for head in heads)
    assert heads[0].printed == heads[1].printed != ""  # the same table
    recorder.tried(TWO, "the same command twice, begun together: runs", here.seeds,
                   [*here.wrong(whole), *here.repeated()])  # fmt: skip


def test_two_heads_of_two_backends(place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder) -> None:
    here = place(4)
    heads = [here.start(), here.start("--backend", "inline")]
    codes = [head.wait().code for head in heads]
    assert codes == [0, 0], "\n".join(head.said for head in heads)
    recorder.tried(TWO, "`--backend local` and `--backend inline`, begun together: runs", here.seeds,
                   [*here.wrong(whole), *here.repeated()])  # fmt: skip
