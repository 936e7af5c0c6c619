"""What the results rest on: departures from the text, machines and compute, and what was not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from reproduce import experiments, paper, plan
from reproduce.experiments import Row
from reproduce.naming import is_control
from reproduce.paper import Deviation
from reproduce.report import words
from reproduce.report.cells import cells_of
from reproduce.report.onepage import commands
from reproduce.report.onepage.overview import TABLES, compute_table, in_full
from reproduce.report.onepage.parts import (
    Block,
    Bullets,
    Code,
    Commands,
    Facts,
    Fold,
    Heading,
    Line,
    Section,
    Small,
    Strong,
    grid,
    joined,
    text,
)
from reproduce.report.onepage.sources import Sources, machine
from reproduce.specs import PROTOCOL_VERSION, Protocol

SEEDS = 3
SHOWN = {"cpu": "CPU", "cores": "cores", "gpu": "GPU", "memory_gib": "memory, GiB", "os": "system",
         "python": "Python", "torch": "PyTorch", "cuda": "CUDA"}  # fmt: skip


def deviations_section(sources: Sources) -> Section:
    entries = paper.deviations()
    lead = text(
        f"The paper leaves open or contradicts {len(entries)} points. Each is settled by one of the readings below; "
        "its tag stands in the code where the choice is made. Notes in our words."
    )
    blocks: list[Block] = [lead, *(_deviation(entry) for entry in entries)]
    return Section(name="deviations", title="Readings and departures", short="Deviations", blocks=tuple(blocks))


def _deviation(entry: Deviation) -> Fold:
    title: Line = (Strong(entry.id), f" {entry.title}", Small((entry.where,)))
    facts: list[tuple[str, Line]] = [
        ("the paper", (entry.paper,)),
        ("here", (entry.chosen,)),
        ("why", (entry.why,)),
        ("other readings", joined((Code(one),) for one in entry.alternatives) or ("none to select",)),
        ("in", (Code(entry.code),)),
    ]
    return Fold(title, (Facts(tuple(facts)),))


def environment_section(sources: Sources) -> Section:
    """Machines, code, compute, and files that cannot be read."""
    blocks: list[Block] = [_machines(sources), _code(sources), compute_table(sources)]
    warnings = sorted({words.one_line(one) for record in sources.timings for one in record.certificate.warnings})
    if warnings:
        blocks.append(
            Fold((f"{len(warnings)} warnings while the clock ran",), (Bullets(tuple((w,) for w in warnings)),))
        )
    if sources.problems:
        blocks.append(Heading("Files that cannot be read, and are left out"))
        blocks.append(Bullets(tuple((words.one_line(line),) for line in sources.problems)))
    return Section(name="environment", title="Machines and compute", short="Machines", blocks=tuple(blocks))


def _machines(sources: Sources) -> Block:
    every = (*sources.shelf.records, *sources.timings, *sources.known, *sources.sizes)
    used = Counter(record.machine for record in every)
    rows: list[list[Line]] = []
    for name, count in sorted(used.items()):
        about = sources.shelf.machine(name)
        cells = ["-" if about.get(key) is None else words.one_line(str(about[key])) for key in SHOWN]
        rows.append([(machine(name),), (f"{count:,}",), *((cell,) for cell in cells)])
    return grid(["machine", "records", *SHOWN.values()], rows, "Machines")


def _code(sources: Sources) -> Block:
    """How many versions of the code the runs come from."""
    every = [record.code for record in (*sources.shelf.records, *sources.timings, *sources.known, *sources.sizes)]
    commits = Counter(words.one_line(str(code.get("commit", "unknown")))[:12] for code in every)
    dirty = sum(bool(code.get("dirty")) for code in every)
    old = sum(record.protocol_version != PROTOCOL_VERSION for record in sources.shelf.records)
    named = ", ".join(f"{commit} ({count})" for commit, count in sorted(commits.items())) or "none"
    return text(
        f"Records by the commit that made them: {named}. {dirty:,} come from a checkout with changes that were not "
        f"committed, {old:,} from an older protocol version than v{PROTOCOL_VERSION}."
    )


def missing_section(sources: Sources) -> Section:
    """Rows without a full run, runs without a result, and what each would take."""
    blocks: list[Block] = [block for name in (*TABLES, "figure3") for block in _missing(name, sources)]
    blocks = blocks or [text("Every row has a run of the paper's schedule on the canonical files.")]
    blocks += _without_result(sources)
    return Section(name="not-run", title="What was not run", short="Not run", blocks=tuple(blocks))


def _missing(name: str, sources: Sources) -> Iterator[Block]:
    """The rows of one table or figure that no full run answers."""
    full = in_full(sources, name)
    rows = [row for row in experiments.rows(name, Protocol(base="paper")) if not is_control(row.name)]
    missing = [row for row in rows if row.name not in full]
    if not missing:
        return
    shorter = _with_shorter(name, sources)
    groups = {
        "No run at all: ": [row.name for row in missing if row.name not in shorter],
        "Shorter runs, or on other images, alone: ": [row.name for row in missing if row.name in shorter],
    }
    yield Heading(f"{paper.tables()[name].title}: {len(missing)} of {len(rows)} {_things(name)}")
    yield Bullets(tuple((Strong(title), ", ".join(names) + ".") for title, names in groups.items() if names))
    yield text(f"{SEEDS} seeds of these take about {_cost(missing, 'cpu')} on one CPU thread, by arithmetic alone.")
    names = () if len(missing) == len(rows) else [row.name for row in missing]
    yield Commands((commands.command(name, Protocol(base="paper"), names=names),))


def _with_shorter(name: str, sources: Sources) -> set[str]:
    """Rows that have a run of some other protocol or source. Figure 3's are those of its pictures."""
    found = {cell.row.name for table in sources.tables if table.experiment == name and not table.smoke
             for cell in table.cells if cell.series}  # fmt: skip
    for page in sources.pages:
        if page.figure and page.figure["experiment"] == name and not page.figure["smoke_test"]:
            rows = experiments.rows(name, Protocol.parse(page.figure["protocol"]))
            found |= {cell.row.name for cell in cells_of(rows, sources.shelf) if cell.series}
    return found


def _things(experiment: str) -> str:
    return "points" if experiment.startswith("figure") else "rows"


def _cost(rows: Sequence[Row], device: str) -> str:
    return plan.duration(SEEDS * sum(plan.seconds(row.spec, device) for row in rows))


def _without_result(sources: Sources) -> Iterator[Block]:
    """Runs that diverged or failed: they are records too."""
    found = [record for record in sources.shelf.records if record.outcome.status != "finished"]
    if not found:
        yield text("No recorded run diverged or failed.")
        return
    yield Heading("Runs without a result")
    rows: list[list[Line]] = [
        [
            (sources.run(record, record.run_id),),
            (record.spec.protocol,),
            (record.outcome.status,),
            (words.one_line(record.outcome.reason) or "no reason recorded",),
        ]
        for record in found
    ]
    yield grid(["run", "protocol", "outcome", "reason"], rows)
