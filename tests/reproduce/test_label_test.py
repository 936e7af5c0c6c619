"""The label test: its p-values and rates, the records behind it, what a planted gradient does, and the pages."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import effconv
from reproduce import controlling, label_test
from reproduce.controlling import ControlsRequest, command, label_cases, size_spec
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.label_test import Question, detectable_shift, distance, gradient_ratio, questions, sign_flip_p
from reproduce.records import DataOrigin, Outcome, Snapped
from reproduce.report import labels
from reproduce.run import label_runs
from reproduce.run.label_runs import labelled, run_case, run_cases
from reproduce.run.models import build
from reproduce.run.size_controls import learner_of
from reproduce.run.size_learning import readings, settings
from reproduce.run.size_steps import FirstSteps, shuffled
from reproduce.run.streams import stream_seed
from reproduce.size_records import Arm, SizeCase, SizeClock, SizeRecord, SizeSpec, SizeStore
from reproduce.specs import PROTOCOL_VERSION, DataSpec, ModelSpec
from reproduce.store import Store
from tests.reproduce.factory import make_record, spec_of, store_with
from tests.reproduce.run_samples import Quiet, StopAt, context, learning, spec, synthetic

torch.set_num_threads(1)
SMALL = SizeSpec(
    model=ModelSpec(family="cifar_resnet", args={"depth": 8}),
    size_learning=learning(epochs=1),
    data=DataSpec(name="cifar10", source="digits", train_images=56, test_images=40),
    normalisation="imagenet",
    steps=6,  # an epoch and a half
)


def case(arm: Arm = "true", seed: int = 0, planted: float = 0.0, **changes: Any) -> SizeCase:
    return SizeCase(spec=SMALL.model_copy(update=changes), arm=arm, seed=seed, planted=planted)


def content(record: SizeRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"clock", "machine", "code", "digest"})


@pytest.mark.parametrize(
    ("x", "p"),
    [
        ([1.0, 2.0, 3.0], 1 / 8),
        ([3.0, -1.0], 2 / 4),
        ([1.0, -1.0], 3 / 4),  # the subsets {}, {-1} and both
        ([0.0, 0.0], 1.0),
        ([-1.0, -2.0, -3.0], 1.0),
        ([2.0, 1.0, 1.0, 1.0, -1.0], 5 / 32),  # {}, {-1} and each {1, -1}
        ([0.1, 0.2, -0.3], 5 / 8),  # a sum that rounding keeps from 0 is a tie: {}, {-.3}, {.1, -.3}, {.2, -.3}, all
    ],
)
def test_sign_flip_p_by_hand(x: list[float], p: float) -> None:
    assert sign_flip_p(x) == p


def test_distance_and_its_units() -> None:
    assert distance([3.0, 4.0], [3.5, 2.0]) == 1.25
    assert distance([5, 5, 5], [5, 5, 5]) == 0.0
    with pytest.raises(ValueError):
        distance([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at most 20"):
        sign_flip_p([1.0] * 21)


def experiment(rng: random.Random, seeds: int, effect: float, layers: int = 18) -> list[float]:
    """x of a learner whose sizes are mostly the start's (spread 1), shaken by chaos, the same kind in each arm."""
    found = []
    for _ in range(seeds):
        start = [rng.gauss(4.0, 1.0) for _ in range(layers)]
        chaos = rng.expovariate(1 / 0.3)  # some seeds are calm, some are not
        true, first, second = ([value + rng.gauss(0.0, chaos) for value in start] for _ in range(3))
        moved = [value + effect * (-1) ** layer for layer, value in enumerate(true)]
        found.append(distance(moved, first) - distance(second, first))
    return found


@pytest.mark.parametrize(("seeds", "nominal"), [(5, 1 / 32), (8, 12 / 256)])
def test_false_positives_come_at_the_nominal_rate(seeds: int, nominal: float) -> None:
    rng, runs = random.Random(7), 1000
    rate = sum(sign_flip_p(experiment(rng, seeds, 0.0)) <= label_test.LEVEL for _ in range(runs)) / runs
    assert abs(rate - nominal) < 3.3 * math.sqrt(nominal * (1 - nominal) / runs)


def test_a_clear_effect_is_seen_though_the_start_dominates() -> None:
    rng = random.Random(11)
    hits = [sign_flip_p(experiment(rng, 5, 0.8)) <= label_test.LEVEL for _ in range(200)]
    assert sum(hits) / 200 > 0.85


def test_the_detectable_shift_is_where_the_test_begins_to_see() -> None:
    rng = random.Random(3)
    for seeds in (5, 8):
        x = [rng.gauss(0.0, 1.0) for _ in range(seeds)]
        shift, centre = detectable_shift(x), sum(x) / seeds
        assert shift is not None and shift > 0
        for factor, seen in ((1.001, True), (0.999, False)):
            moved = [value - centre + factor * shift for value in x]
            assert (sign_flip_p(moved) <= label_test.LEVEL) == seen
    assert detectable_shift([1.0, 2.0, 3.0]) is None  # 1/8 is the least that three seeds can give
    assert detectable_shift([0.5] * 5) == 0.0


def test_arms_share_start_and_batches_and_differ_in_labels_alone() -> None:
    split = synthetic(train=57, size=8).train
    seen = {}
    for arm in ("true", "shuffled", "reshuffled", "planted"):
        one = case(arm, planted=1.0 if arm == "planted" else 0.0)  # type: ignore[arg-type]
        steps = FirstSteps(split=labelled(split, one), seed=0, learning=learning(), normalisation="cifar10", steps=6)
        seen[arm] = list(steps())
    assert [len(label) for _, label in seen["true"]] == [16, 16, 16, 9, 16, 16]  # into the second epoch
    for arm in ("shuffled", "reshuffled", "planted"):
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(seen["true"], seen[arm], strict=True))
    drawn = {arm: torch.cat([label for _, label in batches]).tolist() for arm, batches in seen.items()}
    assert drawn["true"] == drawn["planted"]
    assert len({tuple(drawn[arm]) for arm in ("true", "shuffled", "reshuffled")}) == 3
    assert torch.equal(labelled(split, case("shuffled")).labels, shuffled(split, 0).labels)  # as the controls have it
    again = labelled(split, case("reshuffled")).labels
    assert torch.equal(again.bincount(), split.labels.bincount())


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SizeRecord]:
    here = context(tmp_path_factory.mktemp("results"))
    cases = [case("true"), case("shuffled"), case("reshuffled"), case("planted", planted=0.5)]
    return {record.case.arm: record for record in run_cases(cases, here)}


def test_records_say_what_was_learned(arms: dict[str, SizeRecord]) -> None:
    starts = [record.history[0] for record in arms.values()]
    assert all(start["v"] == starts[0]["v"] and start["budget_grad"] == starts[0]["budget_grad"] for start in starts)
    assert starts[0]["class_grad"] != starts[1]["class_grad"] != starts[2]["class_grad"]
    for record in arms.values():
        assert record.params is not None and abs(record.params / 120_000 - 1) <= 0.01
        assert len(record.history) == SMALL.steps and record.data.train_images == 56
        assert {"v", "s", "class_grad", "budget_grad"} <= record.history[0].keys()
        assert record.sizes is not None and len(record.history[0]["class_grad"]) == len(record.sizes)
        assert record.clock.seconds > 0
    assert len({tuple(record.snapped.soft) for record in arms.values() if record.snapped}) == 4


def test_recorded_gradients_are_those_of_autograd_by_hand(arms: dict[str, SizeRecord]) -> None:
    """The first step anew: Eqs. 6 and 7 written out on the plain network of the first sizes, and Eq. 4's derivative."""
    run_spec, found = spec(learning(epochs=1)), arms["shuffled"].history[0]
    network = build(SMALL.model, "cifar10", stream_seed(0, "initialisation", "size_learning"))
    learner = learner_of(network, run_spec, settings(SMALL.size_learning, 0), readings(SMALL.size_learning))
    v = learner.size_predictor().detach().requires_grad_()
    s = [math.floor(value + 0.5) for value in v.tolist()]
    with torch.no_grad():
        raw = learner.kernel_predictor(s)
    plain = effconv.resize(network, dict(zip(learner.names, s, strict=True))).train()
    weights: dict[str, Tensor] = {
        name: parameter for name, parameter in network.named_parameters() if name.rsplit(".", 1)[0] not in learner.names
    }
    for layer, (name, kernel, size) in enumerate(zip(learner.names, raw, s, strict=True)):
        offset = torch.arange(1, size + 1) - (v[layer] + 1) / 2
        mask = torch.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / v[layer] ** 2)
        slot = f"{name}.weight" if f"{name}.weight" in dict(plain.named_parameters()) else f"{name}.1.weight"
        weights[slot] = mask * kernel
    from reproduce.run.digits import load_digits

    train, _, _ = load_digits("cifar10", 56, 40)
    batches = FirstSteps(
        split=shuffled(train, 0), seed=0, learning=SMALL.size_learning, normalisation="imagenet", steps=1
    )
    images, targets = next(batches())
    loss = F.cross_entropy(torch.func.functional_call(plain, weights, (images,)), targets)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-4)
    (class_grad,) = torch.autograd.grad(loss, v)
    assert class_grad.abs().max() > 1e-5
    assert found["class_grad"] == pytest.approx(class_grad.tolist(), rel=1e-2, abs=1e-6)
    p = sum(cost * size * size for cost, size in zip(learner.costs, s, strict=True))
    sign = 1 if p > 120_000 else -1
    budget_grad = [2.0 * sign * 2 * cost * size / p for cost, size in zip(learner.costs, s, strict=True)]
    assert found["budget_grad"] == pytest.approx(budget_grad, rel=1e-4)


def test_a_planted_gradient_moves_v_and_nothing_that_is_recorded_of_the_class(arms: dict[str, SizeRecord]) -> None:
    true, planted = arms["true"].history, arms["planted"].history
    assert planted[0]["class_grad"] == true[0]["class_grad"] and planted[0]["loss"] == true[0]["loss"]
    moved = [b - a for a, b in zip(true[-1]["v"], planted[-1]["v"], strict=True)]
    assert sum(moved[1::2]) > 0 > sum(moved[::2])  # added: v falls; taken off: it grows


def test_descend_adds_the_planted_gradient_to_the_other_two() -> None:
    given = settings(SMALL.size_learning, 0), readings(SMALL.size_learning)
    network = build(SMALL.model, "cifar10", 0)
    names = list(dict.fromkeys(learner_of(network, spec(learning()), *given).names))
    got = {}
    for planted in (None, [0.0] * 6, [1.0, -2.0, 3.0, 0.0, 0.5, 1.0]):
        torch.manual_seed(0)
        learner = effconv.SizeLearner(network, names, *given, planted=planted)
        v, _ = learner.soft_and_integer_sizes()
        v.retain_grad()
        _, budget_grad = learner.descend(v, torch.full_like(v, 0.25))
        assert v.grad is not None
        got[str(planted)] = (v.grad - budget_grad - 0.25).tolist()
    assert got["None"] == got[str([0.0] * 6)]
    assert got[str([1.0, -2.0, 3.0, 0.0, 0.5, 1.0])] == pytest.approx([1.0, -2.0, 3.0, 0.0, 0.5, 1.0], abs=1e-5)
    with pytest.raises(ValueError, match="6 layers"):
        effconv.SizeLearner(network, names, *given, planted=[1.0])


def test_resumed_equals_uninterrupted_and_is_run_once(tmp_path: Path, arms: dict[str, SizeRecord]) -> None:
    with pytest.raises(Interrupted):
        run_cases([case("planted", planted=0.5)], context(tmp_path, stop=StopAt(6)))  # inside the second epoch
    store = SizeStore(tmp_path)
    state = store.resume_dir(case("planted", planted=0.5)) / "size_learning.pt"
    assert state.exists() and store.records() == []
    quiet = Quiet()
    record = run_case(case("planted", planted=0.5), context(tmp_path, progress=quiet))
    assert 0 < len(quiet.updates) < SMALL.steps
    assert content(record) == content(arms["planted"]) and record.clock.resumed == 1
    assert not state.exists() and store.records() == [record]
    quiet = Quiet()
    assert run_case(case("planted", planted=0.5), context(tmp_path, progress=quiet)) == record
    assert quiet.updates == []


def test_a_damaged_record_is_named_and_never_overwritten(tmp_path: Path) -> None:
    store, record = SizeStore(tmp_path), made("true", 0, [3.0] * 18)
    path = store.write(record)
    assert path.relative_to(tmp_path).parts[:2] == ("sizes", "cifar10") and path.name.startswith("true-")
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"params": 1}))
    assert store.records() == [] and "digest" in store.problems[0]
    with pytest.raises(UserError, match="digest"):
        store.write(record)


@pytest.mark.slow
def test_side_by_side_equals_one_after_the_other(tmp_path: Path, arms: dict[str, SizeRecord]) -> None:
    quiet = Quiet()
    both = run_cases([case("true"), case("shuffled")], context(tmp_path, jobs=2, progress=quiet))
    assert [content(record) for record in both] == [content(arms["true"]), content(arms["shuffled"])]
    assert any(note.startswith("done") for note in quiet.notes)
    with pytest.raises(Interrupted):
        run_cases([case("true", 1), case("shuffled", 1)], context(tmp_path, jobs=2, stop=StopAt(1)))


def test_runs_from_two_kinds_of_machine_are_not_compared(tmp_path: Path) -> None:
    """Another rounding moves sizes by about as much as another shuffle: such a seed is left out, and named."""
    store, elsewhere = SizeStore(tmp_path), "ba9876543210"
    for seed in range(6):
        for arm, size in (("true", 4.0), ("shuffled", 3.0), ("reshuffled", 3.1)):
            record = made(arm, seed, [size] * 18)  # type: ignore[arg-type]
            moved = arm == "true" and seed == 2
            store.write(record.model_copy(update={"machine": elsewhere}).signed() if moved else record)
    (question,) = questions(store.records())
    assert question.verdict().seeds == (0, 1, 3, 4, 5) and question.apart() == [2]
    (page,) = labels.pages(tmp_path)
    assert "and seeds 0, 1, 3, 4, 5, a say of the labels" in page.text
    assert "Left out of the tests, seed 2: their runs come from several kinds of machine" in page.text
    request = ControlsRequest(train_images=10_000, seeds=range(7), planted=1e-3)
    assert label_runs.begun_elsewhere(label_cases(request, "other-0123abcd"), store) == [0, 1, 2, 3, 4, 5]
    complete = label_cases(replace(request, planted=None), "other-0123abcd")
    assert label_runs.begun_elsewhere(complete, store) == []  # seed 6 has no run from anywhere


def test_the_page_says_in_which_layers_true_labels_move_the_sizes(tmp_path: Path) -> None:
    """The first layer smaller by 1 and by 2 at two seeds, the second as another shuffle moves it, the others not."""
    store = SizeStore(tmp_path)
    for seed in range(2):
        store.write(made("true", seed, [3.0 - seed, 4.5, *[3.0] * 16]))
        store.write(made("shuffled", seed, [4.0, 4.0, *[3.0] * 16]))
        store.write(made("reshuffled", seed, [4.0, 3.5, *[3.0] * 16]))
    (page,) = labels.pages(tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.text.splitlines() if "| layer" in line]
    assert rows[0][0] == "layer" and rows[1] == ["layer0", "-1.50", "-1.00 -2.00", "0.00"]
    assert rows[2] == ["layer1", "+0.50", "+0.50 +0.50", "0.50"] and rows[3][1:] == ["0", "0 0", "0.00"]


def test_sizes_stand_against_the_budget_where_nothing_else_differs(tmp_path: Path) -> None:
    """Two budgets of 300 steps in one table, the smaller first; one of 1,000 steps alone in none."""
    store = SizeStore(tmp_path)
    for budget, steps, sizes in ((200_000, 300, (3.0, 4.0)), (100_000, 300, (2.0, 2.0)), (660_000, 1000, (5.0, 5.0))):
        learning = PAPER.size_learning.model_copy(update={"budget": budget})
        spec = PAPER.model_copy(update={"size_learning": learning, "steps": steps})
        for seed, size in enumerate(sizes):
            record = made("true", seed, [size, *[3.0] * 17])
            changed = record.case.model_copy(update={"spec": spec})
            store.write(record.model_copy(update={"case": changed}).signed())
    (page,) = labels.pages(tmp_path)
    table = page.text.split("## Sizes against the budget")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "EffConv" in line]
    assert [row[:3] for row in rows] == [["EffConv-20 0.10M", "300", "0, 1"], ["EffConv-20 0.20M", "300", "0, 1"]]
    assert [row[3].split()[:2] for row in rows] == [["2.0", "3.0"], ["3.5", "3.0"]]


def test_gradient_ratios_by_hand() -> None:
    history = [
        {"class_grad": [3e-4, -1e-4], "budget_grad": [3e-2, 4e-2]},
        {"class_grad": [-1e-4, -1e-4], "budget_grad": [-3e-2, 4e-2]},
    ]
    ratio = gradient_ratio(history)
    assert ratio is not None
    assert ratio.batch == pytest.approx(math.sqrt(12e-8 / 4) / math.sqrt(50e-4 / 4))
    assert ratio.lasting == pytest.approx(1e-4 / 3.5e-2)  # means over points 1e-4 and -1e-4
    assert gradient_ratio([{"v": [1.0]}]) is None


PAPER = size_spec("cifar10", steps=1000, source="other-0123abcd", train_images=10_000)


def test_sizes_of_another_row_are_learned_with_the_labels_asked_for() -> None:
    request = ControlsRequest(row="Wide-EffConv-28-1 0.66M", labels=["true"], seeds=[3])
    (one,) = label_cases(request, "canonical")
    assert (one.arm, one.seed, one.spec.model.family) == ("true", 3, "wide_resnet")
    asked = Question(spec=one.spec, version=1, records=())
    assert labels.name_of(asked) == "Wide-EffConv-28-1 0.66M"
    small = label_cases(ControlsRequest(row="EffConv-20 0.10M"), "canonical")[0].spec
    assert labels.name_of(Question(spec=small, version=1, records=())) == "EffConv-20 0.10M"


def made(arm: Arm, seed: int, soft: list[float], planted: float = 0.0) -> SizeRecord:
    point = {"class_grad": [1e-4] * 18, "budget_grad": [5e-2] * 18, "step": 1}
    whole = [round(value) for value in soft]
    return SizeRecord(
        protocol_version=PROTOCOL_VERSION,
        case=SizeCase(spec=PAPER, arm=arm, seed=seed, planted=planted),
        outcome=Outcome(status="finished"),
        sizes={f"layer{index}": size for index, size in enumerate(whole)},
        snapped=Snapped(
            soft=soft, rounded=whole, moved=[0] * 18, error_before=0.0, error_after=0.0, differs_from_initial=0
        ),
        params=660_000,
        history=[point],
        clock=SizeClock(started="", finished="", seconds=1.0, device="cpu", shared_device=True),
        machine="0123456789ab",
        data=DataOrigin(
            name="cifar10",
            source="other-0123abcd",
            title="CIFAR-10 (JPEG)",
            canonical=False,
            train_images=10_000,
            test_images=10_000,
            files=[],
        ),
        code={},
    ).signed()


def filled(folder: Path, seeds: int = 5, effect: float = 0.0, planted: dict[float, float] | None = None) -> Path:
    """Records of so many seeds; `planted`: size of the gradient -> what it does to every soft size."""
    rng, store = random.Random(5), SizeStore(folder)
    for seed in range(seeds):
        start = [rng.gauss(4.0, 0.7) for _ in range(18)]
        arms: list[tuple[Arm, float, float]] = [("true", 0.0, effect), ("shuffled", 0, 0), ("reshuffled", 0, 0)]
        arms += [("planted", size, moved) for size, moved in (planted or {}).items()]
        for arm, size, moved in arms:
            store.write(made(arm, seed, [value + moved + rng.gauss(0.0, 0.1) for value in start], float(size)))
    return folder


def test_the_page_says_what_was_not_detected_and_what_would_have_been(tmp_path: Path) -> None:
    results = filled(tmp_path, planted={1e-4: 0.0, 1e-3: 0.5, 3e-3: 2.0})
    (path,) = labels.write(results, results / "rendered")
    text = path.read_text()
    assert path.name == "labels.cifar10.md"
    (line,) = [line for line in text.splitlines() if "not detected" in line]
    assert line.startswith("With 1,000 steps of 64 images, from 10,000 training images of CIFAR-10 (JPEG), and seeds 0")
    assert "not detected at this length" in line and "would have been" in line and "0.001 on each soft size" in line
    assert "10.00 times the rms" in line
    (question,) = questions(SizeStore(results).records())
    assert question.detectable_gradient() == 1e-3 and question.planted == [1e-4, 1e-3, 3e-3]
    assert 0.5 < (question.seed_spread() or 0) < 1.2
    assert "Not run: it needs 8 seeds" in text and "control: shuffled 0.66M: 0" in text
    values = labels.plain(results, "cifar10")[0]
    assert values["tests"][0]["p"] > 0.05 and values["detectable_gradient"] == 1e-3 and json.dumps(values)


def test_the_page_of_an_effect_and_of_too_few_seeds(tmp_path: Path) -> None:
    for seeds, word in ((5, "was detected (p = 0.031)"), (4, "the test needs 5 seeds")):
        results = filled(tmp_path / str(seeds), seeds, effect=0.6)
        (page,) = labels.pages(results)
        assert word in page.text and "not detected" not in page.text


def test_a_question_is_named_by_what_is_not_our_default(tmp_path: Path) -> None:
    other = PAPER.size_learning.model_copy(update={"lam": 0.05, "budget_value": "soft"})
    record = made("true", 0, [3.0] * 18)
    changed = record.case.model_copy(update={"spec": PAPER.model_copy(update={"size_learning": other})})
    for one in (record, record.model_copy(update={"case": changed})):
        SizeStore(tmp_path).write(one)
    heads = [line for line in labels.pages(tmp_path)[0].text.splitlines() if line.startswith("## EffConv")]
    assert sorted(heads) == [
        "## EffConv-20 0.66M, 1,000 steps", "## EffConv-20 0.66M, lam 0.05, budget_value soft, 1,000 steps"
    ]  # fmt: skip


def test_the_worth_test_stands_once_its_runs_do(tmp_path: Path) -> None:
    names = ["EffConv-20 0.66M", *(f"control: {kind} 0.66M" for kind in ("uniform", "random", "init-only", "shuffled"))]
    records = [
        make_record(spec_of(name), seed, top1=92.0 - index + 0.1 * seed)
        for index, name in enumerate(names)
        for seed in range(8)
    ]
    store_with(filled(tmp_path), *records)
    (page,) = labels.pages(tmp_path)
    assert "Not run" not in page.text
    (line,) = [line for line in page.text.splitlines() if line.startswith("| control: random")]
    assert "90.35" in line and "2.00 ± 0.00 (n = 8)" in line


def test_the_command_plans_shows_and_refuses(tmp_path: Path) -> None:
    said: list[str] = []
    ask = {"out": said.append, "err": said.append, "stop": lambda: False}
    request = ControlsRequest(results=tmp_path, data_root=tmp_path / "none", planted=1e-3, dry_run=True)
    assert command(request, **ask) == 0  # type: ignore[arg-type]
    assert len(said) == 21 and said[-1].startswith("to run: 20 runs of 1,000 steps on c")
    cases = label_cases(request, "canonical")
    assert [one.arm for one in cases[:4]] == ["true", "shuffled", "reshuffled", "planted"]
    assert len({one.case_id for one in cases}) == 20 and cases[0].spec.size_learning.batch_size == 64
    assert 200 < controlling.seconds(cases[0].spec, "cpu") < 1500
    wrongs = ({"planted": -1.0}, {"seeds": range(21)}, {"labels": ["truth"]}, {"row": "FlexNet-16"}, {"row": "none"},
              {"row": "control: random 0.66M"})  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(UsageError):
            command(ControlsRequest(results=tmp_path, **wrong), **ask)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no record"):
        command(ControlsRequest(results=tmp_path, no_run=True), **ask)  # type: ignore[arg-type]
    said.clear()
    assert command(ControlsRequest(results=filled(tmp_path), no_run=True), **ask) == 0  # type: ignore[arg-type]
    assert "not detected at this length" in said[0]
    assert (tmp_path / "rendered" / "labels.cifar10.md").exists() and Store(tmp_path).records() == []
