"""The screen of readings: its design by algebra and by numbers, its responses, its report, its three stages."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reproduce import controlling, factorial, reading, screen
from reproduce.errors import UsageError, UserError
from reproduce.factorial import DEFAULT, FACTORS, Run, design, readings, sign
from reproduce.known_answers import Case, KnownAnswer, KnownClock, KnownStore, case_id
from reproduce.reading import ReadingsRequest, command
from reproduce.records import DataOrigin, Outcome, Snapped
from reproduce.report import readings as report
from reproduce.size_records import SizeCase, SizeClock, SizeRecord, SizeStore
from reproduce.specs import PROTOCOL_VERSION

LETTERS = [factor.letter for factor in FACTORS]
# What the made-up world does: soft sizes alone make the first layer follow the texture, a narrow mask hinders it.
TRUTH = {"A": 0.4, "B": 0.0, "C": -0.1, "D": 0.2, "E": -0.3, "F": 0.0}
JITTER = (-0.03, -0.01, 0.01, 0.03)  # of A's effect, by seed


def column(word: str) -> list[int]:
    return [sign(word, run) for run in design()]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_sixteen_different_runs_in_balanced_orthogonal_columns() -> None:
    assert len({tuple(run.values()) for run in design()}) == len(design()) == 16
    assert design()[0] == DEFAULT and readings(design()[0])["budget_value"] == "hard"
    words = [group[0] for group in factorial.columns()]
    assert all(sum(column(word)) == 0 for word in words)
    assert all(dot(column(a), column(b)) == 0 for a, b in itertools.combinations(words, 2))


def test_no_main_effect_shares_a_column_with_a_two_factor_interaction() -> None:
    assert sorted(factorial.defining_words()) == ["ABCE", "ADEF", "BCDF"]
    pairs = ["".join(pair) for pair in itertools.combinations(LETTERS, 2)]
    for letter, pair in itertools.product(LETTERS, pairs):
        assert dot(column(letter), column(pair)) == 0
        assert pair not in factorial.aliases(letter)


def test_aliases_are_named_by_the_algebra_as_the_numbers_have_them() -> None:
    words = ["".join(chosen) for count in (1, 2, 3) for chosen in itertools.combinations(LETTERS, count)]
    for one in words:
        assert all(column(alias) == column(one) for alias in factorial.aliases(one))
        assert {other for other in words if column(other) == column(one)} - {one} <= set(factorial.aliases(one))
    groups = factorial.interactions()
    assert sorted(pair for group in groups for pair in group) == sorted(word for word in words if len(word) == 2)
    assert ("AE", "BC", "DF") in groups and len(groups) == 7


def test_the_interactions_to_be_expected_share_no_column() -> None:
    of = {factor.reading: factor.letter for factor in FACTORS}
    expected = [("budget_value", "lam"), ("budget_value", "readout"), ("lam", "readout")]
    expected += [("mask_centre", "mask_denominator")]
    pairs = ["".join(sorted(of[name] for name in names)) for names in expected]
    assert len({group for group in factorial.interactions() for pair in pairs if pair in group}) == len(pairs)


def test_effects_of_a_linear_response_are_recovered_with_their_errors() -> None:
    def answer(run: Run, seed: int) -> float:
        mains = sum(TRUTH[letter] / 2 * run[letter] for letter in LETTERS)
        return 7 * seed + mains + JITTER[seed] / 2 * run["A"] + 0.25 / 2 * run["B"] * run["D"]

    found = factorial.effects({seed: [answer(run, seed) for run in design()] for seed in range(4)})
    for letter in LETTERS:
        assert statistics.fmean(found[letter,]) == pytest.approx(TRUTH[letter], abs=1e-9)
    assert found["A",] == pytest.approx([0.4 + jitter for jitter in JITTER], abs=1e-9)
    assert factorial.standard_error(found["A",]) == pytest.approx(statistics.stdev(JITTER) / 2)
    assert factorial.standard_error(found["B",]) == pytest.approx(0.0, abs=1e-9)
    assert found["BD", "CF"] == pytest.approx([0.25] * 4, abs=1e-9)
    assert found["AB", "CE"] == pytest.approx([0.0] * 4, abs=1e-9)
    assert [factor.letter for factor in factorial.largest(found)] == ["A", "E", "D"]
    assert factorial.standard_error([1.0]) is None


def test_every_level_is_one_that_effconv_and_the_deviations_know() -> None:
    import effconv
    from reproduce import paper

    for run in design():
        effconv.Readings(**{name: level for name, level in readings(run).items() if name != "lam"})  # type: ignore[arg-type]
    ours = {name: level for name, level in readings(DEFAULT).items() if name != "lam"}
    assert effconv.Readings(**ours) == effconv.Readings()  # type: ignore[arg-type]
    assert readings(DEFAULT)["lam"] == effconv.Settings(budget=1).lam
    named = {name for entry in paper.deviations() for name in entry.alternatives}
    assert {str(factor.high) for factor in FACTORS if factor.reading != "lam"} <= named


def known(case: Case, truth: Mapping[str, float] = TRUTH) -> KnownAnswer:
    """An answer of the made-up world: the first layer's soft size follows the texture's scale at the run's slope."""
    run = {f.letter: 1 if case.readings[f.reading] == f.high else -1 for f in FACTORS}
    slope = 0.5 + sum(truth[letter] / 2 * run[letter] for letter in LETTERS) + JITTER[case.seed] / 2 * run["A"]
    first = 3.0 + slope * case.scale if case.task == "texture" else 4.0
    sizes = [round(first), 4]
    return KnownAnswer(
        case_id=case_id(case),
        case=case,
        sizes=sizes,
        effective_sizes=sizes,
        test_accuracy=80.0,
        reaches=case.task == "texture" or run["D"] > 0,
        notes={"v_read_out": [first, 4.0]},
        clock=KnownClock(started="2030-01-01T00:00:00Z", finished="2030-01-01T00:00:01Z", seconds=1.0),
        machine="0123456789ab",
        code={"commit": "unknown"},
    )


def screened(results: Path, seeds: Sequence[int] = range(2), truth: Mapping[str, float] = TRUTH) -> None:
    store = KnownStore(results)
    for case in screen.cases(seeds):
        store.write(known(case, truth))


def test_responses_are_slopes_and_shares_of_whole_seeds(tmp_path: Path) -> None:
    screened(tmp_path, range(2))
    records = KnownStore(tmp_path).records()
    found = screen.responses(records)
    effects = factorial.effects(found["texture"])
    assert effects["E",] == pytest.approx([-0.3] * 2)
    assert effects["A",] == pytest.approx([0.4 + jitter for jitter in JITTER[:2]])
    assert found["lag"] == {seed: [0.0] * 16 for seed in range(2)}
    assert factorial.effects(found["reach"])["D",] == [50.0] * 2
    lost = next(record for record in records if record.case.seed == 1)
    assert list(screen.responses(record for record in records if record is not lost)["texture"]) == [0]


def test_a_case_read_back_from_its_file_is_the_case_that_was_asked(tmp_path: Path) -> None:
    screened(tmp_path, [0])
    store = KnownStore(tmp_path)
    assert all(store.find(case) is not None for case in screen.cases([0])) and store.problems == []


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second; most tests are not about it."""
    monkeypatch.setattr(report, "pictures", lambda data: {"png": b"", "svg": b""})


def run_stage(request: ReadingsRequest) -> tuple[int, list[str], list[str]]:
    out: list[str] = []
    err: list[str] = []
    code = command(request, out=out.append, err=err.append, stop=lambda: False)
    return code, out, err


@pytest.mark.usefixtures("undrawn")
def test_the_screen_says_what_it_costs_runs_what_is_missing_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def fake(cases: Sequence[Case], store: KnownStore, **_: Any) -> list[KnownAnswer]:
        asked.append(len(cases))
        for case in cases:
            store.write(known(case))
        return []

    from reproduce.run.known import bench

    monkeypatch.setattr(bench, "run_cases", fake)
    request = ReadingsRequest(results=tmp_path, seeds=[0, 1])
    code, (plan, *_), _ = run_stage(ReadingsRequest(results=tmp_path, seeds=[0, 1], dry_run=True, as_json=True))
    assert code == 0 and json.loads(plan)["to_run"] == 2 * 16 * 4 and json.loads(plan)["estimated_seconds"] > 0
    code, out, err = run_stage(request)
    assert code == 0 and asked == [128] and "about" in err[0]
    assert out[0].startswith("# What six readings") and "I = ABCE = ADEF = BCDF" in out[0]
    assert "| AE = BC = DF |" in " ".join(out[0].split()) and "budget_value x mask_denominator" in out[0]
    assert run_stage(request)[2][0].startswith("nothing to run") and asked == [128]
    names = {path.name for path in (tmp_path / "rendered").iterdir()}
    pages = {f"readings.{kind}" for kind in ("md", "json", "png", "svg")}
    assert names == pages | {"README.md", "report.html", "report.md"}


def test_a_picture_is_the_same_in_another_process_which_needs_no_torch(tmp_path: Path) -> None:
    screened(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from reproduce.report.rendered import write_all; from reproduce.store import Store\n"
        f"assert write_all(Store(Path({str(tmp_path)!r})), Path({str(tmp_path)!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    data = json.loads((tmp_path / "readings.json").read_text())
    assert data == json.loads(report.as_text(report.figure_data(tmp_path) or {}))
    for kind, content in report.pictures(data).items():
        assert (tmp_path / f"readings.{kind}").read_bytes() == content


def test_only_factors_with_an_interval_above_zero_are_chosen(tmp_path: Path) -> None:
    screened(tmp_path / "a")
    chosen = report.candidate(report.found_in(tmp_path / "a"))
    assert chosen == screen.changed(FACTORS[0], FACTORS[3])  # A and D help; C and E hinder; B and F do nothing
    data = report.figure_data(tmp_path / "a")
    assert data is not None and data["fresh"]["wins"] is False
    assert "not yet tested: `budget_value` soft, `lam` 0.05" in report.readings_text.proposal(data)
    said = report.readings_text.finding(data)
    assert "the largest is that of A budget loss of soft sizes, +0.380 size per pixel of scale (95 % inte" in said
    assert said.endswith("zero: A budget loss of soft sizes, E narrow mask, D lambda 0.05, C constant predictor input.")
    screened(tmp_path / "b", truth=dict.fromkeys(LETTERS, 0.0))
    data = report.figure_data(tmp_path / "b")
    assert data is not None and data["candidate"] is None and report.readings_text.finding(data).endswith("zero: none.")
    assert report.readings_text.proposal(data).startswith("No preset is proposed: no reading")
    screened(tmp_path / "c", [0])
    data = report.figure_data(tmp_path / "c")
    assert data is not None and "one seed has no interval" in report.readings_text.proposal(data)


def learned(case: SizeCase, effect: Callable[[Run], float]) -> SizeRecord:
    """Sizes of two layers: shuffles lie 0.2 apart, true labels that and the effect of the labels under the readings."""
    run = screen.run_of(case.spec)
    assert run is not None
    v = 3.0 + {"true": 0.2 + effect(run), "shuffled": 0.0, "reshuffled": 0.2}[case.arm] * (1 + 0.01 * (case.seed % 100))
    whole = [round(v)] * 2
    return SizeRecord(
        protocol_version=PROTOCOL_VERSION,
        case=case,
        outcome=Outcome(status="finished"),
        sizes={"a": whole[0], "b": whole[1]},
        snapped=Snapped(
            soft=[v, v], rounded=whole, moved=[0, 0], error_before=0, error_after=0, differs_from_initial=0
        ),
        params=660_000,
        history=[],
        clock=SizeClock(started="", finished="", seconds=1.0, device="cpu", shared_device=False),
        machine="0123456789ab",
        data=DataOrigin(
            name="mnist", source="canonical", title="MNIST", canonical=True, train_images=1, test_images=1, files=[]
        ),
        code={},
    )


def on_images(monkeypatch: pytest.MonkeyPatch, effect: Callable[[Run], float]) -> list[SizeCase]:
    """Replaces size learning on MNIST; returns the list that its cases will be added to."""
    asked: list[SizeCase] = []

    def fake(cases: Sequence[SizeCase], _request: Any, store: SizeStore, **_: Any) -> None:
        asked.extend(cases)
        for case in cases:
            store.write(learned(case, effect))

    monkeypatch.setattr(controlling, "run", fake)
    monkeypatch.setattr(controlling, "source_of", lambda request: "canonical")
    return asked


@pytest.mark.usefixtures("undrawn")
def test_the_three_largest_again_on_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screened(tmp_path)
    asked = on_images(monkeypatch, lambda run: 0.5 if run["A"] > 0 else 0.1)
    code, out, _ = run_stage(ReadingsRequest(stage="mnist", results=tmp_path, data_root=tmp_path))
    assert code == 0 and len(asked) == 4 * 3 * len(screen.MNIST_SEEDS)
    assert {case.spec.size_learning.lam for case in asked} == {2.0, 0.05}
    data = report.figure_data(tmp_path)
    assert data is not None and [one["letter"] for one in data["mnist"]] == ["A", "E", "D"]
    gains = [one["gain"]["mean"] for one in data["mnist"]]
    assert gains == pytest.approx([0.4 * 1.015, 0.0, 0.0], abs=1e-6)
    assert "the labels' effect" in out[0].lower() and "Not run" not in out[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("ours", "theirs", "wins", "says"),
    [
        (0.1, 0.5, True, "beside the paper's setting, never in its place"),
        (0.3, 0.3, False, "No preset is proposed: the screen chose"),
        (-0.15, -0.05, False, "No preset is proposed: the screen chose"),  # better than ours, but no effect of labels
    ],
)
def test_a_preset_is_proposed_only_if_it_wins_on_fresh_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: float, theirs: float, wins: bool, says: str
) -> None:
    screened(tmp_path)
    chosen = report.candidate(report.found_in(tmp_path))
    asked = on_images(monkeypatch, lambda run: theirs if run == chosen else ours)
    _, out, _ = run_stage(ReadingsRequest(stage="fresh", results=tmp_path, data_root=tmp_path))
    assert {case.seed for case in asked} == set(screen.FRESH_SEEDS) and len(asked) == 2 * 3 * 5
    data = report.figure_data(tmp_path)
    assert data is not None and data["fresh"]["wins"] is wins
    assert says in out[0] and "Not run" in out[0]  # of stage mnist, which saw none of these seeds


def test_stages_keep_to_their_seeds_and_need_the_screen(tmp_path: Path) -> None:
    for stage, seed in (("screen", 100), ("mnist", 104), ("fresh", 0)):
        with pytest.raises(UsageError, match="kept for stage fresh"):
            run_stage(ReadingsRequest(stage=stage, seeds=[seed], results=tmp_path))  # type: ignore[arg-type]
    for stage in ("mnist", "fresh"):
        with pytest.raises(UserError, match="run `reproduce readings` first"):
            run_stage(ReadingsRequest(stage=stage, results=tmp_path))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no seed of the screen is whole"):
        run_stage(ReadingsRequest(no_run=True, results=tmp_path))
    assert reading.SEEDS["fresh"] == screen.FRESH_SEEDS
