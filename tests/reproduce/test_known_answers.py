"""The benchmark of known answers around its tasks and learners: plan, scores, records, running, report, command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reproduce import known_cases, known_scores
from reproduce.cli import main
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.known_answers import ORACLE, Case, KnownAnswer, KnownClock, KnownStore, case_id, receptive_field
from reproduce.known_scores import scores, within_margin
from reproduce.report import known, rendered
from reproduce.run.known import bench, learners, oracle
from reproduce.run.known.tasks import Task
from reproduce.store import Store

CLOCK = KnownClock(started="2026-01-01T00:00:00+00:00", finished="2026-01-01T00:00:01+00:00", seconds=1.0)


def a_case(**changes: Any) -> Case:
    values = {"task": "lag", "scale": 4, "layers": 1, "budget": None, "start": 3, "method": "effconv", "seed": 0}
    return Case(**{**values, "steps": known_cases.STEPS, **changes})


def answer(case: Case, sizes: Sequence[int], accuracy: float | None, **changes: Any) -> KnownAnswer:
    """A record as `bench` makes it, judged by an oracle that solves the task wherever it can be solved."""
    judged = {} if case.method == ORACLE else judge(case, sizes=sizes, accuracy=accuracy)
    fields = {"sizes": list(sizes), "effective_sizes": list(sizes), "test_accuracy": accuracy, **judged, **changes}
    return KnownAnswer(case_id=case_id(case), case=case, clock=CLOCK, machine="0" * 12, code={}, **fields)


def judge(
    case: Case, *, sizes: Sequence[int], accuracy: float | None, dead: bool = False, **more: Any
) -> dict[str, Any]:
    curve = {size: solved(case, size) for size in range(1, 14)}
    reach = known_cases.reachable(case)
    return scores(
        case, sizes=sizes, effective_sizes=sizes, accuracy=accuracy, curve=curve, reachable=reach, dead=dead, **more
    )


def solved(case: Case, field: int) -> float:
    """What a network of this receptive field gets right in a perfect world."""
    return 100.0 if field >= (case.minimal or 3) else 50.0


# The plan


def test_the_default_has_four_scales_and_starts_below_at_and_above_the_answer() -> None:
    cases = [case for case in known_cases.default_cases([0]) if case.method == "effconv"]
    for layers in (1, 2):
        lags = [case for case in cases if case.task == "lag" and case.layers == layers]
        assert len({case.scale for case in lags}) == 4
        assert all(len({case.start for case in lags if case.scale == scale}) == 3 for scale in {c.scale for c in lags})
        fields = {receptive_field([case.start] * layers) - (case.minimal or 0) for case in lags}
        assert min(fields) < 0 < max(fields) and 0 in fields
        assert max(case.minimal or 0 for case in lags) > known_cases.reachable(lags[0])  # one is out of reach
        assert {case.budget for case in lags} == {None if layers == 1 else known_cases.BUDGETS[2]}  # gives nothing away


def test_methods_of_their_own_sizes_are_not_asked_for_a_budget() -> None:
    for cases in (known_cases.default_cases([0]), known_cases.full_cases([0])):
        assert all(case.budget is None for case in cases if case.method in known_cases.OWN_SIZES)
        assert len({case_id(case) for case in cases}) == len(cases)


def test_every_method_of_the_plan_is_there() -> None:
    assert {case.method for case in known_cases.full_cases([0])} <= learners.METHODS.keys()


def test_the_oracle_of_a_budget_meets_it_and_reaches_as_far_as_it_allows() -> None:
    case = a_case(layers=2, budget=known_cases.BUDGETS[2])
    fixed = [one.fixed for one in known_cases.oracle_cases(case)]
    assert all(abs(known_cases.weights(sizes) / known_cases.BUDGETS[2] - 1) <= 0.1 for sizes in fixed)
    assert max(map(receptive_field, fixed)) == known_cases.reachable(case) == 7


def test_the_oracle_sees_the_widest_lag_even_where_the_learners_cannot() -> None:
    widest = max(known_cases.FULL_SCALES["lag", 1])
    fixed = [one.fixed for one in known_cases.oracle_cases(a_case(scale=widest))]
    assert max(map(receptive_field, fixed)) > widest


def test_a_glob_that_matches_nothing_is_a_usage_error() -> None:
    cases = known_cases.default_cases([0])
    assert {case.method for case in known_cases.select(cases, "effconv*", "lag")} == set(known_cases.EFFCONV)
    with pytest.raises(UsageError, match="--methods"):
        known_cases.select(cases, "nothing*", None)


# The scores


def test_what_is_fed_the_answer_reaches_without_excess() -> None:
    found = judge(a_case(layers=2, scale=6, budget=known_cases.BUDGETS[2]), sizes=[4, 4], accuracy=99.0)
    assert found["reaches"] and found["excess"] == 0 and found["failure"] == ""


def test_excess_says_nothing_without_a_budget_and_nothing_of_a_texture() -> None:
    assert judge(a_case(), sizes=[7], accuracy=100.0)["excess"] is None
    texture = judge(a_case(task="texture", layers=2, budget=2048), sizes=[4, 4], accuracy=100.0)
    assert texture["excess"] is None and texture["minimal"] is None and texture["oracle_size"] == 3


def test_a_lucky_accuracy_below_the_minimal_size_does_not_reach() -> None:
    assert not judge(a_case(), sizes=[4], accuracy=100.0)["reaches"]


def test_the_nominal_size_may_reach_where_the_effective_one_is_short() -> None:
    case = a_case(scale=2)
    found = scores(case, sizes=[3], effective_sizes=[2], accuracy=100.0, curve={3: 100.0}, reachable=7, dead=False)
    assert found["reaches"]


def test_the_oracles_best_size_is_the_smallest_within_two_points() -> None:
    assert within_margin({1: 60.0, 3: 97.9, 4: 98.2, 7: 100.0}) == (100.0, 4)


@pytest.mark.parametrize(
    ("changes", "sizes", "accuracy", "more", "why"),
    [
        ({}, [3], None, {}, known_scores.DIVERGED),
        ({"scale": 7}, [7], 50.0, {}, known_scores.OUT_OF_REACH),
        ({"scale": 7, "layers": 2, "budget": 2048}, [4, 4], 50.0, {}, known_scores.OUT_OF_BUDGET),
        ({"start": 2}, [2], 50.0, {"dead": True}, known_scores.DEAD),
        ({"start": 3}, [4], 50.0, {}, known_scores.TOO_SMALL),
        ({"start": 5}, [4], 50.0, {}, known_scores.SHRANK),
        ({"scale": 6, "layers": 2, "budget": 2048, "start": 4}, [5, 2], 50.0, {}, known_scores.BUDGET_PRESSURE),
        ({"start": 5}, [5], 90.0, {}, known_scores.NOT_SOLVED),
        (
            {"start": 4, "method": "flexconv"},
            [4],
            50.0,
            {"started": [5]},
            known_scores.SHRANK,
        ),  # an odd size, so from 5
        ({"method": "flexconv", "scale": 7}, [5], 50.0, {}, known_scores.TOO_SMALL),  # it may grow beyond 7
    ],
)
def test_why_a_case_fails(
    changes: dict[str, Any], sizes: list[int], accuracy: float | None, more: dict[str, Any], why: str
) -> None:
    found = judge(a_case(**changes), sizes=sizes, accuracy=accuracy, **more)
    assert not found["reaches"] and found["failure"] == why


# The records


def test_a_record_survives_writing_and_its_path_depends_on_the_case_alone(tmp_path: Path) -> None:
    store, case = KnownStore(tmp_path), a_case(method="effconv: soft budget")
    path = store.write(answer(case, [5], 100.0))
    assert path == store.path(case) and "effconv-soft-budget" in path.parts
    found = store.find(case)
    assert found is not None and found.case == case and found.digest and store.records() == [found]
    assert store.path(a_case(seed=1)) != store.path(a_case(readings={"lam": 0.05})) != store.path(a_case())


def test_what_stands_there_stays(tmp_path: Path) -> None:
    store, case = KnownStore(tmp_path), a_case()
    store.write(answer(case, [5], 100.0))
    store.write(answer(case, [6], 99.0))
    found = store.find(case)
    assert found is not None and found.sizes == [5]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda raw: raw | {"test_accuracy": 12.0}, "does not match its digest"),
        (lambda raw: raw | {"schema_version": 99}, "newer version"),
        (lambda raw: raw | {"kind": "training"}, "no known answer"),
    ],
)
def test_a_spoilt_record_costs_one_line_and_blocks_its_place(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], dict[str, Any]], why: str
) -> None:
    store, case = KnownStore(tmp_path), a_case()
    path = store.write(answer(case, [5], 100.0))
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    assert store.records() == [] and store.find(case) is None
    assert len(store.problems) == 1 and why in store.problems[0] and "\n" not in store.problems[0]
    with pytest.raises(UserError, match="known_answer/"):
        store.write(answer(case, [5], 100.0))


# Running


def told(case: Case) -> learners.Outcome:
    """A learner that is fed the answer: the smallest equal sizes that see enough."""
    size = -(-((case.minimal or 3) + case.layers - 1) // case.layers)
    return as_outcome(case, [size] * case.layers)


def blind(case: Case) -> learners.Outcome:
    """A learner that ignores the data and stays where it starts."""
    return as_outcome(case, [case.start] * case.layers)


def as_outcome(case: Case, sizes: list[int]) -> learners.Outcome:
    return learners.Outcome(sizes, sizes, solved(case, receptive_field(sizes)), {"dead": []})


def perfect(task: Task, layers: int, sizes: Sequence[int], seed: int, steps: int) -> float:
    return solved(a_case(task=task.name, scale=task.scale, layers=layers), receptive_field(sizes))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Case]]:
    """Instant learners and an instant oracle; what was asked of the learners."""
    asked: list[Case] = []

    def counted(learn: learners.Learner) -> learners.Learner:
        def learn_and_count(case: Case) -> learners.Outcome:
            asked.append(case)
            return learn(case)

        return learn_and_count

    monkeypatch.setattr(learners, "METHODS", {"told": counted(told), "blind": counted(blind)})
    monkeypatch.setattr(oracle, "oracle_accuracy", perfect)
    yield asked


def planned(method: str, seeds: Sequence[int] = (0,)) -> list[Case]:
    """The default's cases of one layer, asked of a method of this file."""
    cases = [case for case in known_cases.default_cases(seeds) if case.method == "flexconv"]
    return [case.model_copy(update={"method": method}) for case in cases]


def test_one_that_is_fed_the_answer_scores_perfectly_and_one_that_ignores_the_data_is_found_out(
    calls: list[Case], tmp_path: Path
) -> None:
    store = KnownStore(tmp_path)
    fed = bench.run_cases(planned("told"), store)
    assert all(one.reaches and not one.failure for one in fed)
    ignorant = bench.run_cases(planned("blind"), store)
    failed = [one for one in ignorant if not one.reaches]
    assert {one.case.scale for one in failed if one.case.task == "lag"} == set(known_cases.SCALES["lag", 1])
    assert {known_scores.TOO_SMALL, known_scores.OUT_OF_REACH} >= {one.failure for one in failed}


def test_what_is_recorded_is_not_computed_again(calls: list[Case], tmp_path: Path) -> None:
    store, cases = KnownStore(tmp_path), planned("told")
    first = bench.run_cases(cases, store)
    assert len(calls) == len(cases)
    assert bench.run_cases(cases, store) == first and len(calls) == len(cases)


def test_only_the_clock_depends_on_time(calls: list[Case]) -> None:
    one, other = (bench.run_case(a_case(method="told"), commit={}) for _ in range(2))
    assert one.model_dump(exclude={"clock"}) == other.model_dump(exclude={"clock"})
    assert one.reaches and one.oracle_accuracy == 100.0 and one.oracle_size == 5


def test_a_stop_leaves_what_is_finished(calls: list[Case], tmp_path: Path) -> None:
    store, lines = KnownStore(tmp_path), []  # type: tuple[KnownStore, list[str]]
    with pytest.raises(Interrupted) as stopped:
        bench.run_cases(planned("told"), store, progress=lines.append, stop=lambda: len(calls) >= 3)
    assert not stopped.value.idle
    assert sum(one.case.method == "told" for one in store.records()) == 3
    assert len(lines) == len(store.records()) and "left" in lines[-1]
    with pytest.raises(Interrupted) as idle:
        bench.run_cases(planned("blind"), store, stop=lambda: True)
    assert idle.value.idle


def test_an_unknown_method_is_named(calls: list[Case]) -> None:
    with pytest.raises(UserError, match="no method is named 'nobody'"):
        bench.run_case(a_case(method="nobody"))


def test_a_diverged_case_is_a_record(calls: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.METHODS, "wild", lambda case: learners.Outcome([3], [3], float("nan"), {}))
    (found,) = bench.run_cases([a_case(method="wild")], KnownStore(tmp_path))
    assert found.test_accuracy is None and found.failure == known_scores.DIVERGED


@pytest.mark.slow  # two processes import torch
def test_a_case_in_a_process_of_its_own_is_the_same(tmp_path: Path) -> None:
    cases = [a_case(method=ORACLE, fixed=(size,), start=size, steps=3) for size in (1, 3)]
    found = bench.run_cases(cases, KnownStore(tmp_path), jobs=2)
    here = [bench.run_case(case) for case in cases]
    assert [one.test_accuracy for one in found] == [one.test_accuracy for one in here]


# The report


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with answers of two methods, right and wrong ones."""
    store = KnownStore(tmp_path)
    for case in known_cases.with_oracle(known_cases.select(known_cases.default_cases([0, 1]), "effconv,njet", None)):
        sizes = case.fixed or ([case.start] if case.method == "njet" else [4] * case.layers)
        store.write(answer(case, list(sizes) * (case.layers // len(sizes)), solved(case, receptive_field(sizes))))
    return tmp_path


def test_nothing_is_rendered_without_records(tmp_path: Path) -> None:
    assert known.pages(tmp_path) == [] and known.problems(tmp_path) == []
    assert rendered.write_all(Store(tmp_path), tmp_path / "rendered") == []


def test_the_report_has_scores_failures_and_every_case(results: Path) -> None:
    data = known.known_data(KnownStore(results).records())
    assert data is not None
    assert data["methods"] == ["effconv", "njet"] and data["seeds"] == [0, 1]
    assert sum(one["cases"] for one in data["scores"]) == data["cases"] == sum(len(p["seeds"]) for p in data["points"])
    njet = next(one for one in data["scores"] if one["method"] == "njet" and one["task"] == "lag")
    assert 0 < njet["reached"] < njet["cases"] and njet["excess"] is None
    assert {one["why"] for one in data["failures"]} >= {known_scores.TOO_SMALL, known_scores.OUT_OF_BUDGET}
    text = known.pages(results)[0].text
    assert "| effconv | 2 | 2,048 | 48 of 8 tasks and scales | 4 4 (48) |" in " ".join(text.split())  # deaf
    assert known_scores.TOO_SMALL in text and "| effconv | lag" in text.replace("  ", " ")


def test_cases_of_other_readings_or_lengths_stay_out(results: Path) -> None:
    before = known.known_data(KnownStore(results).records())
    KnownStore(results).write(answer(a_case(readings={"lam": 0.05}), [5], 100.0))
    KnownStore(results).write(answer(a_case(steps=7), [5], 100.0))
    assert known.known_data(KnownStore(results).records()) == before


def test_the_picture_is_the_same_for_the_same_data_and_stale_when_records_change(results: Path) -> None:
    folder = results / "rendered"
    rendered.write_all(Store(results), folder)
    assert {path.suffix for path in folder.glob("known-answer.*")} == {".md", ".json", ".png", ".svg"}
    assert rendered.stale(Store(results), folder) == []
    data = json.loads((folder / "known-answer.json").read_text())
    assert known.pictures(data)["svg"] == (folder / "known-answer.svg").read_bytes()
    KnownStore(results).write(answer(a_case(seed=9), [5], 100.0))
    assert any(line.startswith("known-answer.md: differs") for line in rendered.stale(Store(results), folder))


# The command


def test_the_command_lists_plans_and_shows(results: Path) -> None:
    def said(*options: str) -> str:
        done = CliRunner().invoke(main, ["known-answer", "--results", str(results), *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert said("--list").split("\n")[:2] == list(known_cases.EFFCONV)
    assert "to run: 0 cases" in said("--dry-run", "--methods", "effconv", "--seeds", "0,1")
    entries = json.loads(said("--dry-run", "--json", "--methods", "flexconv", "--seeds", "0"))
    assert [one["finished"] for one in entries if one["method"] == "flexconv"] == [False] * 24
    assert json.loads(said("--no-run", "--json"))["methods"] == ["effconv", "njet"]
    assert "# Known answers" in said("--no-run")


@pytest.mark.parametrize("command", ["known-answer", "controls", "readings"])
def test_a_bad_seed_is_a_usage_error_of_each_command(command: str) -> None:
    assert CliRunner().invoke(main, [command, "--seeds", "x", "--dry-run"]).exit_code == 2
