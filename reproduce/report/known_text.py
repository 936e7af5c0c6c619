"""The report on known answers as markdown, from the data of `known` alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reproduce.report import words
from reproduce.report.sections import grid
from reproduce.report.words import NOTHING

Data = Mapping[str, Any]
MOST_ENDS = 6  # of a method that are listed

LEAD = """\
Of a lag task d the answer is proven: a receptive field of d + 1 suffices, and a smaller one sees nothing. A texture has
evidence at every size, and is judged by the oracle's curve (networks of fixed sizes) alone. Sizes are effective ones:
the side of the smallest centred square that holds 95 % of the trained kernel's squared weights; of two layers, the
receptive field s1 + s2 - 1. `reproduce.known_answers` defines tasks and scores.
"""
SCORES = """\
*reaches*: sees at least the minimal receptive field (by nominal or effective sizes), and test accuracy is within
{margin:g} points of the oracle's best. *excess*: effective receptive field less the minimal one, where there is a
budget; without one nothing speaks against a large kernel. Each is a mean over scales and starts, then over seeds; in
brackets the 95 % interval (Student's t) of the latter, percentages cut at 0 and 100. The two are not to be added up.
"""
SPENT = """\
A learner that has to spend its budget has few sizes left to choose from. Where it ends at the same sizes whatever the
task and its scale, the budget has decided, and *reaches* and *excess* say nothing about what the method hears.
"""


def markdown(data: Data) -> str:
    """The whole report."""
    parts = [
        f"# {data['title']}",
        f"{data['subtitle'][0].upper()}{data['subtitle'][1:]}.",
        LEAD.strip(),
        "![effective size against minimal size](known-answer.svg)",
        "## Scores",
        SCORES.format(margin=data["margin"]).strip(),
        _scores(data["scores"]),
        *_budgets(data["budgets"]),
        "## Sizes by scale and start",
        "Receptive fields and accuracies: mean over the seeds (least..greatest).",
        _points(data["points"]),
        "## Where and why methods fail",
        _failures(data["failures"]),
        "## The oracle: accuracy of fixed sizes",
        _oracle(data["oracle"]),
    ]
    return "\n\n".join(parts) + "\n"


def _scores(scores: Sequence[Data]) -> str:
    headers = ["method", "task", "layers", "budget", "cases", "reached", "reaches (%)", "excess", "accuracy (%)"]
    return grid(headers, [
        [*_setting(one), str(one["cases"]), str(one["reached"]), percent(one["reaches"]), number(one["excess"]),
         percent(one["accuracy"])]
        for one in scores
    ])  # fmt: skip


def _budgets(budgets: Sequence[Data]) -> list[str]:
    """At which sizes methods on a budget end, counted over everything that was asked of them."""
    if not budgets:
        return []
    rows = [
        [one["method"], str(one["layers"]), f"{one['budget']:,}", f"{one['cases']} of {one['tasks']} tasks and scales",
         ", ".join(f"{' '.join(map(str, end['sizes']))} ({end['cases']})" for end in one["ends"][:MOST_ENDS])
         + ", ..." * (len(one["ends"]) > MOST_ENDS)]
        for one in budgets
    ]  # fmt: skip
    table = grid(["method", "layers", "budget", "cases", "sizes at the end (cases)"], rows)
    return ["## What the budget decides", SPENT.strip(), table]


def _points(points: Sequence[Data]) -> str:
    headers = ["method", "task", "layers", "budget", "scale", "minimal", "oracle's best", "start", "effective",
               "nominal", "accuracy (%)", "oracle (%)", "reaches", "excess"]  # fmt: skip
    return grid(headers, [
        [*_setting(one), str(one["scale"]), _or_nothing(one["minimal"]), span(one["oracle_size"]), _start(one),
         span(one["effective"]), span(one["nominal"]), span(one["accuracy"], 1), span(one["oracle"], 1),
         f"{one['reached']} of {len(one['seeds'])}", span(one["excess"])]
        for one in points
    ])  # fmt: skip


def _failures(failures: Sequence[Data]) -> str:
    headers = ["method", "task", "layers", "budget", "scale", "start", "seeds", "why"]
    rows = [
        [*_setting(one), str(one["scale"]), str(one["start"]), words.number_list(one["seeds"]), one["why"]]
        for one in failures
    ]
    return grid(headers, rows) if rows else "Every case reaches."


def _oracle(curve: Sequence[Data]) -> str:
    headers = ["task", "layers", "scale", "minimal", "sizes", "receptive field", "accuracy (%)"]
    return grid(headers, [
        [one["task"], str(one["layers"]), str(one["scale"]), _or_nothing(one["minimal"]),
         " ".join(map(str, one["sizes"])), str(one["receptive_field"]), span(one["accuracy"], 1)]
        for one in curve
    ])  # fmt: skip


def _setting(one: Data) -> list[str]:
    budget = "none" if one["budget"] is None else f"{one['budget']:,}"
    return [one["method"], one["task"], str(one["layers"]), budget]


def _start(one: Data) -> str:
    return f"{one['start']}" + (f" ({one['begins']})" if one["begins"] else "")


def _or_nothing(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def percent(summary: Data | None) -> str:
    return number(summary, 1, (0.0, 100.0))


def number(summary: Data | None, places: int = 2, within: tuple[float, float] = (-math.inf, math.inf)) -> str:
    """Mean and 95 % interval, `4.31 [3.10, 5.62]`; a single value, or equal ones, without the interval."""
    if summary is None:
        return NOTHING
    mean, ends = f"{summary['mean']:.{places}f}", summary["interval95"]
    if ends is None or ends[0] == ends[1]:
        return mean
    low, high = (min(max(end, within[0]), within[1]) for end in ends)
    return f"{mean} [{low:.{places}f}, {high:.{places}f}]"


def span(summary: Data | None, places: int = 0) -> str:
    """Mean, least and greatest: `4.3 (3..5)`; equal values alone."""
    if summary is None:
        return NOTHING
    low, high = (f"{end:.{places}f}" for end in (min(summary["values"]), max(summary["values"])))
    return low if low == high else f"{summary['mean']:.1f} ({low}..{high})"
