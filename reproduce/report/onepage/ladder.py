"""The fairness ladder: how many times as long FlexNet-16 takes as EffConv-20, with the same treatment for both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reproduce import paper
from reproduce.report import ratios
from reproduce.report.onepage import commands
from reproduce.report.onepage.overview import TABLES
from reproduce.report.onepage.parts import (
    Block,
    Bullets,
    Commands,
    Fold,
    Heading,
    Line,
    Section,
    Strong,
    grid,
    text,
)
from reproduce.report.onepage.sources import Sources, machine
from reproduce.report.ratios import Bench, Headline
from reproduce.timings import LEVELS, PairTiming

LEAD = (
    "Seconds of a step of the first network over seconds of a step of the second, measured in turn in one process on "
    "random images, and never across machines. The headline is the lower of levels ii and iii, so that no part of it "
    f"comes from a slow form of the baseline. Control: a network against itself, to be 1.00 ± {ratios.CONTROL:.2f}."
)


def section(sources: Sources) -> Section:
    found = [(claim, *one) for claim in TABLES for one in ratios.by_bench(claim, sources.shelf).items()]
    blocks: list[Block] = [
        text(LEAD),
        Bullets(tuple((Strong(f"{level}: "), f"{what}.") for level, what in LEVELS.items())),
    ]
    for claim, bench, pairs in found:
        blocks += _bench(claim, bench, pairs, sources)
    timed = {claim for claim, _, _ in found}
    missing = [claim for claim in TABLES[:3] if claim not in timed]
    if missing:
        blocks.append(
            text("Not measured: the ratios of ", ", ".join(paper.tables()[one].title for one in missing), ".")
        )
        blocks.append(Commands(tuple(f"reproduce time {claim} --ladder-only" for claim in missing)))
    return Section(name="ladder", title="Time ratios: the fairness ladder", short="Ladder", blocks=tuple(blocks))


def _bench(claim: str, bench: Bench, pairs: Sequence[PairTiming], sources: Sources) -> Iterator[Block]:
    """One claim on one machine: headlines, then every pair."""
    yield Heading(f"{paper.tables()[claim].title}, on {bench.title(sources.shelf)}")
    yield text("Machine ", machine(bench.machine), f" ({bench.device}).")
    headlines = ratios.headlines(pairs)
    if headlines:
        yield grid(ratios.HEADLINE_HEADERS, [_headline(one, sources) for one in headlines])
    every = grid(ratios.PAIR_HEADERS, [_pair(pair, sources) for pair in pairs])
    yield Fold((f"All {len(pairs)} pairs, each with its record",), (every,))
    yield Commands((commands.of_pairs(claim, pairs),))


def _headline(one: Headline, sources: Sources) -> list[Line]:
    """The cells of `ratios.headline_line`; each ratio is a link to its pair."""
    pairs = {2: one.chosen, 4: one.plain, 5: one.plain_full}
    texts = ratios.headline_line(one)
    return [_linked(text, pairs.get(number), sources) for number, text in enumerate(texts)]


def _linked(text: str, pair: PairTiming | None, sources: Sources) -> Line:
    return (text if pair is None else sources.timing(pair, text),)


def _pair(pair: PairTiming, sources: Sources) -> list[Line]:
    """The cells of `ratios.pair_line`; the ratio, or why there is none, is a link to the record."""
    place = ratios.PAIR_HEADERS.index("ratio")
    texts = ratios.pair_line(pair)
    return [_linked(text, pair if number == place else None, sources) for number, text in enumerate(texts)]
