"""What stopwatches say of a sentence on time. Pairs of the fairness ladder decide; rows beside each other indicate.

A ratio on a CPU is an indication as well: the paper's is of GPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reproduce.claims import TIME_FLOOR, Claim, Comparison, Term
from reproduce.report import words
from reproduce.report.evidence import Evidence, specs_of
from reproduce.report.evidence_accuracy import axis, scaled
from reproduce.report.inference import Effect, from_ratios, line, relative_slope
from reproduce.report.ratios import Bench, Headline, by_bench, headlines, is_off, level_of
from reproduce.report.scopes import Finding, Scope, combined, exact
from reproduce.report.statistics import mean
from reproduce.report.verdicts import Verdict, directional, linear, on_par, trend
from reproduce.specs import DATASETS, Protocol
from reproduce.timing_store import counts
from reproduce.timings import RowTiming, epoch_seconds

PAIRED = "steps side by side, the lower of levels ii and iii"
ROWS = "seconds per epoch of each row by itself"


def ratios(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Pairs first: one finding for each bench. Where no pair was measured, rows of one machine."""
    found = list(_pairs(claim, evidence))
    yield from found or _rows(claim, evidence)


def signed(rule: str, ratio: Effect, states: float | None) -> Effect:
    """The effect that the rule judges, from the ratio: a share of the stated factor, or of the shorter time."""
    whole = scaled(ratio, 1.0 / (states if states and rule in ("times", "about") else 1.0))
    return whole.minus(1.0 - TIME_FLOOR if rule == "times" else 1.0)


def judge(rule: str, effect: Effect, smallest: float) -> Verdict:
    """`times`: at least the stated factor, less the smallest effect."""
    return (on_par if rule in ("about", "on_par") else directional)(effect, smallest)


def _pairs(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    if len(claim.compare) != 1:  # the ladder has one pair of networks for each experiment
        return
    one = claim.compare[0]
    for bench, pairs in by_bench(one.a.experiment, evidence.shelf).items():
        wanted = f"{one.a.row} / {one.b.row}"
        measured = [head for head in headlines(pairs) if head.title == wanted and head.chosen is not None]
        if measured:
            yield _at_each_size(claim, one, bench, measured, evidence)


def _at_each_size(
    claim: Claim, one: Comparison, bench: Bench, measured: Sequence[Headline], evidence: Evidence
) -> Finding:
    """The verdict of all kernel sizes, if they agree: the paper does not say which size FlexNet's kernels had."""
    judged = {}
    for head in measured:
        assert head.chosen is not None
        few = len(head.chosen.ratios) < 6
        ratio = exact(head.chosen.ratio, "too few pairs for an interval") if few else from_ratios(head.chosen.ratios)
        effect = signed(claim.rule, ratio, one.states)
        sure = not few and not head.missing and not is_off(head.chosen)
        judged[head.kernel_size] = (judge(claim.rule, effect, one.smallest) if sure else "undecided", effect, ratio)
    verdicts = {verdict for verdict, _, _ in judged.values()}
    verdict: Verdict = next(iter(verdicts)) if len(verdicts) == 1 else "undecided"
    least = min(judged.values(), key=lambda each: each[1].estimate)
    parts = [_said(head, judged[head.kernel_size][2]) for head in measured]
    p = least[2].p
    return Finding(
        scope=Scope(
            decisive=bench.device == "cuda",
            data=f"random images of {DATASETS[one.a.dataset].title}'s shape",
            protocol=f"{PAIRED}; {bench.title(evidence.shelf)}",
        ),
        verdict=verdict,
        text=f"{one.a.row} / {one.b.row}: {'; '.join(parts)}{_stated(one)}",
        effect=least[1],
        smallest=one.smallest,
        p={} if p is None else {f"{claim.id}/1": p},
        seeds=f"{min(len(head.chosen.ratios) for head in measured if head.chosen)} pairs",
        records=tuple(evidence.timing_path(head.chosen) for head in measured if head.chosen is not None),
    )


def _said(head: Headline, ratio: Effect) -> str:
    """`at 5 x 5 4.83 (4.68 to 6.06), level ii`."""
    assert head.chosen is not None
    size = "" if head.kernel_size is None else f"at {head.kernel_size} x {head.kernel_size} "
    flags = "".join(f", {flag}" for flag in head.flags)
    ends = f"{words.ratio(ratio.low)} to {words.ratio(ratio.high)}"
    both = "" if head.both_stages is None else f", {' / '.join(map(words.ratio, head.both_stages))} for both stages"
    return f"{size}{words.ratio(ratio.estimate)} ({ends}), level {level_of(head.chosen)}{both}{flags}"


def _stated(one: Comparison) -> str:
    return "" if one.states is None else f"; the sentence says {one.states:g}"


@dataclass(frozen=True, order=True)
class Place:
    """Where and how rows were timed; those of two places are never compared."""

    device: str
    machine: str
    threads: int
    engine: str
    precision: str

    def scope(self, evidence: Evidence, dataset: str, *, decisive: bool) -> Scope:
        how = ", ".join([self.engine, self.precision] + ([] if self.threads == 1 else [f"{self.threads} threads"]))
        machine = words.machine_title(evidence.shelf.machine(self.machine), self.device)
        return Scope(
            decisive=decisive and self.device == "cuda",
            data=f"random images of {DATASETS[dataset].title}'s shape",
            protocol=f"{ROWS}; {machine}; {how}",
        )


def timed(term: Term, evidence: Evidence) -> dict[Place, RowTiming]:
    """The valid timings of a row, one for each place."""
    found = {}
    for record in evidence.shelf.timings(specs_of(term.experiment, Protocol(base="paper"))[term.row]):
        if counts(record) and record.training is not None and record.name == term.row:
            spec = record.spec
            found[Place(record.device, record.machine, spec.threads, spec.engine, spec.precision)] = record
    return found


def seconds(record: RowTiming) -> float:
    """Per training epoch, the stages weighted by their epochs (R-23)."""
    average = epoch_seconds(record)
    assert average is not None
    return average[0]


def _rows(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Indications alone: two rows timed one after the other are no pair."""
    known = {term: timed(term, evidence) for term in claim.every_term}
    for where in sorted({place for places in known.values() for place in places}):
        parts = [(one, known[one.a].get(where), known[one.b].get(where)) for one in claim.compare]
        both = [(one, a, b) for one, a, b in parts if a is not None and b is not None]
        if both:
            values = [exact(seconds(a) / seconds(b), "two timings") for _, a, b in both]
            effects = [signed(claim.rule, value, one.states) for value, (one, _, _) in zip(values, both, strict=True)]
            texts = [
                f"{one.a.row} / {one.b.row}: {words.ratio(value.estimate)}{_stated(one)}"
                for value, (one, _, _) in zip(values, both, strict=True)
            ]
            yield Finding(
                scope=where.scope(evidence, claim.compare[0].a.dataset, decisive=False),
                verdict=combined(
                    judge(claim.rule, effect, one.smallest) for effect, (one, _, _) in zip(effects, both, strict=True)
                ),
                text="; ".join(texts) + "; no interval",
                seeds="one timing a row",
                records=tuple(dict.fromkeys(evidence.timing_path(record) for _, a, b in both for record in (a, b))),
                whole=len(both) == len(claim.compare),
            )


def trends(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """`rising`, `linear` and `slope_under_one` of seconds over rows, on each machine that timed three or more."""
    known = {term: timed(term, evidence) for term in claim.terms}
    places: dict[Place, dict[Term, RowTiming]] = defaultdict(dict)
    for term, found in known.items():
        for where, record in found.items():
            places[where][term] = record
    for where, by_term in sorted(places.items()):
        along = axis(claim.terms)
        judged = _trend(claim, {along[term]: seconds(record) for term, record in by_term.items()})
        if judged is not None:
            verdict, text, effect = judged
            whole = len(by_term) == len(claim.terms)
            yield Finding(
                scope=where.scope(evidence, claim.terms[0].dataset, decisive=True),
                verdict=combined([verdict] + ([] if whole else ["not run"])),
                text=text + ("" if whole else f"; {len(by_term)} of {len(claim.terms)} rows are timed"),
                effect=effect,
                smallest=TIME_FLOOR if claim.rule == "rising" else None,
                p={} if effect.p is None else {claim.id: effect.p},
                seeds="one timing a row",
                records=tuple(evidence.timing_path(record) for record in by_term.values()),
                whole=whole,
            )


def _trend(claim: Claim, curve: Mapping[float, float]) -> tuple[Verdict, str, Effect] | None:
    """None where there are too few rows for the rule."""
    x, y, along = list(curve), list(curve.values()), axis(claim.terms)
    first, last = along[claim.terms[0]], along[claim.terms[-1]]
    if len(x) < 4 or first not in curve:
        return None
    fitted = line(x, y)
    if claim.rule == "slope_under_one":
        slope = relative_slope(x, y, at=first)
        text = f"slope {slope.estimate:.2f} ({slope.low:.2f} to {slope.high:.2f}) of the first row's seconds a layer"
        return trend(slope), text, slope.minus(1.0).negated()
    if claim.rule == "linear":
        if fitted.quadratic is None:
            return None
        bend = scaled(fitted.quadratic, (last - first) ** 2 / 4 / mean(y))
        return linear(bend), f"bend over the range: {_shares(bend)} of the mean", bend
    rise = scaled(fitted.slope, (last - first) / curve[first])
    return directional(rise, TIME_FLOOR), f"rise over the range: {_shares(rise)} of the first row", rise


def _shares(effect: Effect) -> str:
    """`+12 % (+9 to +15)`."""
    return f"{100 * effect.estimate:+.3g} % ({100 * effect.low:+.3g} to {100 * effect.high:+.3g})"
