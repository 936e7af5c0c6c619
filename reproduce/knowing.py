"""What `reproduce known-answer` does: compute the cases that have no record yet, then print the report.

Beside `commands`: it knows both wings, and imports each inside the function that needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduce import known_cases, plan
from reproduce.errors import Interrupted
from reproduce.known_answers import ORACLE, Case, KnownStore, case_id
from reproduce.store import Store

DEFAULT_SEEDS, FULL_SEEDS = range(3), range(5)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class KnownRequest:
    """`reproduce known-answer`, parsed; each field is the option of its name (`as_json`: `--json`)."""

    full: bool = False
    methods: str | None = None  # globs
    tasks: str | None = None
    seeds: Sequence[int] | None = None  # None: 0..2, with `full` 0..4
    jobs: int = 1
    results: Path = Path("results")
    dry_run: bool = False
    no_run: bool = False
    as_json: bool = False
    listing: bool = False  # `--list`


def names(request: KnownRequest) -> list[str]:
    """What `--list` prints: the chosen methods."""
    return list(dict.fromkeys(case.method for case in chosen(request)))


def chosen(request: KnownRequest) -> list[Case]:
    """The cases that were asked for, without the oracle's. Raises `UsageError` for a bad glob."""
    if request.full:
        every = known_cases.full_cases(request.seeds or FULL_SEEDS)
    else:
        every = known_cases.default_cases(request.seeds or DEFAULT_SEEDS)
    return known_cases.select(every, request.methods, request.tasks)


def command(request: KnownRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> int:
    """Compute and record what is missing, render, and print the report; returns the exit code.

    Raises `UserError`, or `Interrupted` with all finished cases recorded and printed.
    """
    cases, store = chosen(request), KnownStore(request.results)
    if request.listing:
        found = names(request)
        out(json.dumps(found, indent=1) if request.as_json else "\n".join(found))
        return 0
    if request.dry_run:
        show_plan(cases, request, store, out)
        return 0
    stopped: Interrupted | None = None
    if not request.no_run:
        try:
            compute(cases, request, store, err=err, stop=stop)
        except Interrupted as asked:
            stopped = asked
            if stopped.idle:
                raise
    show(request, out=out, err=err)
    if stopped is not None:
        raise stopped
    return 0


def compute(
    cases: Sequence[Case], request: KnownRequest, store: KnownStore, *, err: Say, stop: Callable[[], bool]
) -> None:
    todo = missing(cases, store)
    if not todo:
        err(f"nothing to run: all {len(cases)} cases are recorded")
        return
    span = cost(todo, request.jobs)
    if request.full or span > plan.LONG:
        cheaper = "without --full, " * request.full + "--methods, --tasks, fewer --seeds, more --jobs"
        err(
            f"{counted(todo)}, about {plan.duration(span)} (a rough estimate). Cheaper: {cheaper}; or in parts, "
            "--time-budget. Going on."
        )
    from reproduce.run.known import bench

    bench.run_cases(cases, store, jobs=request.jobs, progress=err, stop=stop)


def missing(cases: Sequence[Case], store: KnownStore) -> list[Case]:
    """What has no record yet, each once, the oracle's cases first."""
    todo = known_cases.with_oracle([case for case in cases if store.find(case) is None])
    return [case for case in todo if store.find(case) is None]


def cost(todo: Sequence[Case], jobs: int) -> float:
    """Seconds, roughly."""
    return sum(known_cases.seconds(case) for case in todo) / jobs


def counted(todo: Sequence[Case]) -> str:
    """`360 cases and 336 of the oracle's`."""
    oracles = sum(case.method == ORACLE for case in todo)
    return f"{len(todo) - oracles} cases" + (f" and {oracles} of the oracle's" if oracles else "")


def show_plan(cases: Sequence[Case], request: KnownRequest, store: KnownStore, out: Say) -> None:
    """`--dry-run`: one line, or one JSON object, for each case, the oracle's among them."""
    todo = {case_id(case) for case in missing(cases, store)}
    every = known_cases.with_oracle(cases)
    if request.as_json:
        entries = [
            {**case.model_dump(mode="json"), "finished": case_id(case) not in todo,
             "record": store.path(case).relative_to(request.results).as_posix()}
            for case in every
        ]  # fmt: skip
        out(json.dumps(entries, indent=1))
        return
    for case in every:
        out(f"{known_cases.describe(case)}: {'to run' if case_id(case) in todo else 'recorded'}")
    left = [case for case in every if case_id(case) in todo]
    span = plan.duration(cost(left, request.jobs)) if left else "no time"
    out(f"to run: {counted(left)}, about {span} with --jobs {request.jobs} (a rough estimate)")


def show(request: KnownRequest, *, out: Say, err: Say) -> None:
    """Bring RESULTS/rendered up to date, then print the report and where its figure lies, or the figure's data."""
    from reproduce.report import known, rendered

    for problem in known.problems(request.results):
        err(f"warning: {problem}")
    folder = request.results / "rendered"
    pages = known.pages(request.results)
    if not pages:
        err("nothing to show yet: no case is recorded")
        return
    rendered.write_all(Store(request.results), folder)
    report, figure = pages
    if request.as_json:
        out(figure.text.rstrip())
    else:
        out(f"{report.text}\nFigure: {folder / figure.pictures[0]}")
