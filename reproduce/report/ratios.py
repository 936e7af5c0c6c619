"""How many times as long one network takes as another: the headline of a table's claim, and the pairs behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reproduce import paper
from reproduce.report import words
from reproduce.report.shelf import Shelf
from reproduce.report.words import NOTHING
from reproduce.timing_store import counts
from reproduce.timings import LEVELS, PairTiming, Side

CONTROL = 0.03  # a against a may differ by so much from 1
STAGES = {"size_learning": "size learning", "training": "training"}
LEGEND = (
    "Seconds of a step of the first over seconds of a step of the second, in turn in one process on random images; "
    "never across machines. Kernel size: where FlexNet's kernels are held; full grid: its kernel network is evaluated "
    "at all positions and cropped afterwards, which changes nothing at the grid's own size; convolutions: how the "
    "first's are done, and behind a slash the second's, where trials chose (auto: by FFT where a rule says that it is "
    "faster). "
    "Headline: the lower of levels ii and iii. Interval of the median: of 9 pairs the 2nd to the 8th (96 %), of "
    f"fewer the least and the greatest. Control: the first against itself, to be 1.00 ± {CONTROL:.2f}. "
    "Both stages: against the average of EffConv's two stages, weighted by epochs / their mean (R-23). Levels:\n\n"
    + "\n".join(f"- {level}: {text}." for level, text in LEVELS.items())
)
HEADLINE_HEADERS = ["pair", "kernel size", "headline", "level", "level i", "level i, full grid",
                    "headline, both stages", "the paper's numbers, another machine"]  # fmt: skip
PAIR_HEADERS = ["pair", "level", "kernel size", "full grid", "convolutions", "ratio", "interval", "pairs",
                "control A/A", "batch"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One claim at one kernel size on one bench."""

    title: str  # "FlexNet-16 / EffConv-20 0.66M"
    kernel_size: int | None
    chosen: PairTiming | None  # the lower of levels ii and iii
    missing: str  # which of these two has no ratio; empty: none
    plain: PairTiming | None  # level i
    plain_full: PairTiming | None  # the same with the full grid
    both_stages: tuple[float, float] | None  # `chosen` against both stages: weighted by epochs, mean of the stages
    printed: str  # the paper's ratio: "7.15 (127 / 17.77)"

    @property
    def flags(self) -> list[str]:
        """What `chosen` must say of itself."""
        if self.chosen is None:
            return []
        missing = f"level {self.missing} has no ratio" if self.missing else ""
        control = f"not to be trusted, its control {self.chosen.control_ratio:.3f} is outside 1.00 ± {CONTROL:.2f}"
        return [part for part in (missing, control if is_off(self.chosen) else "") if part]


@dataclass(frozen=True, order=True, kw_only=True)
class Bench:
    """Where pairs were measured. Those of two benches are never set side by side."""

    device: str
    machine: str
    threads: int

    def title(self, shelf: Shelf) -> str:
        """`NVIDIA H200, torch 2.9.0`; threads unless it is one."""
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        return words.machine_title(shelf.machine(self.machine), self.device) + threads


def by_bench(claim: str, shelf: Shelf) -> dict[Bench, list[PairTiming]]:
    """The pairs of a claim by bench, GPUs first, in order of networks, kernel size and level."""
    found = defaultdict(list)
    for pair in sorted((one for one in shelf.pairs if one.claim == claim), key=_order):
        found[Bench(device=pair.device, machine=pair.machine, threads=pair.b.spec.threads)].append(pair)
    return dict(sorted(found.items(), key=lambda one: (one[0].device == "cpu", one[0])))


def headlines(pairs: Iterable[PairTiming]) -> list[Headline]:
    """The headlines of one bench. Pairs that are no timing do not count; stages of one network are no claim."""
    good = [pair for pair in pairs if counts(pair)]
    groups: dict[tuple[str, int | None], list[PairTiming]] = defaultdict(list)
    for pair in good:
        if pair.a.name != pair.b.name:
            groups[title(pair), pair.a.kernel_size].append(pair)
    return [_headline(group, good) for group in groups.values()]


def title(pair: PairTiming) -> str:
    """`FlexNet-16 / EffConv-20 0.66M`; stages are named unless both are training."""
    named = {pair.a.stage, pair.b.stage} != {"training"}
    return " / ".join(side.name + (f" ({STAGES[side.stage]})" if named else "") for side in (pair.a, pair.b))


def is_off(pair: PairTiming) -> bool:
    """Whether the control is beyond what it may be, so that the ratio is not to be trusted."""
    return abs(pair.control_ratio - 1) > CONTROL


def headline_line(one: Headline) -> list[str]:
    """A headline under `HEADLINE_HEADERS`."""
    size = NOTHING if one.kernel_size is None else str(one.kernel_size)
    flags = "".join(f"; {flag}" for flag in one.flags)
    both = NOTHING if one.both_stages is None else " / ".join(map(words.ratio, one.both_stages))
    level = NOTHING if one.chosen is None else f"{level_of(one.chosen)}{flags}"
    return [one.title, size, ratio(one.chosen), level, ratio(one.plain), ratio(one.plain_full), both, one.printed]


def pair_line(pair: PairTiming) -> list[str]:
    """A pair under `PAIR_HEADERS`; one that is no timing has no number."""
    size = NOTHING if pair.a.kernel_size is None else str(pair.a.kernel_size)
    held = pair.a.kernel_size is not None
    head = [title(pair), level_of(pair), size, ("yes" if pair.a.full_grid else "no") if held else NOTHING]
    head.append(methods(pair))
    batch = f"{pair.batch_size}{' (cut)' if pair.batch_cut else ''}"
    if not counts(pair):
        return [*head, f"invalid: {words.one_line(pair.certificate.invalid)}", NOTHING, NOTHING, NOTHING, batch]
    interval = f"{words.ratio(pair.low)} to {words.ratio(pair.high)}"
    control = f"{pair.control_ratio:.3f}" + (f": outside 1.00 ± {CONTROL:.2f}" if is_off(pair) else "")
    return [*head, ratio(pair), interval, str(len(pair.ratios)), control, batch]


def ratio(pair: PairTiming | None) -> str:
    return NOTHING if pair is None else words.ratio(pair.ratio)


def level_of(pair: PairTiming) -> str:
    """`iii`, or `iii (graph, bf16)`: how both sides were computed, where that is not plainly."""
    spec = pair.a.spec
    usual = (spec.engine, spec.precision) == ("plain", "float32")
    return pair.level + ("" if usual else f" ({spec.engine}, {spec.precision})")


def methods(pair: PairTiming) -> str:
    """`fft`, or `fft / auto` where there was a choice for the second network as well."""
    a, b = pair.a.method, pair.b.method
    return a or NOTHING if b is None else f"{a or 'direct'} / {b}"


def _order(pair: PairTiming) -> tuple[Any, ...]:
    return title(pair), pair.a.kernel_size or 0, pair.level, pair.a.full_grid, pair.timing_id


def _headline(group: list[PairTiming], good: list[PairTiming]) -> Headline:
    first = group[0]
    treated = [pair for pair in group if pair.level != "i"]
    chosen = min(treated, key=lambda pair: pair.ratio, default=None)
    untreated = {pair.a.full_grid: pair for pair in group if pair.level == "i"}
    levels = {pair.level for pair in treated}
    return Headline(
        title=title(first),
        kernel_size=first.a.kernel_size,
        chosen=chosen,
        missing=next((level for level in ("ii", "iii") if level not in levels), ""),
        plain=untreated.get(False),
        plain_full=untreated.get(True),
        both_stages=None if chosen is None else _both_stages(chosen, good),
        printed=_printed(first),
    )


def _both_stages(pair: PairTiming, good: list[PairTiming]) -> tuple[float, float] | None:
    """Against the average epoch of b: its size learning over its training is a pair of its own, if there is one."""
    learning = pair.b.spec.size_learning
    other = next((one for one in good if _is_stages_of(pair, one)), None)
    if learning is None or other is None or pair.a.stage != "training":
        return None
    first, second = learning.epochs, pair.b.spec.training.epochs
    # Both averages in epochs of b's training: R-23.
    weighted, mean = (first * other.ratio + second) / (first + second), (other.ratio + 1) / 2
    return pair.ratio / weighted, pair.ratio / mean


def _is_stages_of(pair: PairTiming, other: PairTiming) -> bool:
    """Whether `other` is b's size learning against b's training, computed as in `pair`."""
    same = other.level == pair.level and other.a.name == other.b.name == pair.b.name
    return same and _way(other.b) == _way(pair.b) and (other.a.stage, other.b.stage) == ("size_learning", pair.b.stage)


def _way(side: Side) -> tuple[Any, ...]:
    return side.spec.spec_id, side.sizes


def _printed(pair: PairTiming) -> str:
    """The ratio of the seconds that the paper prints for these two rows."""
    a, b = (paper.row(pair.claim, side.name) for side in (pair.a, pair.b))
    if a is None or b is None or a.seconds is None or b.seconds is None:
        return NOTHING
    about = "~" if a.seconds_approximate or b.seconds_approximate else ""
    quotient = words.ratio(float(a.seconds) / float(b.seconds))
    return f"{about}{quotient} ({words.printed_seconds(a)} / {words.printed_seconds(b)})"
