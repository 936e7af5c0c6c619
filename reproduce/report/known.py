"""What the records of known answers say, as plain values: `known_text` and `drawing_known` show exactly these."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from reproduce import known_cases
from reproduce.known_answers import ORACLE, KnownAnswer, KnownStore, first_sizes, receptive_field
from reproduce.known_scores import MARGIN
from reproduce.report import known_text, words
from reproduce.report.figures import as_text
from reproduce.report.pages import Page
from reproduce.report.statistics import summarise

DRAWING = 1  # raised when the picture looks different for the same data, so that it is drawn again
NAME = "known-answer"

Key = TypeVar("Key", bound=Hashable)
Data = dict[str, Any]


def pages(results: Path) -> list[Page]:
    """The report and its figure; none while no method has a record."""
    data = known_data(KnownStore(results).records())
    if data is None:
        return []
    about = (f"[{NAME}]({NAME}.md)", "", "generated from seeds", "", words.number_list(data["seeds"]))
    return [
        Page(name=f"{NAME}.md", text=known_text.markdown(data), about=about),
        Page(name=f"{NAME}.json", text=as_text(data), figure=data, draw=pictures),
    ]


def problems(results: Path) -> list[str]:
    """One line for each file among the known answers that cannot be read."""
    store = KnownStore(results)
    store.records()
    return store.problems


def pictures(data: Data) -> dict[str, bytes]:
    """{"png": ..., "svg": ...} of exactly this data."""
    from reproduce.report import canvas, drawing_known

    return canvas.rendered(drawing_known.draw, data)


def known_data(records: Iterable[KnownAnswer]) -> Data | None:
    """Everything that report and figure show, or None if no method has a record of today's benchmark."""
    today = [record for record in records if known_cases.in_benchmark(record.case)]
    learned = sorted((one for one in today if one.case.method != ORACLE), key=_order)
    if not learned:
        return None
    seeds = sorted({one.case.seed for one in learned})
    steps = known_cases.STEPS
    subtitle = f"{steps:,} steps of size learning, {steps:,} of training; {len(learned):,} cases; "
    return {
        "drawing": DRAWING,
        "experiment": NAME,
        "title": "Known answers: do learned kernel sizes find what their data need?",
        "subtitle": subtitle + words.seed_list(seeds),
        "margin": MARGIN,
        "seeds": seeds,
        "steps": steps,
        "cases": len(learned),
        "methods": list(dict.fromkeys(one.case.method for one in learned)),
        "budgets": [_spent(key, group) for key, group in _groups(learned, _on_budget) if key[-1] is not None],
        "scores": [_score(key, group) for key, group in _groups(learned, _setting)],
        "points": [_point(key, group) for key, group in _groups(learned, _question)],
        "failures": [_failing(key, group) for key, group in _groups(learned, _fault) if key[-1]],
        "oracle": [_fixed(key, group) for key, group in _groups(_oracles(today), _network)],
    }


def _order(record: KnownAnswer) -> tuple[Any, ...]:
    """Methods as the plan has them, others after those by name; then task, layers, budget, scale, start, seed."""
    case, first = record.case, (*known_cases.EFFCONV, *known_cases.MORE_READINGS, *known_cases.OWN_SIZES)
    place = first.index(case.method) if case.method in first else len(first)
    return place, case.method, case.task, case.layers, case.budget or 0, case.scale, case.start, case.seed


def _groups(records: Sequence[KnownAnswer], key: Callable[[KnownAnswer], Key]) -> list[tuple[Key, list[KnownAnswer]]]:
    """Records of one key together, in order of their first ones."""
    found: dict[Key, list[KnownAnswer]] = defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return list(found.items())


def _setting(record: KnownAnswer) -> tuple[Any, ...]:
    case = record.case
    return case.method, case.task, case.layers, case.budget


def _on_budget(record: KnownAnswer) -> tuple[Any, ...]:
    return record.case.method, record.case.layers, record.case.budget


def _question(record: KnownAnswer) -> tuple[Any, ...]:
    return (*_setting(record), record.case.scale, record.case.start)


def _fault(record: KnownAnswer) -> tuple[Any, ...]:
    return (*_question(record), record.failure)


def _network(record: KnownAnswer) -> tuple[Any, ...]:
    case = record.case
    return case.task, case.layers, case.scale, case.fixed


def _oracles(records: Iterable[KnownAnswer]) -> list[KnownAnswer]:
    found = [one for one in records if one.case.method == ORACLE]
    return sorted(found, key=lambda one: (*_network(one)[:3], receptive_field(one.sizes), one.sizes, one.case.seed))


def _named(names: Sequence[str], key: Sequence[Any]) -> Data:
    return dict(zip(names, key, strict=True))


SETTING = ("method", "task", "layers", "budget")
QUESTION = (*SETTING, "scale", "start")


def _score(key: tuple[Any, ...], group: Sequence[KnownAnswer]) -> Data:
    """A setting's two scores. A seed's share and mean over scales and starts are one value: seeds are what repeats."""
    by_seed = [several for _, several in _groups(group, lambda one: one.case.seed)]
    return {
        **_named(SETTING, key),
        "cases": len(group),
        "reached": sum(one.reaches for one in group),
        "reaches": _mean([100 * sum(one.reaches for one in several) / len(several) for several in by_seed]),
        "accuracy": _mean([mean for several in by_seed if (mean := _average(_accuracies(several))) is not None]),
        "excess": _mean([
            mean
            for several in by_seed
            if (mean := _average([one.excess for one in several if one.excess is not None])) is not None
        ]),
    }  # fmt: skip


def _spent(key: tuple[Any, ...], group: Sequence[KnownAnswer]) -> Data:
    """Which sizes a method ended at on a budget, over all tasks, scales, starts and seeds; the commonest first."""
    ends = Counter(tuple(one.sizes) for one in group).most_common()
    return {
        **_named(("method", "layers", "budget"), key),
        "cases": len(group),
        "tasks": len({(one.case.task, one.case.scale) for one in group}),
        "ends": [{"sizes": list(sizes), "cases": count} for sizes, count in ends],
    }


def _point(key: tuple[Any, ...], group: Sequence[KnownAnswer]) -> Data:
    """One scale and start: its seeds."""
    return {
        **_named(QUESTION, key),
        "minimal": group[0].minimal,
        "begins": _begins(group[0]),
        "reachable": known_cases.reachable(group[0].case),
        "seeds": [one.case.seed for one in group],
        "effective": _mean([receptive_field(one.effective_sizes) for one in group]),
        "nominal": _mean([receptive_field(one.sizes) for one in group]),
        "sizes": [one.sizes for one in group],
        "accuracy": _mean(_accuracies(group)),
        "oracle": _mean([one.oracle_accuracy for one in group if one.oracle_accuracy is not None]),
        "oracle_size": _mean([one.oracle_size for one in group if one.oracle_size is not None]),
        "excess": _mean([one.excess for one in group if one.excess is not None]),
        "reached": sum(one.reaches for one in group),
    }


def _begins(record: KnownAnswer) -> str | None:
    """Where the first receptive field stands to the minimal one."""
    if record.minimal is None:
        return None
    first = receptive_field(first_sizes(record.case, record.notes))
    return "below" if first < record.minimal else "at" if first == record.minimal else "above"


def _failing(key: tuple[Any, ...], group: Sequence[KnownAnswer]) -> Data:
    return {**_named((*QUESTION, "why"), key), "seeds": [one.case.seed for one in group]}


def _fixed(key: tuple[Any, ...], group: Sequence[KnownAnswer]) -> Data:
    task, layers, scale, sizes = key
    return {
        "task": task,
        "layers": layers,
        "scale": scale,
        "sizes": list(sizes),
        "receptive_field": receptive_field(sizes),
        "minimal": group[0].case.minimal,
        "accuracy": _mean(_accuracies(group)),
    }


def _accuracies(group: Iterable[KnownAnswer]) -> list[float]:
    return [one.test_accuracy for one in group if one.test_accuracy is not None]


def _average(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _mean(values: Sequence[float]) -> Data | None:
    return summarise(values).as_json() if values else None
