"""Runs that diverge, lack memory or hang become records that say so; the runs beside them go on; the table shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reproduce.store import Store
from tests.faults.commands import Place
from tests.faults.recorder import Recorder

pytestmark = pytest.mark.slow

FAULT = "a run that diverges, lacks memory or hangs"
STALL = "15s"
# By seed: what is done to it, the outcome, a word of its reason.
BAD = {
    0: ("diverge@training+1", "diverged", "not finite"),
    1: ("lack_memory@training", "failed", "can't allocate memory"),
    2: ("hang@training+1", "failed", "hung: no step finished"),
    3: ("hang_with_gil@sizes+1", "failed", "hung: no step finished"),
}


def test_bad_runs(place: Callable[..., Place], whole: dict[int, Any], recorder: Recorder) -> None:
    here = place(len(BAD) + 2)
    first = here.run("--stall-limit", STALL, faults={seed: fault for seed, (fault, *_) in BAD.items()})
    assert first.code == 1 and "Traceback" not in first.said, first.said
    outcomes = {record.seed: record.outcome for record in Store(here.results).records()}
    lost: list[object] = []
    for seed, (_, status, words) in BAD.items():
        found = outcomes.get(seed)
        if found is None or found.status != status or words not in found.reason:
            lost.append((seed, found))
    recorder.tried(FAULT, "NaN, no memory, a hang, a hang in C code: recorded with its reason", len(BAD), lost)
    others = range(len(BAD), here.seeds)
    good = here.outcomes()
    recorder.tried(FAULT, "the runs beside them", len(others), [one for one in others if good.get(one) != whole[one]])
    recorder.tried(FAULT, "the table says how many and why", 1, [] if shows(first.printed) else [first.printed])
    again = here.run()
    assert again.code == 0, again.said
    mended = here.outcomes()
    recorder.tried(FAULT, "the same command again: what failed is done, what diverged stays a result", len(BAD),
                   [seed for seed in BAD if (mended[seed] == whole[seed]) != (seed != 0)])  # fmt: skip


def shows(table: str) -> bool:
    return "diverged" in table and "failed" in table
