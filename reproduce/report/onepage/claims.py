"""Every claim with its verdict, what decided it, and what would settle it; by family, in the paper's order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from reproduce import claims as stated
from reproduce.report.claims_text import family_title
from reproduce.report.inference import Effect
from reproduce.report.judged import Indication, Judgement
from reproduce.report.onepage.parts import (
    Badge,
    Block,
    Bullets,
    Commands,
    Facts,
    Fold,
    Grid,
    Heading,
    Inline,
    Line,
    Section,
    Small,
    Strong,
    grid,
    joined,
    marked,
    text,
)
from reproduce.report.onepage.sources import Sources, record
from reproduce.report.words import NOTHING, number_list, one_line

LEAD = (
    "A verdict comes from an effect, signed as the claim says, its 95 % interval and the smallest effect that counts, "
    "which is fixed by a rule over the paper's numbers alone. It needs what the claim is about: of accuracy, runs of "
    "the paper's schedule on the canonical files. The same analysis on other images or a shorter schedule is an "
    "indication and never a verdict. Unadjusted intervals decide; p values adjusted after Holm within a family stand "
    "beside them. Sentences are in our words."
)
MANY = 12  # records; of more, the folder is named


def section(sources: Sources) -> Section:
    blocks: list[Block] = [text(LEAD), Commands(("reproduce claims",))]
    for family, several in groupby(sources.judgements, key=lambda one: one.claim.family):
        blocks.append(Heading(family_title(family)))
        blocks += [_claim(one) for one in several]
    left_out = stated.left_out()
    if left_out:
        items = [(Strong(one.what), f" ({one.place}): {one.why}") for one in left_out]
        blocks.append(Fold((f"{len(items)} sentences that are not judged, and why",), (Bullets(tuple(items)),)))
    return Section(name="claims", title="Does the claim hold?", short="Claims", blocks=tuple(blocks))


def _claim(one: Judgement) -> Fold:
    """The verdict and the sentence; opened, what they rest on."""
    title: Line = (Badge(one.verdict), " ", one.claim.sentence, Small(_because(one)))
    return Fold(title, tuple(_details(one)))


def _because(one: Judgement) -> Line:
    return (f"{one.claim.id}, {one.claim.place}: ", *marked(one.why))


def _details(one: Judgement) -> Iterator[Block]:
    yield Facts(tuple((term, what) for term, what in _facts(one) if what))
    if one.indications:
        yield _indications(one.indications)
    yield Commands((f"reproduce claims --only {one.claim.id}",))


def _facts(one: Judgement) -> Iterator[tuple[str, Line]]:
    """Terms and what is said of them; an empty line where there is nothing to say."""
    yield "kind", (f"{one.claim.kind}, {one.claim.rule.replace('_', ' ')}",)
    yield "effect", () if one.effect is None else (effect(one.effect),)
    yield "smallest effect that counts", () if one.smallest is None else (f"{one.smallest:.4g}",)
    yield "p, adjusted in its family", () if one.adjusted_p is None else (p_value(one.adjusted_p),)
    yield "the printed number", marked(one.reproduced)
    yield "the paper's own arithmetic", marked(one.arithmetic)
    yield "its published numbers alone", marked(one.published)
    yield "what would settle it", marked(one.settle)
    yield "records", links(one.records)


def _indications(found: tuple[Indication, ...]) -> Grid:
    headers = ["data", "protocol", "seeds", "indication", "effect", "records"]
    rows: list[list[Line]] = [
        [
            marked(one.data),
            marked(one.protocol),
            marked(one.seeds),
            marked(one.text),
            (NOTHING if one.effect is None else effect(one.effect),),
            links(one.records) or (NOTHING,),
        ]
        for one in found
    ]
    return grid(headers, rows, "Indications: other images or a shorter schedule, never a verdict")


def effect(one: Effect) -> str:
    """`0.52 [0.10, 0.94] (95 %), p = 0.031, n = 3, 3, Welch over seeds`."""
    if one.low == one.high:
        return f"{one.estimate:.4g}, exactly; {one_line(one.method)}"
    p = "" if one.p is None else f", {p_value(one.p)}"
    n = f", n = {number_list(one.n) if len(set(one.n)) > 1 else ', '.join(map(str, one.n))}" if one.n else ""
    return f"{one.estimate:.4g} [{one.low:.4g}, {one.high:.4g}] (95 %){p}{n}; {one_line(one.method)}"


def p_value(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def links(paths: tuple[str, ...]) -> Line:
    """The records, numbered; of many the first and how many more there are."""
    shown = [(record(path, str(number)),) for number, path in enumerate(paths[:MANY], start=1)]
    more: list[Inline] = [f" and {len(paths) - MANY} more"] if len(paths) > MANY else []
    return (*joined(shown), *more)
