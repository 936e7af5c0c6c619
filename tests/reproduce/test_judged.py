"""Verdicts and indications from made-up records: what may decide, what may not, and what is refused."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reproduce import claims, study_plans
from reproduce.cli import main
from reproduce.controlling import size_spec
from reproduce.records import DataOrigin, Outcome, RunRecord, Snapped
from reproduce.report import claims_text
from reproduce.report.evidence import Evidence
from reproduce.report.evidence_mask import mask
from reproduce.report.evidence_sizes import holds
from reproduce.report.judged import Judgement, judged, parts_of
from reproduce.report.verdicts import VERDICTS
from reproduce.size_records import Arm, SizeCase, SizeClock, SizeRecord, SizeStore
from reproduce.specs import PROTOCOL_VERSION
from reproduce.store import sha256_of, write_atomically
from reproduce.study_plans import Asked, PlannedRow, StudyPlan
from tests.reproduce.factory import JPEG, make_record, put, spec_of, store_with
from tests.reproduce.test_timing_columns import pair_timing, row_timing, timed

OURS, FLEXNET, RESNET = "EffConv-20 0.66M", "FlexNet-16", "CIFARResNet-44"
LEARNED = [5, 3, 4, 4, 3, 5, 5, 3, 5, 4, 5, 5, 4, 6, 5, 5, 4, 4]  # the 14th learned layer is the largest
ROOT = Path(__file__).parents[2]


def runs(row: str, accuracies: Sequence[float], protocol: str = "paper", **changes: Any) -> list[RunRecord]:
    source = changes.pop("source", "canonical")
    spec = spec_of(row, "table2", protocol, source=source)
    return [make_record(spec, seed, accuracy, **changes) for seed, accuracy in enumerate(accuracies)]


def one(folder: Path, name: str) -> Judgement:
    return next(found for found in judged(folder) if found.claim.id == name)


def reproduce(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["claims", *arguments])


# ------------------------------------------------------------------------------------------------------------ states
def test_every_claim_has_a_state_without_any_record(tmp_path: Path) -> None:
    found = judged(tmp_path)
    assert [each.claim.id for each in found] == [claim.id for claim in claims.load()]
    for each in found:
        assert each.verdict in VERDICTS and each.why
        assert each.settle or each.verdict in ("supported", "supported but small", "contradicted")
        if each.claim.kind in ("accuracy", "time", "trend", "structure"):
            assert each.verdict == "not run"


def test_a_claim_that_nothing_judges_is_an_error(tmp_path: Path) -> None:
    from reproduce.report.analyses import look

    strange = claims.load()[0].model_copy(update={"kind": "mechanism", "rule": "gone"})
    with pytest.raises(ValueError, match="nothing judges t1-highest"):
        look(strange)


# ---------------------------------------------------------------------------------------------------------- accuracy
@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([93.0, 93.1, 93.2], [92.0, 92.1, 92.2], "supported"),
        ([92.0, 92.1, 92.2], [93.0, 93.1, 93.2], "contradicted"),
        ([92.0, 93.0, 94.0], [92.1, 92.9, 93.9], "undecided"),
        ([92.06, 92.061, 92.062], [92.0, 92.001, 92.002], "supported but small"),
    ],
)
def test_paper_runs_on_canonical_data_decide(
    tmp_path: Path, ours: list[float], theirs: list[float], verdict: str
) -> None:
    store_with(tmp_path, *runs(OURS, ours), *runs(FLEXNET, theirs))
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert (found.verdict, found.smallest, found.indications) == (verdict, 0.1, ())
    assert found.effect is not None and found.effect.n == (3, 3) and found.effect.method.startswith("Welch")
    assert len(found.records) == 6 and all((tmp_path / path).is_file() for path in found.records)
    assert "n = 3 and 3" in found.why and bool(found.settle) == (verdict == "undecided")
    assert "EffConv-20 0.66M 92.35 ± 0.05" in found.reproduced and "FlexNet-16 92.2 ± 0.1" in found.reproduced


@pytest.mark.parametrize("changes", [{"protocol": "quick"}, {"source": JPEG}, {"protocol": "paper-sgd"}])
def test_a_shorter_protocol_or_other_images_are_an_indication_and_never_strict(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    store_with(tmp_path, *runs(OURS, [80.0, 80.1, 80.2], **changes), *runs(FLEXNET, [90.0, 90.1, 90.2], **changes))
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert (found.verdict, found.effect, found.reproduced, found.records) == ("not run", None, "", ())
    (indication,) = found.indications
    assert "-10.00 points" in indication.text and indication.seeds == "seeds 0..2"
    assert indication.protocol.startswith(changes.get("protocol", "paper")) and "training images" in indication.data
    assert reproduce("--results", str(tmp_path), "--strict", "--only", "t2-flexnet-accuracy").exit_code == 0


def test_settings_are_never_mixed(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1]), *runs(FLEXNET, [92.0, 92.1], source=JPEG))
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert (found.verdict, found.indications) == ("not run", ())


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [95.0]), *runs(FLEXNET, [90.0, 90.1]))
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert found.verdict == "undecided" and "one seed has no interval" in found.why and "reproduce plan" in found.settle


def test_a_sentence_of_several_parts_needs_them_all(tmp_path: Path) -> None:
    store = store_with(tmp_path, *runs(OURS, [92.0, 92.1, 92.2]), *runs("CKCNN-16", [72.0, 72.1, 72.2]))
    found = one(tmp_path, "t2-ckcnn-accuracy")
    assert found.verdict == "not run" and "2 of 3 comparisons have no runs" in found.why
    put(store, *runs("CKCNN-7", [71.0, 71.1, 71.2]), *runs("CKCNN_MAGNet-16", [95.0, 95.1, 95.2]))
    found = one(tmp_path, "t2-ckcnn-accuracy")
    assert found.verdict == "contradicted" and found.effect is not None and found.effect.estimate < 0
    assert one(tmp_path, "w-tradeoff").verdict == "contradicted"


def test_images_add_to_the_variance(tmp_path: Path) -> None:
    """Two networks that differ on many images: the bits widen the interval."""
    draw = random.Random(0)

    def with_bits(record: RunRecord) -> RunRecord:
        raw = bytes(draw.randrange(256) for _ in range(record.data.test_images // 8))
        changed = record.model_copy(update={"correct_bits": base64.b64encode(raw).decode()})
        return changed.signed()

    plain = [*runs(OURS, [93.0, 93.1]), *runs(FLEXNET, [92.0, 92.1])]
    store_with(tmp_path / "plain", *plain)
    store_with(tmp_path / "bits", *map(with_bits, plain))
    narrow, wide = (one(tmp_path / name, "t2-flexnet-accuracy").effect for name in ("plain", "bits"))
    assert narrow is not None and wide is not None and wide.method == "Welch over seeds and images"
    assert wide.high - wide.low > narrow.high - narrow.low and wide.estimate == narrow.estimate


def test_p_values_are_adjusted_within_the_fixed_family(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1, 93.2]), *runs(FLEXNET, [92.0, 92.1, 92.2]))
    found = one(tmp_path, "t2-flexnet-accuracy")
    tests = [name for claim in claims.load() if claim.family == "table2" for name in parts_of(claim)]
    assert found.effect is not None and found.effect.p is not None
    assert found.adjusted_p == pytest.approx(min(1.0, found.effect.p * len(tests)))


# ------------------------------------------------------------------------------------------------------ what is refused
def test_a_seed_twice_is_refused(tmp_path: Path) -> None:
    """A copy of a record from before the spec had a field: another id, the same spec and seed."""
    store = store_with(tmp_path, *runs(OURS, [93.0, 93.1]), *runs(FLEXNET, [92.0, 92.1]))
    old = json.loads(store.path(spec_of(OURS), 0).read_text(encoding="utf-8"))
    del old["spec"]["engine"]
    old["spec_id"] = sha256_of({"spec": old["spec"], "protocol_version": PROTOCOL_VERSION})
    old["run_id"] = f"{old['spec_id'][:16]}-s0"
    old["digest"] = sha256_of({key: value for key, value in old.items() if key != "digest"})
    write_atomically(tmp_path / "runs" / "cifar10" / "old" / f"{old['run_id']}.json", old)
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert found.verdict == "not run" and "seed 0 is there more than once" in found.why


def test_an_edited_record_is_named_and_not_used(tmp_path: Path) -> None:
    store = store_with(tmp_path, *runs(OURS, [92.0, 92.1, 92.2]), *runs(FLEXNET, [93.0, 93.1, 93.2]))
    path = store.path(spec_of(OURS), 1)
    path.write_text(path.read_text(encoding="utf-8").replace("92.1", "99.9"), encoding="utf-8")
    result = reproduce("--results", str(tmp_path), "--only", "t2-flexnet-accuracy")
    assert "does not match its digest" in result.stderr and "n = 2 and 3" in result.stdout
    assert "does not match its digest" in claims_text.pages(tmp_path)[0].text


# -------------------------------------------------------------------------------------------------------------- time
def pairs(value: float, **changes: Any) -> list[Any]:
    """Levels ii and iii at two kernel sizes; iii is the lower."""
    return [pair_timing(level, value * factor, kernel_size=size, **changes)
            for size in (5, 9) for level, factor in (("ii", 1.2), ("iii", 1.0))]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "verdict"), [(8.0, "supported"), (6.5, "supported but small"), (6.0, "contradicted")]
)
def test_the_lower_of_levels_ii_and_iii_on_a_gpu_decides(tmp_path: Path, value: float, verdict: str) -> None:
    timed(tmp_path, *pairs(value))
    found = one(tmp_path, "t2-flexnet-time")
    assert (found.verdict, found.indications, len(found.records)) == (verdict, (), 2)
    assert found.effect is not None and found.effect.estimate == pytest.approx(value / 7 - 0.9)
    assert all((tmp_path / path).is_file() and "pair-iii" in path for path in found.records)
    assert "Example GPU" in found.why and "at 5 x 5" in found.why and "the sentence says 7" in found.why


def test_kernel_sizes_that_disagree_decide_nothing(tmp_path: Path) -> None:
    timed(tmp_path, *(pair_timing(level, value, kernel_size=size)
                      for size, value in ((5, 2.0), (15, 20.0)) for level in ("ii", "iii")))  # fmt: skip
    assert one(tmp_path, "t2-flexnet-time").verdict == "undecided"


@pytest.mark.parametrize("changes", [{"control": 1.2}, {"pairs": 5}])
def test_a_ratio_that_is_not_to_be_trusted_decides_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    timed(tmp_path, *pairs(20.0, **changes))
    assert one(tmp_path, "t2-flexnet-time").verdict == "undecided"


def test_a_missing_level_and_an_invalid_pair_decide_nothing(tmp_path: Path) -> None:
    timed(tmp_path, pair_timing("ii", 20.0), pair_timing("iii", 5.0, invalid="another process was there"))
    found = one(tmp_path, "t2-flexnet-time")
    assert found.verdict in ("not run", "undecided") and found.indications == ()


def test_a_cpu_is_an_indication_that_names_the_machine(tmp_path: Path) -> None:
    timed(tmp_path, *pairs(3.0, device="cpu"))
    found = one(tmp_path, "t2-flexnet-time")
    assert found.verdict == "not run" and "GPU" in found.settle
    assert "Example CPU (2 cores)" in found.indications[0].protocol


def test_rows_beside_each_other_never_decide_a_ratio(tmp_path: Path) -> None:
    timed(tmp_path, row_timing("EffConv-44 0.66M", device="cuda"), row_timing(RESNET, None, 10.0, device="cuda"))
    found = one(tmp_path, "t2-44-time")
    assert found.verdict == "not run" and "the fairness ladder has none" in found.settle
    assert "no interval" in found.indications[0].text


def test_seconds_over_depth(tmp_path: Path) -> None:
    """A layer more costs half a layer of EffConv-20: linear, rising, a slope of a half."""
    depths = range(20, 57, 6)
    noise = (0.01, -0.02, 0.01, 0.01, -0.02, 0.02, -0.01)
    timed(tmp_path, *(
        row_timing(f"EffConv-{depth} 0.66M", value, value, experiment="figure3", device="cuda")
        for depth, bump in zip(depths, noise, strict=True) for value in [20 + (depth - 20) / 2 + bump]
    ))  # fmt: skip
    found = {each.claim.id: each for each in judged(tmp_path)}
    assert {found[name].verdict for name in ("f3a-time", "f3a-linear", "f3a-slope")} == {"supported"}
    assert "slope 0.50" in found["f3a-slope"].why


# ------------------------------------------------------------------------------------------------- trends, structures
def test_accuracy_over_depth_and_its_saturation(tmp_path: Path) -> None:
    made = []
    for depth, accuracy in zip(range(20, 57, 6), (92.0, 92.3, 92.6, 92.9, 93.2, 93.4, 93.4), strict=True):
        spec = spec_of(f"EffConv-{depth} 0.66M", "figure3")
        made += [make_record(spec, seed, accuracy + 0.01 * (seed - 1)) for seed in range(3)]
    store_with(tmp_path, *made)
    found = {each.claim.id: each for each in judged(tmp_path)}
    assert found["f3a-accuracy"].verdict == found["f3a-saturation"].verdict == "supported"
    store_with(tmp_path / "part", *made[:9])
    part = one(tmp_path / "part", "f3a-accuracy")
    assert part.verdict == "not run" and "3 of 7 rows have runs" in part.why


def test_structure_needs_both_ways_of_counting_and_enough_seeds(tmp_path: Path) -> None:
    spec = spec_of(OURS)
    sizes = [3, 3, 3, 3, 7, *[4] * 13]
    for seeds, verdict in ((3, "undecided"), (9, "undecided")):  # one way of counting says 0 of n
        store_with(tmp_path / str(seeds), *(make_record(spec, seed, sizes=sizes) for seed in range(seeds)))
        found = one(tmp_path / str(seeds), "f2-fifth")
        assert found.verdict == verdict
        assert f"0 of {seeds} seeds" in found.why and f"{seeds} of {seeds} seeds" in found.why
    store_with(tmp_path / "other", *(make_record(spec, seed, sizes=LEARNED) for seed in range(9)))
    assert one(tmp_path / "other", "f2-fifth").verdict == "contradicted"


def test_indices_with_and_without_the_fixed_layer() -> None:
    fifth = next(claim for claim in claims.load() if claim.id == "f2-fifth")
    assert holds(fifth, [[3, 3, 3, 3, 7, 3]], False) and not holds(fifth, [[3, 3, 3, 3, 7, 3]], True)
    assert holds(fifth, [[3, 3, 3, 7, 3, 3]], True) and not holds(fifth, [[3, 3, 3, 7, 7, 3]], True)
    first = next(claim for claim in claims.load() if claim.id == "f3c-first-layers")
    small, large = [3, 4, 2, 2], [3, 4, 5, 5]
    assert holds(first, [small, large], True) and not holds(first, [small, large], False)
    assert not holds(first, [large, large], True)  # deeper ones must differ


def learned(
    seed: int, budget: str, sizes: Sequence[int], steps: int = 100, *, arm: Arm = "true", soft: float = 0.0
) -> SizeRecord:
    """Size learning alone; `soft`: how far v* lies above the integers."""
    spec = size_spec("cifar10", steps=steps, row=f"EffConv-20 {budget}")
    names = [f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3) for block in range(3) for conv in (1, 2)]
    return SizeRecord(
        protocol_version=PROTOCOL_VERSION, case=SizeCase(spec=spec, arm=arm, seed=seed),
        outcome=Outcome(status="finished"), sizes=dict(zip(names, sizes, strict=True)),
        snapped=Snapped(soft=[size + soft for size in sizes], rounded=list(sizes), moved=[0] * 18, error_before=0.0,
                        error_after=0.0, differs_from_initial=0),
        params=1, history=[], machine="0123456789ab", code={},
        clock=SizeClock(started="2030-01-01T00:00:00Z", finished="2030-01-01T00:10:00Z", seconds=1.0, device="cpu",
                        shared_device=False),
        data=DataOrigin(name="cifar10", source="canonical", title="CIFAR-10", canonical=True, train_images=50_000,
                        test_images=10_000, files=[]),
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "verdict"), [(7820, "supported"), (100, "not run")])
def test_size_learning_alone_decides_at_full_length(tmp_path: Path, steps: int, verdict: str) -> None:
    store = SizeStore(tmp_path)
    for seed in range(6):
        store.write(learned(seed, "0.10M", LEARNED, steps))
        store.write(learned(seed, "0.20M", [*LEARNED[:6], *[4] * 12], steps))
    found = one(tmp_path, "f3c-first-layers")
    assert found.verdict == verdict and len(found.indications) == (verdict == "not run")
    text = found.why if verdict == "supported" else found.indications[0].text
    assert text.startswith("6 of 6 seeds (share 0.54 to 1.00) with the first layer counted")


@pytest.mark.parametrize(
    ("true", "steps", "verdict"), [(0.4, 7820, "supported"), (0.0, 7820, "undecided"), (0.4, 100, "not run")]
)
def test_the_label_test_says_whether_sizes_are_learned_from_data(
    tmp_path: Path, true: float, steps: int, verdict: str
) -> None:
    store, draw = SizeStore(tmp_path), random.Random(1)
    for seed in range(6):
        for arm, soft in (("true", true), ("shuffled", 0.0), ("reshuffled", 0.0)):
            noise = draw.uniform(-0.01, 0.01)
            store.write(learned(seed, "0.66M", LEARNED, steps, arm=arm, soft=soft + noise))  # type: ignore[arg-type]
    found = one(tmp_path, "m-sizes-learned")
    assert found.verdict == verdict
    text = found.why if verdict != "not run" else found.indications[0].text
    assert ("not detected at this length" in text and "would have been" in text) == (true == 0.0)


# ------------------------------------------------------------------------------------------------------------- plans
def plan(folder: Path, name: str, seeds: Sequence[int], written: str = "2029-01-01T00:00:00Z") -> None:
    rows = tuple(PlannedRow(experiment="table2", row=row) for row in (OURS, FLEXNET))
    study_plans.write(folder, StudyPlan(
        name=name, claim="t2-flexnet-accuracy", rule="higher", rows=rows, n=len(seeds), seeds=tuple(seeds),
        dataset="cifar10", asked=Asked(protocol="paper", source="canonical"), power=0.8, written=written,
    ))  # fmt: skip


def test_a_plans_verdict_is_of_exactly_its_seeds_and_earlier_plans_are_shown(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1, 93.2, 80.0]), *runs(FLEXNET, [92.0, 92.1, 92.2, 99.0]))
    assert one(tmp_path, "t2-flexnet-accuracy").verdict == "undecided"
    plan(tmp_path, "first", [0, 1, 2])
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert found.verdict == "supported" and "plan first" in found.why and "n = 3 and 3" in found.why
    plan(tmp_path, "second", [0, 1, 2, 3], "2029-06-01T00:00:00Z")
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert found.verdict == "undecided" and "plan second" in found.why
    assert any("plan first" in each.text for each in found.indications)


def test_no_verdict_before_all_of_a_plans_runs(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1, 93.2]), *runs(FLEXNET, [92.0, 92.1, 92.2]))
    plan(tmp_path, "more", range(5))
    found = one(tmp_path, "t2-flexnet-accuracy")
    assert found.verdict == "not run" and "no verdict before all have" in found.why and found.indications


# ---------------------------------------------------------------------------------------------------- counts, equations
def test_flexconvs_passes_are_counted_in_both_variants(tmp_path: Path) -> None:
    found = one(tmp_path, "m-flexconv-passes")
    assert found.verdict == "contradicted"
    assert "as its authors' code does it (crop first)" in found.why and "25 of N x N = 1,024" in found.why
    assert "as the paper describes it the sentence holds" in found.why
    assert "225 of N x N = 9,216" in one(tmp_path, "t3-passes").why


def test_counts_of_the_networks_decide(tmp_path: Path) -> None:
    found = {each.claim.id: each for each in judged(tmp_path)}
    assert found["t4-depth"].verdict == "contradicted" and "FlexNet-5 12" in found["t4-depth"].why
    assert found["t2-plugged-parameters"].verdict == "supported"
    assert found["t4-parameters"].verdict == "undecided"  # what 0.50M counts decides it
    assert found["f3b-range"].verdict == "contradicted" and "0.37 and 1.85" in found["f3b-range"].why


def test_the_mask_by_hand() -> None:
    assert mask(3.0, 3, "printed")[2][2] == pytest.approx(0.607, abs=1e-3)
    assert mask(3.0, 3, "printed")[0][0] == mask(3.0, 3, "printed")[1][1]
    assert mask(3.0, 3, "pixel")[0][0] == pytest.approx(0.801, abs=1e-3)
    assert mask(7.0, 7, "pixel")[0][0] == pytest.approx(0.693, abs=1e-3)


# ---------------------------------------------------------------------------------------------------------- the command
def test_strict_fails_on_a_verdict_and_names_it(tmp_path: Path) -> None:
    result = reproduce("--results", str(tmp_path), "--strict", "--only", "t4-depth")
    assert result.exit_code == 3 and result.stderr.strip() == "contradicted: t4-depth"
    assert reproduce("--results", str(tmp_path), "--only", "t4-depth").exit_code == 0


def test_an_unknown_id_names_near_ones(tmp_path: Path) -> None:
    result = reproduce("--results", str(tmp_path), "--only", "t2-flexnet-tim")
    assert result.exit_code == 2 and "t2-flexnet-time" in result.stderr and result.stdout == ""


def test_json_is_complete(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1]), *runs(FLEXNET, [92.0, 92.1]))
    found = json.loads(reproduce("--results", str(tmp_path), "--json").stdout)
    assert len(found) == len(claims.load())
    entry = next(each for each in found if each["claim"]["id"] == "t2-flexnet-accuracy")
    assert entry["claim"]["compare"][0]["b"] == {"experiment": "table2", "row": FLEXNET, "metric": "accuracy"}
    assert entry["effect"]["n"] == [2, 2] and entry["verdict"] in VERDICTS


def test_the_page_names_what_it_rests_on_and_is_absent_without_records(tmp_path: Path) -> None:
    assert claims_text.pages(tmp_path) == []
    store_with(tmp_path, *runs(OURS, [93.0, 93.1], protocol="quick"), *runs(FLEXNET, [92.0, 92.1], protocol="quick"))
    (page,) = claims_text.pages(tmp_path)
    assert page.name == "claims.md" and "*Indication:*" in page.text and "## Sentences that are left out" in page.text
    assert page.text == claims_text.pages(tmp_path)[0].text


def test_smoke_tests_make_no_page(tmp_path: Path) -> None:
    spec = spec_of(OURS, "table2", "tiny", source="digits")
    store_with(tmp_path, make_record(spec))
    assert claims_text.pages(tmp_path) == []


def test_what_a_record_holds_stays_on_one_line(tmp_path: Path) -> None:
    record = runs(OURS, [93.0], protocol="quick")[0]
    data = record.data.model_copy(update={"title": "a\n\n# b <script>\x1b[31m"})
    store_with(tmp_path, record.model_copy(update={"data": data}).signed())
    text = claims_text.pages(tmp_path)[0].text
    assert "a # b &lt;script>[31m" in text and "\x1b" not in text


def test_judging_never_imports_torch(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1]), *runs(FLEXNET, [92.0, 92.1]))
    code = f"""
import sys
from reproduce.cli import main
main(["claims", "--json", "--results", {str(tmp_path)!r}], standalone_mode=False)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_evidence_of_a_plans_seeds_is_of_these_alone(tmp_path: Path) -> None:
    store_with(tmp_path, *runs(OURS, [93.0, 93.1, 93.2]))
    term = next(claim for claim in claims.load() if claim.id == "t2-flexnet-accuracy").compare[0].a
    (arm,) = Evidence(tmp_path).limited([0, 2]).arms(term).values()
    assert arm.seeds == [0, 2]
