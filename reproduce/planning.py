"""What `reproduce plan` does: the recorded spread, what a claim needs, and the plan's file. Runs nothing, no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce import claims, study_plans
from reproduce.claims import FLOORS, Claim
from reproduce.errors import UsageError
from reproduce.report import plans_text
from reproduce.report.drafting import Wanted, draft
from reproduce.report.plans import Recorded, standing
from reproduce.report.power import POWER, seeds_for
from reproduce.report.spreads import pilots, spread_of
from reproduce.specs import Protocol
from reproduce.study_plans import Asked
from reproduce.traces import now

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """`reproduce plan`, parsed; each field is the option of its name (`as_json`: `--json`)."""

    claim: str | None = None
    protocol: str = "paper"
    source: str = "canonical"
    spread_from: str | None = None  # PROTOCOL or PROTOCOL@SOURCE
    spread: float | None = None
    smallest: float | None = None
    share: float = 0.9
    steps: int | None = None
    first_seed: int | None = None
    write: str | None = None
    results: Path = Path("results")
    as_json: bool = False


def command(request: PlanRequest, *, out: Say, err: Say) -> int:
    """Print the spreads and plans there are, or the plan for one claim; the exit code. Raises `UserError`."""
    for problem in study_plans.problems(request.results):
        err(f"not read: {problem}")
    recorded = Recorded(request.results)
    if request.claim is None:
        if request.write is not None:
            raise UsageError("--write: a plan is for one claim; add --claim ID")
        overview(request, recorded, out)
        return 0
    claim = claim_of(request.claim)
    before = [one for one in study_plans.plans(request.results) if one.claim == claim.id]
    plan = draft(claim, wanted_of(request), recorded, before=before)
    path = None if request.write is None else study_plans.write(request.results, plan)
    if request.as_json:
        out(json.dumps(plan.signed().model_dump(mode="json"), indent=1))
    else:
        out("\n".join(plans_text.lines(claim, plan, [standing(one, recorded) for one in before])))
    if path is not None:
        err(f"written to {path}: commit it before the first run; more seeds will need another plan")
    return 0


def claim_of(name: str) -> Claim:
    """Raises `UsageError` for an id that no claim has."""
    found = {claim.id: claim for claim in claims.load()}
    if name not in found:
        raise UsageError(f"--claim: no claim has the id {name!r}; reproduce claims lists them")
    return found[name]


def wanted_of(request: PlanRequest) -> Wanted:
    """Raises `UsageError` for options that do not fit together or have no meaning."""
    if request.smallest is not None:
        raise UsageError("--smallest: a claim has its own, from the paper's numbers; leave out --claim to try others")
    if request.spread is not None and not 0.0 < request.spread < 100.0:
        raise UsageError(f"--spread: {request.spread:g} is no deviation in points; give one between 0 and 100")
    if not 0.5 < request.share <= 1.0:
        raise UsageError(f"--share: {request.share:g} is not above one half; give one up to 1, such as 0.9")
    asked = Asked(protocol=_protocol(request.protocol), source=request.source, steps=request.steps)
    pilot, _, source = (request.spread_from or request.protocol).partition("@")
    return Wanted(
        asked=asked,
        pilot=Asked(protocol=_protocol(pilot), source=source or request.source),
        spread=request.spread,
        share=request.share,
        first_seed=request.first_seed,
        name="-" if request.write is None else _name(request.write, request.results),
        written=now(),
    )


def overview(request: PlanRequest, recorded: Recorded, out: Say) -> None:
    """The spread by data set, protocol and source, what it asks for at the smallest effect, and the plans there are."""
    if request.smallest is not None and not 0.0 < request.smallest < 100.0:
        raise UsageError(f"--smallest: {request.smallest:g} is no difference in points; give one between 0 and 100")
    entries: list[dict[str, Any]] = []
    for dataset, pilot in pilots(recorded.shelf):
        spread = spread_of(recorded.shelf, dataset, pilot)
        if spread is not None:
            smallest = request.smallest or FLOORS[dataset]
            n = seeds_for(smallest, spread.upper)
            entries.append({"dataset": dataset, "spread": spread, "smallest": smallest, "n": n})
    plans = [standing(plan, recorded) for plan in study_plans.plans(request.results)]
    if request.as_json:
        shown = [{**one.plan.model_dump(mode="json"), "complete": one.complete, "text": one.text} for one in plans]
        spreads = [{**entry, "spread": entry["spread"].model_dump(mode="json")} for entry in entries]
        out(json.dumps({"power": POWER, "spreads": spreads, "plans": shown}, indent=1))
        return
    for entry in entries:
        out(plans_text.spread_line(entry["dataset"], entry["spread"], entry["smallest"], entry["n"]))
    if not entries:
        out("no cell has two seeds that differ, so there is no spread to plan by")
    for one in plans:
        out(f"{one.plan.claim}: {one.text}")


def _protocol(name: str) -> str:
    try:
        return Protocol.parse(name).name
    except ValueError as fault:
        raise UsageError(str(fault)) from fault


def _name(text: str, results: Path) -> str:
    """The name of a plan from a name or a path below RESULTS/plans. Raises `UsageError` for another place."""
    path, name = Path(text), Path(text).name.removesuffix(".json")
    elsewhere = path.parent != Path(".") and path.parent.resolve() != study_plans.folder(results).resolve()
    if elsewhere or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        place = study_plans.folder(results)
        raise UsageError(f"--write: plans are read from {place}; give a plain name such as first-layers")
    return name
