"""What the runs themselves say: their images, settings, seeds, seconds and machines."""

from __future__ import annotations

from collections import Counter

from reproduce import paper
from reproduce.known_answers import KnownStore
from reproduce.report.cells import is_timed
from reproduce.report.checks import compliance
from reproduce.report.checks.evidence import Evidence, Lines, line, person
from reproduce.report.rendered import protocols
from reproduce.size_records import SizeStore
from reproduce.timing_store import TimingStore, counts


def data(evidence: Evidence) -> Lines:
    records, finished = evidence.records, evidence.finished
    other = Counter(record.data.title for record in records if not record.data.canonical)
    titles = [f"{count} on {title}" for title, count in other.most_common()]
    text = f"{len(records) - sum(other.values())} of {len(records)} runs are on canonical files"
    yield line("data", not other, text, "`reproduce data NAME --download`, then run on them", titles)

    bare = [one.run_id for one in records if not compliance.names_its_files(one)]
    text = f"{len(records) - len(bare)} of {len(records)} runs name their image files with checksums"
    yield line("data", not bare, text, "run these again", bare)
    early = [one.run_id for one in finished if one.metrics and one.metrics.last.epoch != one.spec.training.epochs]
    text = f"{len(finished) - len(early)} of {len(finished)} results are the last epoch's, not selected on the test set"
    yield line("data", not early, text, "look at these", early)
    text = "whether these data sets may be used so, and what the people in them agreed to"
    yield person("data", text, "read the terms of MNIST, CIFAR-10, STL-10 and ImageNet")


def settings(evidence: Evidence) -> Lines:
    wrong, compared = compliance.stated_settings()
    text = f"{compared - len(wrong)} of {compared} stated settings of size learning are those of the `paper` protocol"
    yield line("settings", not wrong, text, "mend reproduce/recipes.py", wrong)
    homeless = [one.run_id for one in evidence.records if not compliance.has_row(one)]
    count = len(evidence.records)
    text = f"{count - len(homeless)} of {count} runs have exactly the spec of a row under their protocol"
    yield line("settings", not homeless, text, "look at these", homeless)
    off, learned = compliance.off_budget(evidence.finished)
    text = f"{learned - len(off)} of {learned} learned size vectors are within tolerance of their budget"
    yield line("settings", not off, text, "look at these", off)
    sizes, printed = compliance.other_sizes()
    text = f"{printed - len(sizes)} of {printed} fixed networks have the size that the paper prints"
    yield line("settings", not sizes, text, "`reproduce models` gives the reasons", sizes)
    text = "whether the baselines' recipes are their authors'"
    yield person("settings", text, "read reproduce/authors.py beside their papers and code")


def statistics(evidence: Evidence) -> Lines:
    seeds = int(paper.settings()["seeds"])
    filled = [cell for protocol in protocols(evidence.shelf) for cell in evidence.cells(protocol) if cell.finished]
    enough = sum(len(cell.finished) >= seeds for cell in filled)
    text = f"{enough} of {len(filled)} filled cells have the paper's {seeds} seeds or more"
    yield line("statistics", 0 < enough == len(filled), text, "--seeds 0..2")
    twice = compliance.same_seed_twice(evidence.records)
    text = f"{len(twice)} runs share their seed with another of the same cell"
    yield line("statistics", not twice, text, "move one of them away", twice)
    ended = Counter(record.outcome.status for record in evidence.records)
    told = ", ".join(f"{ended[status]} {status}" for status in ("finished", "diverged", "failed"))
    text = f"of {len(evidence.records)} runs {told}"
    yield line("statistics", bool(ended) and not ended["failed"], text, "give their commands again, or say why")
    bits = sum(record.correct_bits is not None for record in evidence.finished)
    text = f"{bits} of {len(evidence.finished)} results keep which test images were right"
    yield line("statistics", bits == len(evidence.finished), text, "run these again")
    yield person("statistics", "whether runs were made and left out that nobody recorded", "ask those who ran them")


def compute(evidence: Evidence) -> Lines:
    records = evidence.records
    devices = Counter(record.clock.device or "unknown device" for record in records)
    where = ", ".join(f"{count} on {device}" for device, count in devices.most_common())
    text = f"{compliance.seconds_spent(records) / 3600:.1f} h in {len(records)} runs, failed ones included ({where})"
    yield line("compute", bool(records), text + _further(evidence), "nothing is recorded yet")
    machines = {record.machine for record in records}
    lost = sorted(machine for machine in machines if not evidence.store.machine(machine))
    text = f"{len(machines) - len(lost)} of {len(machines)} machines of the runs are described"
    yield line("compute", not lost, text, "restore machines/ from git", lost)

    timings = TimingStore(evidence.results)
    certificates = [one.certificate for one in timings.rows() if counts(one)]
    certificates += [one.certificate for one in timings.pairs() if counts(one)]
    every, alone = len(timings.rows()) + len(timings.pairs()), sum(not one.warnings for one in certificates)
    text = f"{len(certificates)} of {every} stopwatch timings are valid"
    yield line("compute", 0 < every == len(certificates), text, "`reproduce time` measures the others again")
    text = f"{alone} of these have no warning, such as of other work beside them"
    yield line("compute", 0 < alone == len(certificates), text, "`reproduce time --again` on an idle machine")
    timed = sum(map(is_timed, records))
    text = f"{timed} of {len(records)} runs had their device to themselves, so that their seconds are a timing"
    yield line("compute", bool(records) and timed == len(records), text, "the stopwatch's timings stand in their place")
    text = "how these seconds compare with the paper's, whose GPU is not named"
    yield person("compute", text, "ask the authors")


def _further(evidence: Evidence) -> str:
    """The time of what is recorded beside the runs of the tables."""
    sizes, known = SizeStore(evidence.results).records(), KnownStore(evidence.results).records()
    spent = sum(one.clock.seconds for one in sizes) + sum(one.clock.seconds for one in known)
    if not sizes and not known:
        return ""
    return f"; {spent / 3600:.1f} h in {len(sizes)} of size learning alone and {len(known)} of known answers"
