"""What a claim without a verdict lacks, and what would settle it: the runs, the protocol, the seeds, the command."""

from __future__ import annotations

from collections.abc import Iterable

from reproduce.claims import Claim, Term
from reproduce.report import words
from reproduce.specs import DATASETS

FEW, SHARE = 3, 6  # seeds: the paper's; the fewest of which all alike are more than a half at 95 %
LADDER = frozenset((table, "FlexNet-16", "EffConv-20 0.66M") for table in ("table1", "table2", "table3"))


def missing(claim: Claim) -> str:
    """Why nothing could decide, in one line."""
    if claim.rule == "labels":
        return "no label test over the full length of size learning on canonical images"
    if claim.kind == "time" or _is_clocked(claim):
        return "no timing on a GPU" if in_ladder(claim) or _is_clocked(claim) else "no pair timing of these on a GPU"
    if claim.rule == "budget":
        return "no EffConv run under `paper` on canonical images"
    return f"no runs of all of these rows under `paper` on canonical {_titles(claim.every_term)}"


def settle(claim: Claim, *, undecided: bool = False) -> str:
    """What would settle it; undecided: decisive runs are there, and too few."""
    more = claim.kind in ("accuracy", "structure") or (claim.kind == "trend" and not _is_clocked(claim))
    return ("more seeds under a new plan (`reproduce plan`): " if undecided and more else "") + _settle(claim)


def _settle(claim: Claim) -> str:
    if claim.settle or claim.rule == "all_of":
        return claim.settle or "the claims that it sums up"
    if claim.rule == "labels":
        return "the label test over all steps of stage 1 on canonical images, at least 5 seeds: `reproduce controls`"
    if claim.rule == "budget":
        return f"any EffConv row under `paper` on canonical images, at least {FEW} seeds"
    if claim.kind == "cost":
        return "a word of the paper's authors on what they counted"
    if claim.kind == "time" or _is_clocked(claim):
        return _clocked(claim)
    runs = f"`paper` runs on canonical {_titles(claim.every_term)} of {_rows(claim.every_term)}"
    if claim.kind == "structure":
        return f"{runs}, at least {SHARE} seeds (or size learning alone at full length): {_commands(claim, SHARE)}"
    return f"{runs}, at least {FEW} seeds each, as many as `reproduce plan` says: {_commands(claim, FEW)}"


def in_ladder(claim: Claim) -> bool:
    """Whether `reproduce time` measures the pair that the claim compares."""
    return any((one.a.experiment, one.a.row, one.b.row) in LADDER for one in claim.compare)


def _is_clocked(claim: Claim) -> bool:
    return claim.kind == "trend" and claim.terms[0].metric == "seconds"


def _clocked(claim: Claim) -> str:
    commands = ", ".join(f"`reproduce time {one}`" for one in dict.fromkeys(t.experiment for t in claim.every_term))
    if in_ladder(claim) or _is_clocked(claim):
        return f"{commands} on a GPU"
    pairs = " and ".join(f"{one.a.row} / {one.b.row}" for one in claim.compare)
    return f"pair timings of {pairs} on a GPU; the fairness ladder has none, {commands} gives rows alone"


def _titles(terms: Iterable[Term]) -> str:
    return " and ".join(dict.fromkeys(DATASETS[term.dataset].title for term in terms))


def _rows(terms: Iterable[Term]) -> str:
    return ", ".join(dict.fromkeys(term.row for term in terms))


def _commands(claim: Claim, seeds: int) -> str:
    """One command for each table; rows with blanks are quoted together."""
    by_table: dict[str, list[str]] = {}
    for term in claim.every_term:
        by_table.setdefault(term.experiment, []).append(term.row)
    return ", ".join(
        f"`reproduce {table} --rows '{','.join(dict.fromkeys(rows))}' --seeds {words.number_list(range(seeds))}`"
        for table, rows in by_table.items()
    )
