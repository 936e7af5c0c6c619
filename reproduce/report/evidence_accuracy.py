"""What runs say of a sentence on accuracy: differences over seeds and images, or rises over rows, by setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reproduce.claims import Claim, Comparison, Term, smallest_effect
from reproduce.networks import network
from reproduce.report.evidence import Arm, Evidence, Setting, seeds_of
from reproduce.report.inference import Effect, image_variance, line, welch
from reproduce.report.scopes import Finding, combined
from reproduce.report.statistics import mean
from reproduce.report.verdicts import Verdict, directional, on_par, saturation

FEWEST = 2  # seeds of an arm that has a spread


def comparisons(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """`higher` and `on_par`: one finding for each setting in which any comparison has runs on both sides."""
    for setting in evidence.shared(claim.every_term, every=False):
        found = {}
        for number, one in enumerate(claim.compare, start=1):
            arms = [evidence.arms(term).get(setting) for term in (one.a, one.b)]
            if all(arm is not None and arm.finished for arm in arms):
                found[number] = Compared(claim, one, arms[0], arms[1], evidence)  # type: ignore[arg-type]
        if found:
            yield _finding(claim, setting, found, evidence)


class Compared:
    """One comparison under one setting."""

    def __init__(self, claim: Claim, one: Comparison, a: Arm, b: Arm, evidence: Evidence) -> None:
        self.one, self.arms = one, (a, b)
        values = [arm.values(term.metric) for arm, term in ((a, one.a), (b, one.b))]
        self.plain = mean(values[0]) - mean(values[1])
        self.effect: Effect | None = None
        if min(map(len, values)) >= FEWEST:
            self.effect = welch(*values, image_variance=_image_variance(one, a, b, evidence))
        self.verdict = self._judge(claim.rule)

    def _judge(self, rule: str) -> Verdict:
        if self.effect is None:
            return "undecided"
        return (on_par if rule == "on_par" else directional)(self.effect, self.one.smallest)

    @property
    def text(self) -> str:
        seeds = " and ".join(str(len(arm.finished)) for arm in self.arms)
        metric = "" if self.one.a.metric == "accuracy" else ", top-5"
        return f"{self.one.a.row} less {self.one.b.row}{metric}: {points(self.effect, self.plain)}, n = {seeds}"


def _finding(claim: Claim, setting: Setting, found: dict[int, Compared], evidence: Evidence) -> Finding:
    arms = [arm for one in found.values() for arm in one.arms]
    whole = len(found) == len(claim.compare)
    verdict = combined([one.verdict for one in found.values()] + ([] if whole else ["not run"]))
    weakest = next((one for one in found.values() if one.verdict == verdict), next(iter(found.values())))
    missing = "" if whole else f"; {len(claim.compare) - len(found)} of {len(claim.compare)} comparisons have no runs"
    return Finding(
        scope=evidence.scope(setting, arms, claim.compare[0].a.dataset),
        verdict=verdict,
        text="; ".join(one.text for one in found.values()) + missing,
        effect=weakest.effect,
        smallest=weakest.one.smallest,
        p={f"{claim.id}/{n}": one.effect.p for n, one in found.items() if one.effect and one.effect.p is not None},
        seeds=seeds_of(arms),
        records=evidence.paths(arms),
        whole=whole,
    )


def _image_variance(one: Comparison, a: Arm, b: Arm, evidence: Evidence) -> float:
    """0 where bits are missing, or are of another measure than the comparison."""
    if not one.a.metric == one.b.metric == "accuracy":
        return 0.0
    first, second = evidence.bits(a), evidence.bits(b)
    if first is None or second is None or first.shape[1] != second.shape[1]:
        return 0.0
    return image_variance(first, second)


def trends(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """`rising` and `saturates` of accuracy over rows."""
    for setting in evidence.shared(claim.terms, every=False):
        arms = {term: evidence.arms(term)[setting] for term in claim.terms if setting in evidence.arms(term)}
        arms = {term: arm for term, arm in arms.items() if arm.finished}
        judged = (_rising if claim.rule == "rising" else _saturates)(claim, arms)
        if judged is not None:
            verdict, text, effect, smallest = judged
            whole = len(arms) == len(claim.terms)
            yield Finding(
                scope=evidence.scope(setting, arms.values(), claim.terms[0].dataset),
                verdict=combined([verdict] + ([] if whole else ["not run"])),
                text=text + ("" if whole else f"; {len(arms)} of {len(claim.terms)} rows have runs"),
                effect=effect,
                smallest=smallest,
                p={claim.id: effect.p} if effect.p is not None else {},
                seeds=seeds_of(arms.values()),
                records=evidence.paths(arms.values()),
                whole=whole,
            )


Judged = tuple[Verdict, str, Effect, float]


def _rising(claim: Claim, arms: dict[Term, Arm]) -> Judged | None:
    """The rise from the first row to the last along a straight line through all runs."""
    along = axis(claim.terms)
    runs = [(along[term], value) for term, arm in arms.items() for value in arm.values(term.metric)]
    if len({x for x, _ in runs}) < 3:
        return None
    slope = line([x for x, _ in runs], [y for _, y in runs]).slope
    effect = scaled(slope, along[claim.terms[-1]] - along[claim.terms[0]])
    smallest = smallest_effect(claim.kind, claim.terms[-1], claim.terms[0])
    text = f"rise from {claim.terms[0].row} to {claim.terms[-1].row} along a line: {points(effect)}"
    return directional(effect, smallest), text, effect, smallest


def _saturates(claim: Claim, arms: dict[Term, Arm]) -> Judged | None:
    """Last less middle, and middle less first."""
    values = [arms[term].values(term.metric) if term in arms else [] for term in claim.terms]
    if min(map(len, values)) < FEWEST:
        return None
    late, early = welch(values[2], values[1]), welch(values[1], values[0])
    margin = smallest_effect(claim.kind, claim.terms[2], claim.terms[1])
    first, middle, last = (term.row for term in claim.terms)
    text = f"{last} less {middle}: {points(late)}; {middle} less {first}: {points(early)}"
    return saturation(late, early, margin), text, late, margin


def axis(terms: Sequence[Term]) -> dict[Term, float]:
    """Where rows stand: at their layers where all have one budget, else at their budget in millions."""
    found = {term: network(term.row) for term in terms}
    if len({one.budget for one in found.values()}) == 1:
        return {term: float(str(one.model.args["depth"])) for term, one in found.items()}
    return {term: (one.budget or 0) / 1e6 for term, one in found.items()}


def points(effect: Effect | None, plain: float = 0.0) -> str:
    """`+0.35 points (-0.10 to +0.80)`."""
    if effect is None:
        return f"{plain:+.2f} points (one seed has no interval)"
    return f"{effect.estimate:+.2f} points ({effect.low:+.2f} to {effect.high:+.2f})"


def scaled(effect: Effect, factor: float) -> Effect:
    """Times a number above 0."""
    ends = {name: factor * getattr(effect, name) for name in ("estimate", "low", "high", "low90", "high90")}
    return replace(effect, **ends)
