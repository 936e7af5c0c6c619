"""What `show`, `diff`, `replay`, `checklist` and `doctor` do. Knows both wings; imports each where it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce import lookup, plan
from reproduce.errors import UsageError, UserError
from reproduce.experiments import EXPERIMENTS
from reproduce.findings import Finding, clean, page
from reproduce.lookup import Found
from reproduce.records import RunRecord
from reproduce.specs import PROTOCOL_VERSION
from reproduce.store import Store

Say = Callable[[str], None]
PLOTS, SCRATCH = Path("build/plots"), Path("build/replay")  # both ignored by git
HEALTH = {"ok": "ok", "note": "note", "broken": "BROKEN"}
CHECKS = {"pass": "pass", "fail": "FAIL", "person": "needs a person"}


def show(names: Sequence[str], *, experiment: str | None, results: Path, plot: bool, as_json: bool, out: Say) -> None:
    """One record, one machine, or all that is recorded of one row; with `plot` the path of a picture comes last."""
    from reproduce.report import shown, shown_cell

    cell = cell_named(names, experiment, results)
    if cell is None:
        found = lookup.find(names[0], results)
        entry, records, name = shown.as_json(found), [found.run] if found.run else [], found.name
        text = shown.text(found)
    else:
        store = Store(results)
        entry = shown_cell.cell(*cell, store)
        text, name = shown_cell.text(entry, results), "-".join(cell)
        records = shown_cell.runs(entry, store)
    if plot:
        entry["plot"] = picture(records, name, f"Course of {name}" if cell is None else f"{entry['title']}, {cell[1]}")
        text += f"\n\n{entry['plot']}"
    out(dumped(entry) if as_json else text)


def cell_named(names: Sequence[str], experiment: str | None, results: Path) -> tuple[str, str] | None:
    """(experiment, row) if that is what the words name; None if they name a file. Raises `UsageError`."""
    from reproduce.report.shown_cell import experiments_with

    if len(names) > 2 or (len(names) == 2 and experiment is not None):
        raise UsageError("show takes a record, or an experiment and a row: reproduce show table2 'EffConv-20 0.66M'")
    if len(names) == 2 or experiment is not None:
        place, row = (names[0], names[1]) if len(names) == 2 else (str(experiment), names[0])
        if place not in EXPERIMENTS:
            raise UsageError(f"no experiment is named {place!r}; use one of {', '.join(EXPERIMENTS)}")
        return place, row
    if Path(names[0]).is_file() or lookup.named(names[0], results):
        return None
    places = experiments_with(names[0])
    if len(places) > 1:
        raise UsageError(f"{names[0]} is a row of {', '.join(places)}; name one with --experiment")
    return (places[0], names[0]) if places else None


def picture(records: Sequence[RunRecord], name: str, title: str) -> str:
    """Draws the course of these runs, of one spec; the path. Raises `UserError` where there is none."""
    from reproduce.report import canvas, drawing_curves
    from reproduce.store import place

    try:
        data = drawing_curves.curves(records, title)
        content = canvas.rendered(drawing_curves.draw, data)["png"]
    except (KeyError, TypeError, ValueError) as fault:  # a history may hold anything
        raise UserError(f"there is no course of {name} to draw ({clean(fault)}); choose another run") from fault
    path = PLOTS / f"{''.join(letter if letter.isalnum() or letter in '.-' else '-' for letter in name)}.png"
    place(path, content)
    return path.as_posix()


def diff(a: str, b: str, *, results: Path, as_json: bool, out: Say) -> None:
    """Two records or two machines. Raises `UsageError` for one of each."""
    from reproduce.report import diffs

    one, other = lookup.find(a, results), lookup.find(b, results)
    if (one.record is None) != (other.record is None):
        raise UsageError(f"{a} and {b} are a machine and a record; name two of a kind")
    entry = diffs.compared(one, other)
    out(dumped(entry) if as_json else diffs.text(entry))


def checklist(*, results: Path, as_json: bool, out: Say) -> None:
    """Each line passes, fails or needs a person, by what stands in the records and in the repository of this code."""
    from reproduce.report import checks

    told(checks.checklist(results, Path(__file__).parents[1]), CHECKS, as_json, out)


def doctor(*, results: Path, data_root: Path, cache: Path | None, as_json: bool, out: Say) -> int:
    """1 if something is broken, else 0."""
    from reproduce.report import health
    from reproduce.run import doctoring

    machines = [Store(results).machine(path.stem) for path in sorted((results / lookup.MACHINES).glob("*.json"))]
    found = [*doctoring.findings(results, data_root, cache, machines), *health.findings(results)]
    told(found, HEALTH, as_json, out)
    return 1 if any(one.state == "broken" for one in found) else 0


@dataclass(frozen=True, kw_only=True)
class ReplayRequest:
    """`reproduce replay`, parsed; each field is the option of its name (`as_json`: `--json`)."""

    run: str
    data_root: Path | None = None
    cache: Path | None = None
    device: str = "auto"
    results: Path = Path("results")
    scratch: Path = SCRATCH
    dry_run: bool = False
    as_json: bool = False


def replay(request: ReplayRequest, *, out: Say, err: Say, stop: Callable[[], bool]) -> int:
    """Run a recorded spec and seed anew and compare; 1 if the two differ beyond noise. Raises as `runner.run` does."""
    found = lookup.find(request.run, request.results)
    record = replayable(found, request.scratch)
    if request.dry_run:
        out(expected(found, record, plan.likely_device(record.clock.device or request.device)))
        return 0
    from reproduce.report import replayed
    from reproduce.run import replaying

    device = replaying.device_of(record, request.device)
    err(expected(found, record, plan.likely_device(device)))
    again, path = replaying.replay(
        record,
        f"replay of {found.name.rpartition('-s')[0]}",
        request.scratch,
        data_root=request.data_root,
        cache=request.cache,
        device=device,
        stop=stop,
    )
    machines = found.machine, Store(request.scratch).machine(again.machine)
    noise = replayed.noise_of(record, Store(found.results).records())
    judged = replayed.judge(record, again, machines, noise)
    if request.as_json:
        out(dumped({**judged.as_json(), "record": found.path.as_posix(), "replay": path.as_posix()}))
    else:
        out(replayed.text(judged, path.as_posix(), found.path.as_posix()))
    return 1 if judged.verdict == "different" else 0


def replayable(found: Found, scratch: Path) -> RunRecord:
    """The record of a training run under today's protocol version. Raises `UserError` for another."""
    record = found.run
    if record is None:
        raise UserError(f"{found.path} is no training run, and only these are replayed; see `reproduce show`")
    if record.protocol_version != PROTOCOL_VERSION:
        commit = clean(record.code.get("commit", "unknown"))
        raise UserError(
            f"{found.name} was made under protocol version {record.protocol_version}, this code has "
            f"{PROTOCOL_VERSION}; check out commit {commit} to replay it"
        )
    if scratch.absolute().resolve() == found.results.absolute().resolve():
        raise UsageError("a replay never stands among the records; give another folder with --scratch DIR")
    return record


def expected(found: Found, record: RunRecord, device: str) -> str:
    """How long it will take, said before anything is begun."""
    from reproduce.report import words
    from reproduce.report.checks.compliance import seconds_spent
    from reproduce.report.origins import rows_of_record, where

    rows = rows_of_record(record)
    title = clean(where(rows[0])) if rows else record.spec.model.family
    place = clean(words.machine_title(found.machine, record.clock.device or ""))
    rough = f"about {plan.duration(plan.seconds(record.spec, device))} on {device}"
    took, beside = plan.duration(seconds_spent([record])), ", beside other work" if record.clock.shared_device else ""
    return (
        f"replay of {found.name} ({title}, {record.spec.protocol}, seed {record.seed}): {rough} by a rough "
        f"estimate; the record took {took} on {place}{beside}. Stop it at any moment: the same command goes on."
    )


def told(found: Sequence[Finding], titles: dict[str, str], as_json: bool, out: Say) -> None:
    out(dumped([one.as_json() for one in found]) if as_json else "\n".join(page(found, titles)))


def dumped(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
