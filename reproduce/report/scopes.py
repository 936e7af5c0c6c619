"""What an analysis found and under what it holds: only a decisive scope gives a verdict. Plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reproduce.report.inference import Effect
from reproduce.report.verdicts import Verdict

# From the most to the least telling; a sentence of several parts has the first that any part has.
WEAKEST: tuple[Verdict, ...] = (
    "contradicted", "not run", "not testable", "undecided", "supported but small", "supported",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Under what a finding holds. Only a decisive one gives a verdict; any other is an indication."""

    decisive: bool
    data: str
    protocol: str
    source: str = ""  # `DataSpec.source`; empty where no images go in
    asked: str = ""  # the protocol's name, or the steps of size learning alone: what a plan asks for


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one analysis says under one scope."""

    scope: Scope
    verdict: Verdict
    text: str  # one line, without the verdict
    effect: Effect | None = None  # signed as the claim says; of the part that decides
    smallest: float | None = None
    p: Mapping[str, float] = field(default_factory=dict)  # by part of the sentence
    seeds: str = ""
    records: tuple[str, ...] = ()  # paths below the results folder
    whole: bool = True  # whether no part of the sentence is without a record


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a sentence that says several things: all must hold. 'not run' for none at all."""
    return min(verdicts, key=WEAKEST.index, default="not run")


def exact(value: float, what: str = "computed") -> Effect:
    """A number without noise."""
    return Effect(value, value, value, value, value, None, (1,), what)
