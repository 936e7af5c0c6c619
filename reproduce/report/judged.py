"""Every claim with its verdict, or with why there is none, and what shorter runs or other data indicate meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduce import claims
from reproduce.claims import Claim
from reproduce.report import published, settling
from reproduce.report.analyses import SUM, UNTESTABLE, is_decisive, look, planned
from reproduce.report.evidence import Evidence
from reproduce.report.inference import Effect, holm
from reproduce.report.scopes import Finding, combined
from reproduce.report.verdicts import Verdict

DECIDABLE: tuple[Verdict, ...] = ("supported", "supported but small", "contradicted")


@dataclass(frozen=True, kw_only=True)
class Indication:
    """The same analysis on other data, under a shorter protocol or on another kind of machine; never a verdict."""

    data: str
    protocol: str
    seeds: str
    text: str
    effect: Effect | None
    records: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is known of one claim."""

    claim: Claim
    verdict: Verdict
    why: str  # one line: what decided it, or why nothing could
    effect: Effect | None
    smallest: float | None
    adjusted_p: float | None
    arithmetic: str  # the paper's own; slips named
    published: str  # what its printed numbers alone can decide
    settle: str  # for an undecided or not run one: what would settle it
    indications: tuple[Indication, ...]
    records: tuple[str, ...]  # paths below the results folder
    reproduced: str  # 'the printed number is reproduced', of each row; "" where no run can say


def judged(results: Path) -> list[Judgement]:
    """All claims in the order of claims.toml, from the records under one results folder."""
    return judge_all(claims.load(), Evidence(results))


def judge_all(every: Sequence[Claim], evidence: Evidence) -> list[Judgement]:
    """Single claims first, then those that sum them up; p values are adjusted by family."""
    found: dict[str, Judgement] = {}
    decisive: dict[str, Finding] = {}
    for claim in every:
        if claim.rule != SUM:
            found[claim.id] = judge(claim, evidence, decisive)
    for claim in every:
        if claim.rule == SUM:
            found[claim.id] = _sum(claim, [found[name] for name in claim.of])
    adjusted = adjusted_by_family(every, decisive)
    return [replace(found[claim.id], adjusted_p=adjusted.get(claim.id)) for claim in every]


def judge(claim: Claim, evidence: Evidence, decisive: dict[str, Finding]) -> Judgement:
    """One claim that is no sum; what decided it is added to `decisive`."""
    try:
        seen = [] if claim.rule == UNTESTABLE else list(look(claim)(claim, evidence))
        by_plan = [] if claim.rule == UNTESTABLE else planned(claim, evidence)
        again = _reproduced(claim, evidence)
    except ValueError as fault:  # a seed that is there twice, an effect that is no number
        return _judgement(claim, "not run", str(fault))
    held = [one for one, found in by_plan if found is None and is_decisive(one)]
    with_plan = [found for _, found in by_plan if found is not None and found.scope.decisive]
    free = [] if held or with_plan else [one for one in seen if one.scope.decisive]
    chosen = with_plan[-1] if with_plan else max(free, key=_weight, default=None)
    rest = [*(found for _, found in by_plan if found is not None), *seen]
    indications = tuple(_indication(one) for one in rest if one is not chosen)
    if chosen is None:
        verdict: Verdict = "not testable" if claim.rule == UNTESTABLE else "not run"
        why = held[-1].text if held else claim.why or settling.missing(claim)
        return _judgement(claim, verdict, why, indications, reproduced=again)
    decisive[claim.id] = chosen
    base = _judgement(claim, chosen.verdict, _because(chosen), indications, reproduced=again)
    return replace(base, effect=chosen.effect, smallest=chosen.smallest, records=chosen.records)


def adjusted_by_family(every: Sequence[Claim], decisive: Mapping[str, Finding]) -> dict[str, float]:
    """The largest Holm-adjusted p of each claim's parts. A family is fixed: a part without a test counts as p = 1."""
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    for claim in every:
        for name in parts_of(claim):
            parts[claim.family][name] = claim.id
    adjusted: dict[str, float] = {}
    for family in parts.values():
        known = {name: p for one in set(family.values()) & decisive.keys() for name, p in decisive[one].p.items()}
        for name, p in holm({name: known.get(name, 1.0) for name in family}).items():
            if name in known:
                adjusted[family[name]] = max(p, adjusted.get(family[name], 0.0))
    return adjusted


def parts_of(claim: Claim) -> list[str]:
    """The tests of a claim by name, whether or not they have been run; none of one that has no noise."""
    if claim.rule in (SUM, UNTESTABLE):
        return []
    if claim.kind in ("accuracy", "time"):
        return [f"{claim.id}/{number}" for number in range(1, len(claim.compare) + 1)]
    noisy = claim.kind in ("trend", "structure") or claim.rule in ("labels", "budget")
    return [claim.id] if noisy else []


def contradicted(found: Iterable[Judgement]) -> list[Judgement]:
    """What `--strict` fails on: verdicts, never indications."""
    return [one for one in found if one.verdict == "contradicted"]


def _weight(one: Finding) -> tuple[bool, int]:
    return one.whole, len(one.records)


def _because(one: Finding) -> str:
    seeds = f", {one.seeds}" if one.seeds else ""
    return f"{one.text} [{one.scope.data}; {one.scope.protocol}{seeds}]"


def _indication(one: Finding) -> Indication:
    return Indication(
        data=one.scope.data,
        protocol=one.scope.protocol,
        seeds=one.seeds,
        text=one.text,
        effect=one.effect,
        records=one.records,
    )


def _sum(claim: Claim, parts: Sequence[Judgement]) -> Judgement:
    """All of several claims must hold."""
    verdict = combined(part.verdict for part in parts)
    by_verdict: dict[str, list[str]] = defaultdict(list)
    for part in parts:
        by_verdict[part.verdict].append(part.claim.id)
    why = "sums up others: " + "; ".join(f"{name}: {', '.join(ids)}" for name, ids in by_verdict.items())
    records = tuple(dict.fromkeys(path for part in parts for path in part.records))
    return replace(_judgement(claim, verdict, why), records=records)


def _judgement(
    claim: Claim, verdict: Verdict, why: str, indications: tuple[Indication, ...] = (), *, reproduced: str = ""
) -> Judgement:
    """Without effect and records."""
    return Judgement(
        claim=claim,
        verdict=verdict,
        why=why,
        effect=None,
        smallest=None,
        adjusted_p=None,
        arithmetic=published.arithmetic(claim),
        published=published.decides(claim),
        settle="" if verdict in DECIDABLE else settling.settle(claim, undecided=verdict == "undecided"),
        indications=indications,
        records=(),
        reproduced=reproduced,
    )


def _reproduced(claim: Claim, evidence: Evidence) -> str:
    """Each printed accuracy against decisive runs of its row."""
    lines = []
    for term in published.own_terms(claim):
        for setting, arm in evidence.arms(term).items():
            if arm.finished and evidence.scope(setting, [arm], term.dataset).decisive:
                lines.append(published.reproduced(term, arm.values(term.metric)))
    return "; ".join(line for line in lines if line)
