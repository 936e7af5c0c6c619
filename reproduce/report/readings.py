"""What the screen of readings found, as plain values: effects with intervals, the largest again on MNIST, a proposal.

`readings_text` writes exactly these values down, `tornado` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduce import factorial, screen
from reproduce.factorial import DEFAULT, FACTORS, Factor, Run
from reproduce.known_answers import KnownStore
from reproduce.label_test import LEVEL, Question, questions, sign_flip_p
from reproduce.report import readings_text, words
from reproduce.report.figures import as_text
from reproduce.report.pages import Page
from reproduce.report.statistics import mean, summarise
from reproduce.size_records import SizeStore

DRAWING = 1  # raised when the picture looks different for the same data, so that it is drawn again
NAME = "readings"
FRESH_ENOUGH = len(screen.FRESH_SEEDS)

Data = dict[str, Any]
BySeed = Mapping[int, float]
Responses = Mapping[str, Mapping[int, Sequence[float]]]


def pages(results: Path) -> list[Page]:
    """The report and its figure; none before every case of one seed is recorded."""
    data = figure_data(results)
    if data is None:
        return []
    about = (f"[{NAME}]({NAME}.md)", "", "generated from seeds; MNIST", "", words.number_list(data["seeds"]))
    return [
        Page(name=f"{NAME}.md", text=readings_text.markdown(data), about=about),
        Page(name=f"{NAME}.json", text=as_text(data), figure=data, draw=pictures),
    ]


def pictures(data: Data) -> dict[str, bytes]:
    """{"png": ..., "svg": ...} of exactly this data."""
    from reproduce.report import canvas, tornado

    return canvas.rendered(tornado.draw, data)


def found_in(results: Path) -> Responses:
    """The screen's responses, by name and seed."""
    return screen.responses(KnownStore(results).records())


def strongest(found: Responses) -> list[Factor]:
    """The three factors that moved the response by which one chooses the most; none before a whole seed."""
    by_seed = found[screen.CHOOSING]
    return factorial.largest(factorial.effects(by_seed)) if by_seed else []


def candidate(found: Responses) -> Run | None:
    """The readings that the screen speaks for: each factor at its other level whose interval lies above zero.

    None where there is no such factor. Only the response `screen.CHOOSING` is looked at.
    """
    effects = factorial.effects(found[screen.CHOOSING]) if found[screen.CHOOSING] else {}
    intervals = {factor: summarise(effects[factor.letter,]).interval for factor in FACTORS if effects}
    better = [factor for factor, ends in intervals.items() if ends is not None and ends[0] > 0]
    return screen.changed(*better) if better else None


def figure_data(results: Path) -> Data | None:
    """Everything that report and figure show, or None while no seed is whole."""
    found = found_in(results)
    seeds = sorted(found[screen.CHOOSING])
    if not seeds:
        return None
    asked = screen.alike_on_mnist(questions(SizeStore(results).records()))
    chosen = candidate(found)
    steps = f"{screen.STEPS:,} steps of size learning, {screen.STEPS:,} of training, batches of made images"
    cells = f"{factorial.RUNS} runs x {sum(len(scales) for _, scales in screen.SCALES)} tasks"
    return {
        "drawing": DRAWING,
        "experiment": NAME,
        "title": "What six readings of the paper do to the learned sizes",
        "subtitle": f"{steps}; {cells}; {words.seed_list(seeds)}",
        "footer": [
            "Mean response at the other level less that at ours. Blue: main effects; grey: two-factor interactions, "
            "those that the design cannot tell apart as their sum. Orange: 95 % intervals over the seeds.",
            "; ".join(f"{one.letter}: {one.reading} {one.low} -> {one.high}" for one in FACTORS),
        ],
        "seeds": seeds,
        "steps": screen.STEPS,
        "responses": [response(one, found[one.name]) for one in screen.RESPONSES],
        "runs": [dict(run) for run in factorial.design()],
        "mnist": [on_mnist(asked, factor) for factor in strongest(found)],
        "mnist_steps": screen.MNIST_STEPS,
        "candidate": None if chosen is None else factorial.readings(chosen),
        "fresh": None if chosen is None else contest(asked, chosen),
        "intervals": len(seeds) > 1,
    }


def response(one: screen.Response, by_seed: Mapping[int, Sequence[float]]) -> Data:
    """One response: its mean in each run, and every effect that the design estimates."""
    over_seeds = zip(*(by_seed[seed] for seed in sorted(by_seed)), strict=True)
    return {
        "name": one.name,
        "title": one.title,
        "unit": one.unit,
        "ours": summarise([by_seed[seed][0] for seed in sorted(by_seed)]).as_json(),  # the first run is ours
        "by_run": [round(mean(values), 6) for values in over_seeds],
        "effects": [
            {"words": list(group), "main": len(group[0]) == 1, "short": short(group), **measured(values)}
            for group, values in factorial.effects(by_seed).items()
        ],
    }


def short(group: Sequence[str]) -> str:
    """An effect's name in the figure: `D lambda 0.05`, `AB + CE`."""
    titles = {factor.letter: factor.title for factor in FACTORS}
    return f"{group[0]} {titles[group[0]]}" if len(group[0]) == 1 else " + ".join(group)


def measured(values: Sequence[float]) -> Data:
    error = factorial.standard_error(values)
    return {**summarise(values).as_json(), "standard_error": None if error is None else round(error, 6)}


def on_mnist(asked: Sequence[Question], factor: Factor) -> Data:
    """What a factor does to the effect of true labels on MNIST, over the seeds that have both of its levels."""
    low = screen.label_effects(asked, DEFAULT, fresh=False)
    high = screen.label_effects(asked, screen.changed(factor), fresh=False)
    return {"letter": factor.letter, **pairs(low, high)}


def contest(asked: Sequence[Question], chosen: Run) -> Data:
    """Our readings against the chosen ones on fresh seeds: a win is a larger effect of labels, and one that is seen."""
    low = screen.label_effects(asked, DEFAULT, fresh=True)
    high = screen.label_effects(asked, chosen, fresh=True)
    both = pairs(low, high)
    p_gain = p_labels = None
    if len(both["seeds"]) >= FRESH_ENOUGH:
        p_gain = sign_flip_p([high[seed] - low[seed] for seed in both["seeds"]])
        p_labels = sign_flip_p([high[seed] for seed in both["seeds"]])
    wins = p_gain is not None and p_labels is not None and max(p_gain, p_labels) <= LEVEL
    return {**both, "p_gain": p_gain, "p_labels": p_labels, "wins": wins}


def pairs(low: BySeed, high: BySeed) -> Data:
    """Seeds that have both, and the means at both levels and of the difference."""
    seeds = sorted(low.keys() & high.keys())
    several = {
        "low": [low[seed] for seed in seeds],
        "high": [high[seed] for seed in seeds],
        "gain": [high[seed] - low[seed] for seed in seeds],
    }
    means = {name: summarise(values).as_json() if seeds else None for name, values in several.items()}
    return {"seeds": seeds, **means}
