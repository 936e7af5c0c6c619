"""What the paper's printed numbers alone say of a sentence: its own arithmetic, and what they can decide."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from reproduce import paper
from reproduce.claims import FLOORS, Claim, Comparison, Term
from reproduce.report import words
from reproduce.report.inference import Effect, Reading, against, against_summary, summaries
from reproduce.report.verdicts import Verdict, agreed, directional, on_par

READINGS: tuple[Reading, ...] = ("sample", "population")
RUNS = 3  # behind a printed mean; assumed of cited rows
TOLERANCE = 0.1  # of a stated factor, beyond which the tables do not give it


@cache
def arithmetic(claim: Claim) -> str:
    """The differences and ratios of the printed numbers beside what the sentence states, then its slips."""
    parts = [part for one in claim.compare if (part := _compared(claim, one))]
    parts += [_listed(claim)] if claim.terms and claim.terms[0].metric != "sizes" else []
    return ". ".join([part for part in ("; ".join(filter(None, parts)), claim.slip) if part])


def _compared(claim: Claim, one: Comparison) -> str:
    """`92.35 - 92.2 = 0.15`, `~205 / 35.86 = 5.72 (stated: 6)`."""
    a, b = one.a.printed, one.b.printed
    if claim.rule in ("parameters", "fewer_parameters"):
        sizes = [paper.row(term.experiment, term.row) for term in (one.a, one.b)]
        values = [float(row.size.removesuffix("M")) for row in sizes if row is not None]
        ratio = values[0] / values[1]
        return f"{values[0]:g}M / {values[1]:g}M = {ratio:.3g}{_as_stated(one, ratio)}"
    if a is None or b is None or claim.kind == "cost":
        return ""
    if claim.kind == "time":
        value, sign, text = float(a) / float(b), "/", f"{float(a) / float(b):.3g}"
    else:
        value, sign, text = float(a) - float(b), "-", f"{float(a) - float(b):.2f}"
    about = ["~" if claim.kind == "time" and approximate(term) else "" for term in (one.a, one.b)]
    return f"{about[0]}{a} {sign} {about[1]}{b} = {text}{_as_stated(one, value)}"


def _as_stated(one: Comparison, value: float) -> str:
    if one.states is None:
        return ""
    off = abs(value / one.states - 1.0)
    return f" (stated: {one.states:g}{', which the numbers do not give' if off > TOLERANCE else ''})"


def approximate(term: Term) -> bool:
    """Whether its seconds are printed with a ~."""
    found = paper.row(term.experiment, term.row)
    return found is not None and found.seconds_approximate


def _listed(claim: Claim) -> str:
    known = [f"{term.row} {term.printed}" for term in claim.terms if term.printed is not None]
    lost = len(claim.terms) - len(known)
    drawn = f"; {lost} of {len(claim.terms)} points are drawn only" if lost else ""
    return (f"printed: {', '.join(known)}" if known else "no point is printed") + drawn


@cache
def decides(claim: Claim) -> str:
    """What the printed means and deviations decide, under both readings of ±."""
    if claim.rule in ("all_of", "untestable") or claim.kind in ("cost", "mechanism"):
        return ""
    if claim.kind == "accuracy":
        return "; ".join(_published(claim, one) for one in claim.compare)
    if claim.kind == "time":
        return "nothing: one number a row without ±, from a GPU that is not named"
    return "nothing: a drawing" + (" of one run" if claim.kind == "structure" else ", with few of its numbers printed")


def _published(claim: Claim, one: Comparison) -> str:
    lead = f"{one.a.row} against {one.b.row}: "
    numbers = one.a.printed, one.a.printed_std, one.b.printed, one.b.printed_std
    bare = [term.row for term, std in ((one.a, numbers[1]), (one.b, numbers[3])) if std is None]
    if numbers[0] is None or numbers[2] is None:
        return f"{lead}not printed"
    if bare:
        return f"{lead}nothing, as {' and '.join(bare)} has no ±"
    effects = {reading: _summaries(one, reading) for reading in READINGS}
    verdicts = [_judge(claim, effect, one.smallest) for effect in effects.values()]
    sample, population = effects["sample"], effects["population"]
    return (
        f"{lead}{agreed(*verdicts)} ({sample.estimate:+.2f}; {sample.low:+.2f} to {sample.high:+.2f} with ± as sample, "
        f"{population.low:+.2f} to {population.high:+.2f} as population deviation; {RUNS} runs each)"
    )


def _summaries(one: Comparison, reading: Reading) -> Effect:
    values = [None if value is None else float(value) for value in (one.a.printed, one.b.printed)]
    assert values[0] is not None and values[1] is not None
    std_a, std_b = one.a.printed_std, one.b.printed_std
    return summaries(
        values[0], None if std_a is None else float(std_a), values[1], None if std_b is None else float(std_b), RUNS,
        reading=reading,
    )  # fmt: skip


def _judge(claim: Claim, effect: Effect, smallest: float) -> Verdict:
    return (on_par if claim.rule == "on_par" else directional)(effect, smallest)


def reproduced(term: Term, values: list[float]) -> str:
    """Whether our runs give the printed number, within the floor of the data set; needs two seeds."""
    printed, std = term.printed, term.printed_std
    if printed is None or len(values) < 2:
        return ""
    margin = FLOORS[term.dataset]
    if std is None:
        effects = [against(values, float(printed))]
    else:
        effects = [against_summary(values, float(printed), float(std), RUNS, reading=one) for one in READINGS]
    verdicts = [on_par(effect, margin) for effect in effects]
    outcomes = {"supported": "reproduced", "contradicted": "not reproduced"}
    said, first = outcomes.get(agreed(verdicts[0], verdicts[-1]), "undecided"), effects[0]
    return (
        f"{term.row} {words.printed(printed, std)}: {said}, ours less the printed {first.estimate:+.2f} "
        f"({first.low:+.2f} to {first.high:+.2f}), margin {margin:g}"
    )


def own_terms(claim: Claim) -> Iterator[Term]:
    """The terms whose accuracy the paper prints."""
    return (term for term in claim.every_term if term.metric in ("accuracy", "top5") and term.printed is not None)
