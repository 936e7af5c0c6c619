"""`reproduce plan`: how many seeds, against published sample sizes and by hand; the file; what may follow it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from reproduce.cli import main
from reproduce.controlling import size_spec
from reproduce.records import Outcome, Snapped
from reproduce.report.inference import image_variance, share, welch
from reproduce.report.plans import Recorded, plans, problems, standing, standings
from reproduce.report.power import (
    Images,
    deciding,
    images_of,
    pooled,
    power_above,
    power_on_par,
    seeds_for,
    seeds_for_share,
)
from reproduce.report.verdicts import directional, on_par, structure
from reproduce.size_records import SizeCase, SizeClock, SizeRecord, SizeStore
from reproduce.specs import PROTOCOL_VERSION
from reproduce.store import Store
from tests.reproduce.factory import make_record, origin, put, spec_of, store_with

CLAIM = "t2-flexnet-accuracy"  # EffConv-20 0.66M above FlexNet-16, smallest effect 0.1
ROWS = ("EffConv-20 0.66M", "FlexNet-16")


def test_the_pooled_spread_by_hand() -> None:
    # Squares 2 + 0 over 2 + 1 degrees of freedom; the chi-square's 20 % point at 3 is 1.00517.
    found = pooled([[91.0, 92.0, 93.0], [90.0, 90.0], [50.0]])
    assert found is not None
    assert (found.degrees, found.cells) == (3, 2)
    assert found.std == pytest.approx((2 / 3) ** 0.5)
    assert found.upper == pytest.approx((2 / 1.00517) ** 0.5, rel=1e-4)
    assert pooled([[91.0], [92.0]]) is None
    assert pooled([[91.0, 91.0]]) is None


def test_the_upper_limit_is_above_the_true_spread_four_times_in_five() -> None:
    draws = np.random.default_rng(1).normal(0.0, 1.0, size=(4_000, 3, 3)).tolist()
    uppers = [found.upper for found in map(pooled, draws) if found is not None]
    assert np.mean([upper > 1.0 for upper in uppers]) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("effect", "n"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_published_sample_sizes_of_two_sample_t(effect: float, n: int) -> None:
    assert seeds_for(effect, 1.0) == n  # Cohen (1988), two-sided 5 %, power 0.8
    assert power_above(effect, 1.0, n) >= 0.8 > power_above(effect, 1.0, n - 1)


def test_the_rules_decide_as_often_as_planned() -> None:
    random, draws = np.random.default_rng(2), 3_000
    n = seeds_for(1.0, 1.0) or 0
    a, b = (random.normal(centre, 1.0, size=(draws, n)).tolist() for centre in (1.0, 0.0))
    found = [directional(welch(one, other), 1.0) for one, other in zip(a, b, strict=True)]
    assert np.mean([verdict.startswith("supported") for verdict in found]) == pytest.approx(
        power_above(1.0, 1.0, n), abs=0.03
    )
    n = seeds_for(1.0, 1.0, on_par=True) or 0
    a, b = (random.normal(0.0, 1.0, size=(draws, n)).tolist() for _ in range(2))
    found = [on_par(welch(one, other), 1.0) for one, other in zip(a, b, strict=True)]
    assert np.mean([verdict == "supported" for verdict in found]) == pytest.approx(power_on_par(1.0, 1.0, n), abs=0.03)


def test_images_ask_for_more_seeds_and_may_forbid_an_answer() -> None:
    assert seeds_for(1.0, 1.0, images=Images(lasting=0.02)) == 20
    assert seeds_for(1.0, 1.0, images=Images(lasting=0.2)) is None  # 0.45 points, whatever the seeds
    assert seeds_for(0.01, 1.0) is None


def test_the_parts_of_the_variance_of_images_add_up() -> None:
    random = np.random.default_rng(3)
    chances = random.beta(4.0, 1.0, size=(2, 2_000))
    bits = random.random((2, 4, 2_000)) < chances[:, None]
    found = images_of(bits[0], bits[1])
    assert found.lasting + found.by_seed / 4 == pytest.approx(image_variance(bits[0], bits[1]))
    true = 1e4 * (chances[0] - chances[1]).var() / 2_000
    assert found.lasting == pytest.approx(true, rel=0.2)


def test_seeds_for_a_share() -> None:
    # Clopper and Pearson: 6 of 6, 8 of 9, 10 of 12 lie above one half, 5 of 5 and 9 of 12 do not. Of 12 at 0.9 at
    # least 10 with 0.889; 8 of 9 with 0.775, 9 of 10 with 0.736 and 10 of 11 with 0.697 are too seldom.
    assert (deciding(5), deciding(6), deciding(9), deciding(12)) == (None, 6, 8, 10)
    assert seeds_for_share(0.9) == (12, 10)
    assert seeds_for_share(1.0) == (6, 6)
    assert structure(share(10, 12)) == "supported"
    assert structure(share(9, 12)) == "undecided"
    assert seeds_for_share(0.501) is None


def invoke(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", "--results", str(folder), *arguments])


def pilot(folder: Path, *, bits: bool = False) -> Store:
    """Three seeds of both rows under `quick`: squares 0.02 + 0.02 over 4 degrees of freedom, a spread of 0.1."""
    random = np.random.default_rng(4)
    store = store_with(folder)
    for row in ROWS:
        for seed, top1 in enumerate((90.0, 90.1, 90.2)):
            record = make_record(spec_of(row, protocol="quick"), seed, top1)
            if bits:
                kept = base64.b64encode(np.packbits(random.random(10_000) < 0.9).tobytes()).decode()
                record = record.model_copy(update={"correct_bits": kept}).signed()
            put(store, record)
    return store


def test_a_plan_from_a_pilot_start_to_finish(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    found = invoke(tmp_path, "--claim", CLAIM, "--spread-from", "quick", "--write", "first")
    assert found.exit_code == 0, found.output
    [plan] = plans(tmp_path)
    assert problems(tmp_path) == []
    upper = 0.2 / 1.64878**0.5  # chi-square, 20 % of 4
    assert plan.spreads[0].upper == pytest.approx(upper, rel=1e-4)
    assert len(plan.spreads[0].records) == 6
    assert plan.n == seeds_for(0.1, upper)
    assert plan.seeds == tuple(range(plan.n))
    assert (plan.claim, plan.asked.protocol, plan.asked.source) == (CLAIM, "paper", "canonical")
    command = f"reproduce table2 --rows 'EffConv-20 0.66M,FlexNet-16' --seeds 0..{plan.n - 1} --protocol paper"
    assert command in found.output

    for seed in plan.seeds[:-1]:
        put(store, *(make_record(spec_of(row), seed) for row in ROWS))
    late = make_record(spec_of(ROWS[0]), plan.seeds[-1])
    put(store, late)
    [begun] = standings(tmp_path, CLAIM)
    assert not begun.complete
    assert begun.missing == (f"FlexNet-16, seed {plan.seeds[-1]}",)
    assert f"{2 * plan.n - 1} of {2 * plan.n} runs have a record, no verdict" in begun.text
    put(store, make_record(spec_of(ROWS[1]), plan.seeds[-1], status="diverged"))  # an answer as well
    assert standing(plan, Recorded(tmp_path)).complete

    # More seeds need another plan, of seeds that are nobody's; both are shown.
    again = invoke(tmp_path, "--claim", CLAIM, "--spread-from", "quick", "--write", "second")
    assert f"planned before: plan first of {plan.written[:10]}" in again.output
    assert [one.name for one in plans(tmp_path)] == ["first", "second"]
    assert plans(tmp_path)[1].seeds[0] == plan.n


def test_a_second_plan_leaves_the_first_its_seeds_even_before_any_run(tmp_path: Path) -> None:
    options = ("--claim", "f3c-first-layers", "--steps", "300", "--write")
    assert invoke(tmp_path, *options, "one").exit_code == 0
    assert invoke(tmp_path, *options, "two").exit_code == 0
    assert plans(tmp_path)[1].seeds == tuple(range(12, 24))
    clash = invoke(tmp_path, *options, "three", "--first-seed", "5")
    assert clash.exit_code == 1 and "seed 5 is taken by plan one" in clash.output


def test_a_run_that_began_before_its_plan_voids_it(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    invoke(tmp_path, "--claim", CLAIM, "--spread-from", "quick", "--write", "first")
    [plan] = plans(tmp_path)
    old = make_record(spec_of(ROWS[0]), 1)
    clock = old.clock.model_copy(update={"started": "2001-01-01T00:00:00Z"})
    put(store, old.model_copy(update={"clock": clock}).signed())
    found = standing(plan, Recorded(tmp_path))
    assert found.early == ("EffConv-20 0.66M, seed 1",)
    assert "void" in found.text and not found.complete


def test_seeds_with_a_record_are_not_planned(tmp_path: Path) -> None:
    store = pilot(tmp_path)
    put(store, make_record(spec_of(ROWS[1]), 7))
    options = ("--claim", CLAIM, "--spread", "0.05", "--json")
    assert json.loads(invoke(tmp_path, *options).output)["seeds"][0] == 8
    clash = invoke(tmp_path, *options, "--first-seed", "4")
    assert clash.exit_code == 1 and "seed 7 is taken by a record of FlexNet-16" in clash.output


def test_the_images_of_the_pilot_count(tmp_path: Path) -> None:
    pilot(tmp_path, bits=True)
    options = ("--claim", "t2-plugged-accuracy", "--spread", "0.3", "--spread-from", "quick", "--json")
    plain: dict[str, Any] = json.loads(invoke(tmp_path, *options).output)
    assert all(one["images_lasting"] == 0.0 for one in plain["comparisons"])  # no pilot of these rows
    assert plain["n"] == max(one["n"] for one in plain["comparisons"])
    mine = ("--claim", CLAIM, "--spread", "0.05", "--json")
    found = json.loads(invoke(tmp_path, *mine, "--spread-from", "quick").output)
    assert found["comparisons"][0]["images_by_seed"] > 0.0
    assert found["n"] > json.loads(invoke(tmp_path, *mine).output)["n"]


def test_a_plan_is_written_once_and_a_change_by_hand_is_named(tmp_path: Path) -> None:
    options = ("--claim", CLAIM, "--spread", "0.05", "--write")
    assert invoke(tmp_path, *options, "first").exit_code == 0
    twice = invoke(tmp_path, *options, "first.json")
    assert twice.exit_code == 1 and "written once" in twice.output
    path = tmp_path / "plans" / "first.json"
    path.write_text(path.read_text().replace('"smallest": 0.1', '"smallest": 0.3'))
    assert plans(tmp_path) == []
    [line] = problems(tmp_path)
    assert line.startswith("plans/first.json: its content does not match its digest")
    assert "not read: plans/first.json" in invoke(tmp_path).output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--claim", "nothing"), "no claim has the id 'nothing'"),
        (("--claim", CLAIM), "run two seeds of a row, or give --spread POINTS"),
        (("--claim", "t2-flexnet-time"), "is of kind time"),
        (("--claim", "w-challenging"), "plan each of t3-flexnet-accuracy"),
        (("--claim", CLAIM, "--spread", "0"), "no deviation in points"),
        (("--claim", CLAIM, "--spread", "5"), "1000 seeds an arm do not settle 0.1 points"),
        (("--claim", CLAIM, "--spread", "0.1", "--steps", "10"), "has no accuracy"),
        (("--claim", CLAIM, "--spread", "0.1", "--write", "../first"), "give a plain name"),
        (("--claim", CLAIM, "--spread", "0.1", "--protocol", "long"), "no protocol is named 'long'"),
        (("--claim", "f2-fifth", "--share", "0.5"), "not above one half"),
        (("--claim", "f2-flexconv-growth", "--steps", "10"), "learns its sizes while it is trained"),
        (("--claim", "f2-fifth", "--smallest", "1"), "a claim has its own"),
        (("--write", "first"), "add --claim ID"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    found = invoke(tmp_path, *options)
    assert found.exit_code in (1, 2)
    assert said in found.output
    assert len(found.output.splitlines()) == 1
    assert not (tmp_path / "plans").exists()


def test_the_overview_lists_spreads_and_plans(tmp_path: Path) -> None:
    pilot(tmp_path)
    invoke(tmp_path, "--claim", "f2-fifth", "--write", "fifth")
    text = invoke(tmp_path).output
    assert "deviation between seeds 0.100 points" in text and "CIFAR-10, quick, canonical: 2 cells, 4 degrees" in text
    assert "f2-fifth: plan fifth" in text
    assert json.loads(invoke(tmp_path, "--smallest", "0.5", "--json").output)["spreads"][0]["n"] == seeds_for(
        0.5, 0.2 / 1.64878**0.5
    )


def test_size_learning_alone_follows_a_plan_of_so_many_steps(tmp_path: Path) -> None:
    said = invoke(tmp_path, "--claim", "f3c-first-layers", "--steps", "300", "--write", "sizes").output
    how = "--labels true --steps 300 --seeds 0..11"
    assert f"reproduce controls --dataset cifar10 --row 'EffConv-20 0.20M' {how}" in said
    [plan] = plans(tmp_path)
    store = SizeStore(tmp_path)
    for row in ("EffConv-20 0.10M", "EffConv-20 0.20M"):
        for seed in plan.seeds:
            store.write(size_record(row, seed, steps=300))
    assert standing(plan, Recorded(tmp_path)).complete
    other = plan.model_copy(update={"asked": plan.asked.model_copy(update={"steps": 301})})
    assert len(standing(other, Recorded(tmp_path)).missing) == 24


def size_record(row: str, seed: int, *, steps: int) -> SizeRecord:
    spec = size_spec("cifar10", steps=steps, row=row)
    return SizeRecord(
        protocol_version=PROTOCOL_VERSION,
        case=SizeCase(spec=spec, arm="true", seed=seed),
        outcome=Outcome(status="finished"),
        sizes={"layer1.0.conv1": 3},
        snapped=Snapped(soft=[3.1], rounded=[3], moved=[0], error_before=0.0, error_after=0.0, differs_from_initial=0),
        params=1,
        history=[],
        clock=SizeClock(
            started="2040-01-01T00:00:00+00:00", finished="2040-01-01T00:01:00+00:00", seconds=1.0, device="cpu",
            shared_device=False,
        ),
        machine="0123456789ab",
        data=origin(spec_of(row, "figure3")),
        code={"commit": "0" * 40, "dirty": False},
    )  # fmt: skip
