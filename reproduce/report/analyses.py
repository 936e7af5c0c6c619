"""Which analysis bears on a claim, by its kind and rule, over all records or over the seeds of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from reproduce.claims import Claim
from reproduce.report import (
    evidence_accuracy,
    evidence_counts,
    evidence_learning,
    evidence_mask,
    evidence_sizes,
    evidence_times,
)
from reproduce.report.evidence import Evidence
from reproduce.report.plans import Standing
from reproduce.report.scopes import Finding
from reproduce.report.shelf import CANONICAL

SUM, UNTESTABLE = "all_of", "untestable"  # rules that no analysis answers

Look = Callable[[Claim, Evidence], Iterator[Finding]]


def look(claim: Claim) -> Look:
    """What finds the evidence of a kind of claim. Raises `ValueError` for a rule that nothing judges."""
    kind = claim.kind
    if kind == "trend":
        return evidence_times.trends if claim.terms[0].metric == "seconds" else evidence_accuracy.trends
    by_kind: dict[str, Look] = {
        "accuracy": evidence_accuracy.comparisons,
        "time": evidence_times.ratios,
        "structure": evidence_sizes.structures,
        "cost": evidence_counts.counts,
    }
    by_rule: dict[str, Look] = {"labels": evidence_learning.label_tests, "budget": evidence_learning.budgets}
    by_rule |= dict.fromkeys(evidence_mask.RULES, evidence_mask.mechanisms)
    found = by_kind.get(kind) or by_rule.get(claim.rule)
    if found is None:
        raise ValueError(f"nothing judges {claim.id}: {kind}, {claim.rule}")
    return found


def planned(claim: Claim, evidence: Evidence) -> list[tuple[Standing, Finding | None]]:
    """Each plan for this claim, the oldest first, with what exactly its seeds say; None before all of them have run."""
    found: list[tuple[Standing, Finding | None]] = []
    for standing in (one for one in evidence.plans if one.plan.claim == claim.id):
        asked, finding = standing.plan.asked, None
        if standing.complete:
            wanted = asked.source, str(asked.steps) if asked.steps is not None else asked.protocol
            several = look(claim)(claim, evidence.limited(standing.plan.seeds))
            finding = next((one for one in several if (one.scope.source, one.scope.asked) == wanted), None)
        named = finding and replace(finding, text=f"{standing.text}; {finding.text}")
        found.append((standing, named))
    return found


def is_decisive(standing: Standing) -> bool:
    """Whether a plan is for runs that give a verdict: before they are all there, nothing else gives one either."""
    asked = standing.plan.asked
    return (asked.protocol, asked.source, asked.steps) == ("paper", CANONICAL, None)
