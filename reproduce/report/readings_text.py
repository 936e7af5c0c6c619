"""The report on the readings as markdown, from the values of `readings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reproduce import factorial, screen
from reproduce.factorial import FACTORS
from reproduce.label_test import LEVEL
from reproduce.report import words
from reproduce.report.sections import grid
from reproduce.report.words import NOTHING

Data = Mapping[str, Any]
COMMAND = "`reproduce readings --stage {stage} --data-root DIR`"


def markdown(data: Data) -> str:
    """The whole page."""
    blocks = [f"# {data['title']}", lead(data), finding(data), "![effects](readings.svg)", "## Factors", factors()]
    blocks += ["## Effects"] + [part for one in data["responses"] for part in effects(one)]
    blocks += ["## Aliases", aliases(), "## Runs", runs(data)]
    blocks += ["## The largest again, on MNIST", mnist(data), "## A preset?", proposal(data)]
    return "\n\n".join(blocks) + "\n"


def lead(data: Data) -> str:
    scales = "; ".join(f"{task} {words.number_list(scales)}" for task, scales in screen.SCALES)
    return (
        f"Each of {factorial.RUNS} combinations learned the sizes of two layers under a budget for {data['steps']:,} "
        f"steps, {words.seed_list(data['seeds'])}, at these scales: {scales}. An effect is the mean response at the "
        "other level less that at ours; its interval is Student's t over the seeds, as each seed's runs share their "
        f"start and data. Each response has {len(factorial.columns())} of them; one interval in twenty misses zero by "
        "chance alone."
    )


def finding(data: Data) -> str:
    """The main effects on the response by which a preset is chosen: the largest, and which of them miss zero."""
    one = next(found for found in data["responses"] if found["name"] == screen.CHOOSING)
    mains = sorted((effect for effect in one["effects"] if effect["main"]), key=lambda effect: -abs(effect["mean"]))
    first = mains[0]
    clear = [effect["short"] for effect in mains if (ends := effect["interval95"]) and (ends[0] > 0 or ends[1] < 0)]
    said = f"{first['short']}, {first['mean']:+.3f} {one['unit']} (95 % interval {interval(first)})"
    return (
        f"Of the main effects on the first response, \"{one['title'].lower()}\", the largest is that of {said}; those "
        f"whose interval misses zero: {', '.join(clear) or 'none'}."
    )


def factors() -> str:
    rows = [[one.letter, f"`{one.reading}`", str(one.low), str(one.high), one.why] for one in FACTORS]
    note = "By `last` sizes need not meet the budget: what that level does to reaching may be bought with weights."
    return grid(["", "reading", "ours", "the other level", "why that one"], rows) + "\n\n" + note


def effects(one: Data) -> list[str]:
    """One response: its heading and its table, the largest effect first."""
    found = sorted(one["effects"], key=lambda effect: -abs(effect["mean"]))
    rows = [
        [
            effect["short"],
            f"{effect['mean']:+.3f}",
            interval(effect),
            NOTHING if effect["standard_error"] is None else f"{effect['standard_error']:.3f}",
            " ".join(f"{value:+.2f}" for value in effect["values"]),
        ]
        for effect in found
    ]
    ours = f"At ours throughout: {one['ours']['mean']:.3f} ({one['unit']})."
    headers = ["effect", "mean", "95 % interval", "standard error", "by seed"]
    return [f"### {one['title']}", ours, grid(headers, rows)]


def interval(summary: Data) -> str:
    ends = summary["interval95"]
    return NOTHING if ends is None else f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def aliases() -> str:
    """Which effects share a column, so that only their sum is known."""
    relation = " = ".join(["I", *sorted(factorial.defining_words())])
    mains = [[one.letter, " = ".join(factorial.aliases(one.letter))] for one in FACTORS]
    pairs = [[" = ".join(group), "; ".join(map(in_words, group))] for group in factorial.interactions()]
    generators = ", ".join(f"{letter} = {word}" for letter, word in factorial.GENERATORS.items())
    return "\n\n".join([
        f"Generators {generators}; defining relation {relation}: resolution IV. No main effect shares its column with "
        "a two-factor interaction, only with these of three and more factors:",
        grid(["main effect", "aliases"], mains),
        "Two-factor interactions in one column are seen as their sum:",
        grid(["column", "interactions"], pairs),
    ])  # fmt: skip


def in_words(pair: str) -> str:
    """`AB` -> `budget_value x mask_centre`."""
    names = {factor.letter: factor.reading for factor in FACTORS}
    return " x ".join(names[letter] for letter in pair)


def runs(data: Data) -> str:
    """The design, - for ours and + for the other level, with each run's mean responses."""
    headers = ["run", *(one.letter for one in FACTORS), *(one["title"] for one in data["responses"])]
    rows = [
        [str(number + 1), *("+" if run[one.letter] > 0 else "-" for one in FACTORS)]
        + [f"{one['by_run'][number]:.3f}" for one in data["responses"]]
        for number, run in enumerate(data["runs"])
    ]
    return grid(headers, rows)


def mnist(data: Data) -> str:
    """The effect of true labels on the sizes at both levels of the three largest factors."""
    headers = ["factor", "seeds", "labels' effect at ours", "at the other level", "difference", "95 % interval"]
    rows = [
        [
            one["letter"],
            words.number_list(one["seeds"]),
            *(f"{one[name]['mean']:+.3f}" for name in ("low", "high", "gain")),
            interval(one["gain"]),
        ]
        for one in data["mnist"]
        if one["seeds"]
    ]
    if not rows:
        return f"Not run: {COMMAND.format(stage='mnist')}."
    note = (
        f"Size learning alone, {data['mnist_steps']:,} steps. The labels' effect is d(true, shuffled) - d(another "
        "shuffle, shuffled), the mean difference of the soft sizes by layer; zero on average where labels have no say."
    )
    return note + "\n\n" + grid(headers, rows)


def proposal(data: Data) -> str:
    """What becomes of the readings that the screen speaks for. Nothing here changes a default or registers a preset."""
    chosen, fresh = data["candidate"], data["fresh"]
    if not data["intervals"]:
        return "No preset is proposed: one seed has no interval, so nothing can be chosen yet."
    if chosen is None:
        return (
            "No preset is proposed: no reading moved the first layer's soft size along with the texture's scale, with "
            "a 95 % interval above zero."
        )
    named = ", ".join(f"`{name}` {level}" for name, level in other_than_ours(chosen).items())
    if fresh["p_gain"] is None:
        return (
            f"Chosen by the screen, not yet tested: {named}. It becomes a proposal only if it wins on "
            f"{words.seed_list(list(screen.FRESH_SEEDS))} of MNIST, which it was not chosen by: "
            f"{COMMAND.format(stage='fresh')}."
        )
    outcome = (
        f"on {len(fresh['seeds'])} fresh seeds of MNIST the labels' effect on the sizes was "
        f"{fresh['high']['mean']:+.3f} against {fresh['low']['mean']:+.3f} with ours (sign-flip p = "
        f"{fresh['p_gain']:.3f} of the gain, {fresh['p_labels']:.3f} of the effect itself; needed: {LEVEL})"
    )
    if not fresh["wins"]:
        return f"No preset is proposed: the screen chose {named}, but {outcome}."
    return (
        f"Proposed as *our* variant: {named}; {outcome}. It would be listed beside the paper's setting, never in its "
        "place: rows of the tables keep the readings that they have."
    )


def other_than_ours(chosen: Mapping[str, factorial.Level]) -> dict[str, factorial.Level]:
    ours: Sequence[factorial.Level] = list(factorial.readings(factorial.DEFAULT).values())
    return {name: level for (name, level), own in zip(chosen.items(), ours, strict=True) if level != own}
