"""The claims as text: a page of results/rendered, the same for a terminal, and plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reproduce import claims, paper
from reproduce.report import words
from reproduce.report.evidence import Evidence
from reproduce.report.inference import Effect
from reproduce.report.judged import Indication, Judgement, judge_all
from reproduce.report.pages import Page
from reproduce.report.sections import grid
from reproduce.report.verdicts import VERDICTS
from reproduce.report.words import NOTHING

NAME = "claims.md"
LEAD = """\
Each checkable sentence of the paper in our words, with the verdict that our records allow. A verdict on accuracy \
takes `paper` runs on canonical images, one on time takes pair timings on a GPU; a count or an equation takes neither. \
Everything else is an *indication*: the same analysis on other data, under a shorter protocol or on another kind of \
machine. It decides nothing.

Effects are signed as the sentence says. Supported: the 95 % interval lies above 0; contradicted: below the smallest \
effect, which follows from the paper's numbers alone; 'but small': both. On par: the 90 % interval lies inside the \
margin. 'k times as long' holds from 90 % of k. A structure holds if its share of seeds lies above one half, however \
the first layer counts. Unadjusted intervals decide; the p value after Holm, within the family (one for each table), \
stands beside."""
HEADERS = ("claim", "sentence", "verdict", "effect (95 %)", "smallest", "p (Holm)")
FAMILIES = {"figure2": "Figure 2", "figure3": "Figure 3", "method": "The method", "whole": "The whole"}


def pages(results: Path) -> list[Page]:
    """The page; none where there is nothing but smoke tests."""
    evidence = Evidence(results)
    if not (evidence.protocols or evidence.shelf.is_timed or evidence.size_records):
        return []
    found = judge_all(claims.load(), evidence)
    about = (f"[claims]({NAME})", "", "whatever there is", counted(found), "")
    return [Page(name=NAME, text=markdown(found, evidence.problems), about=about, judgements=tuple(found))]


def markdown(found: Sequence[Judgement], problems: Sequence[str] = ()) -> str:
    """The whole page."""
    parts = ["# Does each claim hold?", LEAD, f"**{counted(found)}.**", summary(found)]
    for family in dict.fromkeys(one.claim.family for one in found):
        parts.append(f"## {family_title(family)}")
        parts += [details(one) for one in found if one.claim.family == family]
    rows = [[one.what, one.place, one.why] for one in claims.left_out()]
    parts += ["## Sentences that are left out", grid(["sentence", "place", "why"], rows)]
    if problems:
        parts += ["## Records that are not used", "\n".join(f"- {clean(line)}" for line in problems)]
    return "\n\n".join(parts) + "\n"


def counted(found: Sequence[Judgement]) -> str:
    """`67 claims: 9 supported, 7 contradicted, 51 not run`."""
    numbers = Counter(one.verdict for one in found)
    return f"{len(found)} claims: " + ", ".join(f"{numbers[one]} {one}" for one in VERDICTS if numbers[one])


def family_title(family: str) -> str:
    return FAMILIES.get(family) or paper.tables()[family].title


def summary(found: Sequence[Judgement]) -> str:
    """One line for each claim."""
    return grid(HEADERS, [
        [one.claim.id, one.claim.sentence, one.verdict, effect(one.effect), number(one.smallest),
         number(one.adjusted_p)]
        for one in found
    ])  # fmt: skip


def details(one: Judgement) -> str:
    """All about one claim, as a heading and a list."""
    lines = [f"- **{label}:** {clean(text)}" for label, text in lines_of(one)]
    lines += [f"- *Indication:* {indication(each)}" for each in one.indications]
    return f"### {one.claim.id}: {one.verdict}\n\n{one.claim.sentence}\n\n" + "\n".join(lines)


def lines_of(one: Judgement) -> Iterator[tuple[str, str]]:
    """What there is to say, with its label; nothing that is empty."""
    told = {
        "Place": one.claim.place,
        "Why": one.why,
        "Effect": "" if one.effect is None else f"{effect(one.effect)}; smallest that counts {number(one.smallest)}",
        "Printed number": one.reproduced,
        "The paper's arithmetic": one.arithmetic,
        "Its numbers alone decide": one.published,
        "What would settle it": one.settle,
        "Records": ", ".join(one.records),
    }
    return ((label, text) for label, text in told.items() if text)


def indication(one: Indication) -> str:
    records = f" Records: {', '.join(one.records)}." if one.records else ""
    return clean(f"{one.text} [{one.data}; {one.protocol}; {one.seeds}].{records}")


def terminal(found: Sequence[Judgement]) -> str:
    """A line for each claim; all about it where there is one only."""
    if len(found) == 1:
        one = found[0]
        lines = [f"{one.claim.id}: {one.verdict}", one.claim.sentence]
        lines += [f"  {label}: {clean(text)}" for label, text in lines_of(one)]
        return "\n".join(lines + [f"  Indication: {indication(each)}" for each in one.indications])
    width = max(len(one.claim.id) for one in found)
    wide = max(map(len, VERDICTS))
    lines = [f"{one.claim.id:{width}}  {one.verdict:{wide}}  {one.claim.sentence}{told(one)}" for one in found]
    return "\n".join([*lines, "", counted(found)])


def told(one: Judgement) -> str:
    """How many indications a claim without a verdict has."""
    plural = "" if len(one.indications) == 1 else "s"
    return f" ({len(one.indications)} indication{plural})" if one.indications else ""


def plain(found: Sequence[Judgement]) -> list[dict[str, Any]]:
    """For machines; the claim as in claims.toml with its terms resolved."""
    return [{**asdict(one), "claim": one.claim.model_dump(mode="json")} for one in found]


def effect(one: Effect | None) -> str:
    """`+0.35 (-0.10 to +0.80)`; a number without noise has no interval."""
    if one is None:
        return NOTHING
    return f"{one.estimate:+.3g}" + ("" if one.low == one.high else f" ({one.low:+.3g} to {one.high:+.3g})")


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def clean(text: str) -> str:
    """On one line, without control characters: records may hold anything."""
    return "".join(letter for letter in words.one_line(text) if letter.isprintable()).replace("<", "&lt;")
