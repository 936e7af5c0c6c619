"""What of the paper can be run, has been run and is decided; and where the reproduction departs from the text."""

from __future__ import annotations

from collections import Counter

from reproduce import experiments, paper
from reproduce.experiments import EXPERIMENTS
from reproduce.report.checks import repository
from reproduce.report.checks.evidence import Evidence, Lines, line, person
from reproduce.report.rendered import protocols
from reproduce.specs import Protocol

DECIDED = ("supported", "supported but small", "contradicted")


def scope(evidence: Evidence) -> Lines:
    full = Protocol(base="paper")
    printed = [(name, row.name) for name in EXPERIMENTS for row in paper.rows(name)]
    built = {(row.experiment, row.name) for name in EXPERIMENTS for row in experiments.rows(name, full)}
    missing = [" ".join(row) for row in printed if row not in built]
    text = f"{len(printed) - len(missing)} of the paper's {len(printed)} rows and points can be run"
    yield line("scope", not missing, text, "write the missing networks", missing)

    cells = [cell for protocol in protocols(evidence.shelf) for cell in evidence.cells(protocol)]
    run = {(cell.row.experiment, cell.row.name) for cell in cells if cell.finished}
    text = f"{len(run)} of {len(printed)} have a finished run under any protocol"
    yield line("scope", len(run) == len(printed), text, "run the others; --dry-run says for how long")
    whole = sum(any(one.data.canonical for one in cell.finished) for cell in evidence.cells(full))
    text = f"{whole} of {len(printed)} have a run of the full schedule on canonical files"
    yield line("scope", whole == len(printed), text, "--protocol paper on canonical files")

    yield from claims(evidence)
    text = "whether these rows and sentences are all that the paper offers to check"
    yield person("scope", text, "read the paper beside reproduce/paper/*.toml")


def claims(evidence: Evidence) -> Lines:
    from reproduce.report.judged import judged

    found = Counter(str(one.verdict) for one in judged(evidence.results))
    decided, every = sum(found[verdict] for verdict in DECIDED), sum(found.values())
    told = ", ".join(f"{count} {verdict}" for verdict, count in found.most_common())
    text = f"{decided} of {every} sentences of the paper are decided: {told}"
    settled = decided + found["not testable"] == every
    yield line("scope", settled, text, "`reproduce claims` says of each what would settle it")


def deviations(evidence: Evidence) -> Lines:
    entries, carried = paper.deviations(), repository.tags(evidence.root)
    if carried:
        absent = [one.id for one in entries if one.id not in carried.get(one.code, set())]
        text = f"{len(entries) - len(absent)} of {len(entries)} are tagged in the file that their entry names"
        yield line("deviations", not absent, text, "tag the others", absent)
        strays = sorted(set().union(*carried.values()) - {one.id for one in entries})
        text = f"{len(strays)} tags in the code lack an entry"
        yield line("deviations", not strays, text, "describe them in deviations.toml", strays)
    else:
        yield person("deviations", "the sources are not here to be searched for tags", "run this in a checkout")

    bare = [one.id for one in entries if not (one.paper and one.chosen and one.why)]
    text = f"{len(entries) - len(bare)} of {len(entries)} say what the paper prints, what was chosen and why"
    yield line("deviations", not bare, text, "complete them", bare)
    other = sum(bool(one.alternatives) for one in entries)
    text = f"whether these are the authors' readings; {other} of {len(entries)} have alternatives to select"
    yield person("deviations", text, "ask the authors; `reproduce readings` tells which matter")
