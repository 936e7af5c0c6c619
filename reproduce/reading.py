"""What `reproduce readings` does: the screen of six readings, its largest effects on MNIST, a contest on fresh seeds.

Above `controlling`, whose size learning on images the last two stages use. It knows both wings, and imports each inside
the function that needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reproduce import controlling, factorial, known_cases, plan, screen
from reproduce.controlling import ControlsRequest
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.factorial import DEFAULT, Run
from reproduce.known_answers import KnownStore
from reproduce.label_test import ARMS
from reproduce.size_records import SizeCase, SizeStore
from reproduce.store import Store

Say = Callable[[str], None]
Stage = Literal["screen", "mnist", "fresh"]
SEEDS: dict[Stage, Sequence[int]] = {
    "screen": screen.SEEDS,
    "mnist": screen.MNIST_SEEDS,
    "fresh": screen.FRESH_SEEDS,
}


@dataclass(frozen=True, kw_only=True)
class ReadingsRequest:
    """`reproduce readings`, parsed; each field is the option of its name (`as_json`: `--json`)."""

    stage: Stage = "screen"
    seeds: Sequence[int] | None = None  # None: the stage's own
    jobs: int = 1
    data_root: Path | None = None  # of MNIST, for the stages `mnist` and `fresh`
    results: Path = Path("results")
    no_run: bool = False
    as_json: bool = False
    dry_run: bool = False

    @property
    def chosen_seeds(self) -> Sequence[int]:
        return SEEDS[self.stage] if self.seeds is None else self.seeds


def command(request: ReadingsRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> int:
    """Run what has no record yet of one stage, then print the report; the exit code.

    Raises `UserError`, or `Interrupted` with everything saved and what is finished printed.
    """
    check(request)
    stopped = None
    if not request.no_run:
        try:
            work = run_screen if request.stage == "screen" else run_on_images
            if not work(request, out=out, err=err, stop=stop):
                return 0
        except Interrupted as asked:
            if asked.idle:
                raise
            stopped = asked
    show(request, out=out, err=err, partial=stopped is not None)
    if stopped is not None:
        raise stopped
    return 0


def check(request: ReadingsRequest) -> None:
    """Raises `UsageError` for seeds of another stage: fresh ones must not be seen before."""
    for seed in request.chosen_seeds:
        if (seed >= screen.FRESH_FROM) != (request.stage == "fresh"):
            raise UsageError(
                f"--seeds: {seed} is not of stage {request.stage}; seeds from {screen.FRESH_FROM} on are kept for "
                "stage fresh"
            )


def run_screen(request: ReadingsRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> bool:
    """Run the cases of the screen that have no record; False for a dry run, which prints what that would be."""
    store = KnownStore(request.results)
    cases = screen.cases(request.chosen_seeds)
    todo = [case for case in cases if store.find(case) is None]
    missing = [case for case in known_cases.with_oracle(todo) if store.find(case) is None]
    span = sum(map(known_cases.seconds, missing)) / request.jobs
    if request.dry_run:
        tell_plan(request, len(cases), len(todo), span, out)
        return False
    if not todo:
        err(f"nothing to run: all {len(cases)} cases are recorded")
        return True
    oracles = len(missing) - len(todo)
    err(f"readings: {len(todo)} cases and {oracles} of the oracle, {rough(span)}. It may be stopped at any moment.")
    from reproduce.run.known import bench

    bench.run_cases(todo, store, jobs=request.jobs, progress=err, stop=stop)
    return True


def run_on_images(request: ReadingsRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> bool:
    """Size learning on MNIST under each of the stage's settings and label arms; False for a dry run."""
    compared = settings(request)
    if compared is None:
        err("the screen speaks for no other reading: there is nothing to test on fresh seeds")
        return True
    like = images_request(request)
    spec = controlling.size_spec("mnist", steps=screen.MNIST_STEPS, source=controlling.source_of(like))
    cases = [
        SizeCase(spec=screen.under(spec, run), arm=arm, seed=seed)
        for seed in request.chosen_seeds
        for run in compared
        for arm in ARMS
    ]
    store = SizeStore(request.results)
    todo = [case for case in cases if store.find(case) is None]
    device = plan.likely_device(like.device)
    span = sum(controlling.seconds(case.spec, device) for case in todo) / request.jobs
    if request.dry_run:
        tell_plan(request, len(cases), len(todo), span, out)
        return False
    before = controlling.saved(cases, store)
    try:
        controlling.run(cases, like, store, err=err, stop=stop)
    except Interrupted:
        raise Interrupted(idle=controlling.saved(cases, store) == before) from None
    return True


def settings(request: ReadingsRequest) -> list[Run] | None:
    """What the stage compares: ours, and the three largest factors one by one or all that the screen chose; or None.

    Raises `UserError` before the screen has a whole seed.
    """
    from reproduce.report import readings

    found = readings.found_in(request.results)
    if not found[screen.CHOOSING]:
        raise UserError(
            f"stage {request.stage} needs the screen's results, and {request.results} has no whole seed of it; run "
            "`reproduce readings` first"
        )
    if request.stage == "mnist":
        return [DEFAULT, *(screen.changed(factor) for factor in readings.strongest(found))]
    chosen = readings.candidate(found)
    return None if chosen is None else [DEFAULT, chosen]


def images_request(request: ReadingsRequest) -> ControlsRequest:
    """How `controlling` is asked for such runs."""
    return ControlsRequest(
        dataset="mnist",
        data_root=request.data_root,
        steps=screen.MNIST_STEPS,
        jobs=request.jobs,
        results=request.results,
        dry_run=request.dry_run,
    )


def rough(span: float) -> str:
    return f"about {plan.duration(span)} (a rough estimate)" if span else "no time"


def tell_plan(request: ReadingsRequest, total: int, todo: int, span: float, out: Say) -> None:
    """`--dry-run`."""
    if request.as_json:
        entry = {"stage": request.stage, "cases": total, "to_run": todo, "estimated_seconds": round(span)}
        out(json.dumps(entry | {"seeds": list(request.chosen_seeds)}, indent=1))
        return
    for number, run in enumerate(factorial.design() if request.stage == "screen" else (), start=1):
        out(f"run {number}: " + ", ".join(f"{name} {level}" for name, level in factorial.readings(run).items()))
    out(f"{total - todo} of {total} cases are recorded; the rest takes {rough(span)}")


def show(request: ReadingsRequest, *, out: Say, err: Say, partial: bool) -> None:
    """Bring RESULTS/rendered up to date, then print the report, or its values as JSON."""
    from reproduce.report import readings, rendered

    folder = request.results / "rendered"
    path = folder / f"{readings.NAME}.{'json' if request.as_json else 'md'}"
    if path in rendered.write_all(Store(request.results), folder):
        out(path.read_text(encoding="utf-8").rstrip())
        return
    message = f"no seed of the screen is whole in {request.results}; `reproduce readings` runs what is missing"
    if not partial:
        raise UserError(message)
    err(message)
