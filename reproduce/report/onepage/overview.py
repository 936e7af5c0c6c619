"""The first screen: verdicts, the share of the paper's rows that was run in full, the compute, what can be decided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from reproduce import experiments, paper
from reproduce.experiments import EXPERIMENTS
from reproduce.naming import is_control
from reproduce.records import RunRecord
from reproduce.report import words
from reproduce.report.cells import Cell, cells_of
from reproduce.report.onepage.parts import (
    Badge,
    Block,
    Bullets,
    Heading,
    Inline,
    Line,
    Link,
    Section,
    Strong,
    Tile,
    Tiles,
    grid,
)
from reproduce.report.onepage.sources import Sources
from reproduce.report.shelf import CANONICAL, DIGITS
from reproduce.report.verdicts import VERDICTS
from reproduce.specs import Protocol
from reproduce.timing_store import counts
from reproduce.timings import RowTiming

TABLES = tuple(name for name in EXPERIMENTS if name.startswith("table"))
DECIDED = ("supported", "supported but small", "contradicted")
FULL = (Protocol(base="paper"), Protocol(base="paper", recipe="sgd"))  # both readings of R-15


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Compute of one record, in seconds; of a CPU, seconds of one thread."""

    what: str
    device: str
    seconds: float
    result: bool  # False: diverged, failed, or no timing


def section(sources: Sources) -> Section:
    return Section(name="overview", title="In short", short="In short", blocks=(_tiles(sources), *_decidable(sources)))


def share(sources: Sources) -> tuple[int, int]:
    """Of the rows of Tables 1-4: how many have any run under the full schedule on canonical files, and all."""
    names = {table: {row.name for row in paper.rows(table)} for table in TABLES}
    full = sum(len(rows & in_full(sources, table)) for table, rows in names.items())
    return full, sum(map(len, names.values()))


def in_full(sources: Sources, experiment: str) -> set[str]:
    """The rows of an experiment that have any run, whatever its outcome, on the full schedule and canonical files."""
    cells = [cell for protocol in FULL for cell in cells_of(experiments.rows(experiment, protocol), sources.shelf)]
    return {cell.row.name for cell in cells if _canonical(cell) and not is_control(cell.row.name)}


def spent(sources: Sources) -> list[Spent]:
    """Every record's compute."""
    return [*_of_runs(sources.shelf.records), *_of_timings(sources), *_of_tests(sources)]


def compute_line(found: Iterable[Spent]) -> str:
    """`14.1 h of one CPU thread, 3.2 h of a GPU`."""
    totals: dict[str, float] = defaultdict(float)
    for one in found:
        totals[one.device] += one.seconds
    names = {"cpu": "of one CPU thread", "cuda": "of a GPU"}
    parts = [f"{hours(span)} {names.get(device, 'of ' + device)}" for device, span in sorted(totals.items())]
    return ", ".join(parts) or "none"


def hours(span: float) -> str:
    return f"{span / 3600:,.1f} h"


def compute_table(sources: Sources) -> Block:
    """By kind of record and device, what was spent, and how much of it on runs without a result."""
    groups: dict[tuple[str, str], list[Spent]] = defaultdict(list)
    for one in spent(sources):
        groups[one.what, one.device].append(one)
    rows = []
    for (what, device), several in groups.items():
        lost = [one for one in several if not one.result]
        total, without = (sum(one.seconds for one in part) for part in (several, lost))
        rows.append([what, device, str(len(several)), hours(total), str(len(lost)), hours(without)])
    headers = ["records", "device", "count", "compute (CPU: of one thread)", "without a result", "compute of these"]
    return grid(headers, [[(text,) for text in row] for row in rows], "Compute by kind of record")


def _tiles(sources: Sources) -> Tiles:
    verdicts = Counter(one.verdict for one in sources.judgements)
    full, rows = share(sources)
    every = spent(sources)
    badges: list[Inline] = [Badge(verdict, verdicts[verdict]) for verdict in VERDICTS if verdicts[verdict]]
    return Tiles((
        Tile("Verdicts", tuple(badges) or ("none",), ("of ", Link(f"{sum(verdicts.values())} claims", "#claims"))),
        Tile(
            "Rows of Tables 1-4 run in full",
            (f"{full} of {rows} ({100 * full / rows:.0f} %)",),
            ("any run on the paper's schedule and the canonical files; ", Link("what was not run", "#not-run")),
        ),
        Tile(
            "Compute",
            (compute_line(every),),
            (f"{len(every):,} records, {_lost(every)}; ", Link("by kind", "#environment")),
        ),
    ))  # fmt: skip


def _lost(every: Iterable[Spent]) -> str:
    """How much of it went into runs that failed or diverged; it is part of the total."""
    lost = [one.seconds for one in every if not one.result]
    return f"{len(lost):,} of them without a result ({hours(sum(lost))})" if lost else "all of them with a result"


def _decidable(sources: Sources) -> Iterator[Block]:
    """What these runs can and cannot decide, from the verdicts and the records."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for one in sources.judgements:
        kinds[one.claim.kind]["all"] += 1
        kinds[one.claim.kind]["decided"] += one.verdict in DECIDED
    decided = [f"{count['decided']} of {count['all']} on {kind}" for kind, count in kinds.items() if count["decided"]]
    open_ones = [f"{count['all'] - count['decided']} on {kind}" for kind, count in kinds.items()
                 if count["all"] > count["decided"]]  # fmt: skip
    can: list[Line] = [(Strong("Decided: "), ("; ".join(decided) or "no claim") + ".")]
    yield Heading("What these runs can and cannot decide")
    yield Bullets((
        *can,
        (Strong("Not decided: "), ("; ".join(open_ones) or "none") + "."),
        (Strong("Accuracy: "), _on_accuracy(sources)),
        (Strong("Time: "), _on_time(sources)),
    ))  # fmt: skip


def _on_accuracy(sources: Sources) -> str:
    full, rows = share(sources)
    rule = "only runs of the paper's schedule on canonical files may decide what it says of accuracy"
    held = f"{full} of the paper's {rows} rows {'has' if full == 1 else 'have'} any"
    real = [one for one in sources.shelf.records if one.spec.data.source != DIGITS]
    shorter = [one for one in real if not _full(one)]
    if not shorter:
        return f"{rule}; {held}."
    seeds = len({one.seed for one in shorter})
    titles = "; ".join(words.one_line(title) for title in sorted({one.data.title for one in shorter}))
    return (
        f"{rule}; {held}. The other {len(shorter)} runs (at most {seeds} seeds a row; {titles}) are shorter or on "
        "other images: their differences are indications."
    )


def _on_time(sources: Sources) -> str:
    good = [one for one in sources.timings if counts(one)]
    where = sorted({words.machine_title(sources.shelf.machine(one.machine), one.device) for one in good})
    if not good:
        return "nothing was timed."
    rows = sum(isinstance(one, RowTiming) for one in good)
    return (
        f"{rows} timings of rows and {len(good) - rows} ratios of pairs, on {'; '.join(map(words.one_line, where))}. "
        "A ratio holds for the machine that it was measured on; the paper's seconds are of a GPU that it does not "
        "name, and are never compared with ours."
    )


def _canonical(cell: Cell) -> bool:
    several = (*cell.others, *(() if cell.series is None else (cell.series,)))
    return any(one.source == CANONICAL for one in several)


def _full(record: RunRecord) -> bool:
    return record.data.canonical and record.spec.protocol in {protocol.name for protocol in FULL}


def _of_runs(records: Iterable[RunRecord]) -> Iterator[Spent]:
    for one in records:
        stages = [stage for stage in (one.clock.size_learning, one.clock.training) if stage is not None]
        seconds = sum(sum(stage.epoch_seconds) + sum(stage.evaluation_seconds) for stage in stages)
        device = one.clock.device or "cpu"
        yield Spent(
            what="training runs",
            device=device,
            seconds=seconds * (one.spec.threads if device == "cpu" else 1),
            result=one.outcome.status == "finished",
        )


def _of_timings(sources: Sources) -> Iterator[Spent]:
    for one in sources.timings:
        what = "timings of rows" if isinstance(one, RowTiming) else "timings of pairs"
        seconds, threads = one.certificate.seconds, one.certificate.threads if one.device == "cpu" else 1
        if seconds is None:  # an older record: what the calendar says, unless it was set back in between
            span = datetime.fromisoformat(one.finished) - datetime.fromisoformat(one.started)
            seconds = max(0.0, span.total_seconds())
        yield Spent(what=what, device=one.device, seconds=seconds * threads, result=counts(one))


def _of_tests(sources: Sources) -> Iterator[Spent]:
    for known in sources.known:
        yield Spent(
            what="known answers",
            device="cpu",
            seconds=known.clock.seconds,
            result=known.test_accuracy is not None,
        )
    for size in sources.sizes:
        yield Spent(
            what="size learning alone",
            device=size.clock.device,
            seconds=size.clock.seconds,
            result=size.outcome.status == "finished",
        )
