"""Methods of the known-answer benchmark: EffConv from a given start; plugged-in ones that know or ignore the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effconv import DivergedError, Readings, Settings, SizeLearner, resize
from reproduce.errors import UsageError, UserError
from reproduce.known_answers import Case
from reproduce.known_scores import scores
from reproduce.run.known import learners
from reproduce.run.known.effconv_sizes import is_dead, start_at
from reproduce.run.known.learners import METHODS, Outcome
from reproduce.run.known.networks import Spec, conv_names, flexconv, network

ORACLE = {1: 50.0, 2: 50.0, 3: 50.0, 4: 99.0, 5: 100.0, 6: 100.0, 7: 100.0}  # lag 3, by receptive field

Register = Callable[..., None]


def case(**changes: Any) -> Case:
    values: dict[str, Any] = {
        "task": "lag",
        "scale": 3,
        "layers": 1,
        "budget": 7 * 7 * 64,
        "start": 4,
        "method": "mine",
        "seed": 0,
    }
    return Case(**(values | {"steps": 150} | changes))


def answers(*sizes: int) -> Callable[..., Any]:
    """A size learner that gives these sizes whatever it sees."""

    def learn(model: nn.Module, batches: Iterable[Any], *, budget: int | None, epochs: int, seed: int) -> Any:
        chosen = dict(zip(conv_names(model), sizes, strict=True))
        return SimpleNamespace(sizes=chosen, build=lambda: resize(model, chosen))

    return learn


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Makes an installed package register something under a group, by the name `mine`."""

    def add(group: str, registered: Any, value: str = f"{__name__}:registered") -> None:
        class Point(EntryPoint):
            def load(self) -> Any:
                return registered if registered is not None else super().load()

        point = Point(name="mine", value=value, group=group)
        monkeypatch.setattr(learners.metadata, "entry_points", lambda *, group: [point] if group == point.group else [])

    return add


def plugged_in(asked: Case) -> Outcome:
    return learners.plugged_in()["mine"](asked)


def judged(asked: Case, found: Outcome) -> dict[str, Any]:
    return scores(
        asked,
        sizes=found.sizes,
        effective_sizes=found.effective_sizes,
        accuracy=found.test_accuracy,
        curve=ORACLE,
        reachable=7,
        dead=False,
    )


def test_a_learner_that_is_fed_the_answer_scores_perfectly(register: Register) -> None:
    register("reproduce.size_learners", answers(4))
    found = plugged_in(case())
    assert found.sizes == [4]
    assert found.notes["budget_error"] == pytest.approx(16 / 49 - 1)
    score = judged(case(), found)
    assert score["reaches"] and score["excess"] == 0 and score["failure"] == ""


@pytest.mark.parametrize("size", [3, 7])
def test_a_learner_that_ignores_the_data_is_found_out(register: Register, size: int) -> None:
    register("reproduce.size_learners", answers(size))
    found = plugged_in(case())
    score = judged(case(), found)
    assert score["reaches"] == (size == 7)
    assert score["excess"] == found.effective_sizes[0] - 4
    assert score["excess"] < 0 if size == 3 else score["excess"] > 0
    if size == 3:
        assert 45 <= found.test_accuracy <= 55


def test_a_network_with_sizes_of_its_own_can_be_plugged_in(register: Register) -> None:
    specs = []

    def build(spec: Spec) -> nn.Module:
        specs.append(spec)
        model = network(spec.layers, spec.start)
        model.effective_sizes = lambda: [1, 2]  # type: ignore[assignment]
        return model

    register("reproduce.networks", build)
    found = plugged_in(case(layers=2, steps=2, start=3, budget=None))
    assert specs == [Spec(layers=2, start=3, side=16, channels=8)]
    assert (found.sizes, found.effective_sizes) == ([1, 2], [1, 2])


def test_a_method_that_cannot_be_loaded_is_named(register: Register) -> None:
    register("reproduce.size_learners", None, "no_such_package:learn")
    with pytest.raises(UserError, match="'mine' \\(no_such_package:learn\\) cannot be loaded"):
        plugged_in(case())


def test_divergence_is_an_outcome(register: Register) -> None:
    def learn(*_: Any, **__: Any) -> Any:
        raise DivergedError("the loss is nan")

    register("reproduce.size_learners", learn)
    found = plugged_in(case())
    assert math.isnan(found.test_accuracy)
    assert found.notes == {"failure": "diverged: the loss is nan"}
    assert found.sizes == [4]


def test_a_mask_that_leaves_all_bounds_diverges(register: Register) -> None:
    class Broken(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model, self.effective_sizes = model, lambda: [3]

        def forward(self, images: Tensor) -> Tensor:
            return self.model(images) * math.nan  # type: ignore[no-any-return]

    register("reproduce.networks", lambda spec: Broken(flexconv(spec)))
    assert math.isnan(plugged_in(case(steps=2)).test_accuracy)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("start", range(2, 8))
def test_effconv_starts_at_exactly_the_given_size(layers: int, start: int) -> None:
    model = network(layers, start)
    torch.manual_seed(3)
    learner = SizeLearner(model, conv_names(model), Settings(budget=64 * layers * 16), Readings())
    start_at(learner, [start] * layers)
    v, sizes = learner.soft_and_integer_sizes()
    assert sizes == [start] * layers
    wanted = min(start, 6.75)
    assert v.tolist() == pytest.approx([wanted] * layers, abs=1e-5)
    assert learner.ema.tolist() == learner.initial.tolist() == v.tolist()


def test_dead_sizes_are_those_whose_mask_batch_norm_undoes() -> None:
    assert all(is_dead(v, Readings(mask_centre=centre)) for v in (1.0, 1.4) for centre in ("pixel", "printed", "fixed"))
    assert is_dead(2.2, Readings(mask_centre="fixed"))
    assert not is_dead(2.2, Readings())
    assert not is_dead(3.2, Readings(mask_centre="fixed"))
    assert is_dead(5.0, Readings(mask_centre="none"))


def test_effconv_is_the_same_by_its_seed_and_tells_what_held_it_back() -> None:
    asked = case(method="effconv", layers=2, budget=2 * 25 * 64, steps=4)
    one, other, third = (METHODS["effconv"](asked.model_copy(update={"seed": seed})) for seed in (0, 0, 1))
    assert one == other
    assert one.notes["v"] != third.notes["v"]
    assert one.notes["v_start"] == pytest.approx([4, 4], abs=1e-5)
    assert abs(one.notes["budget_error"]) <= 0.2
    assert one.notes["dead"] == []
    assert min(one.notes["class_gradient"] + one.notes["budget_gradient"]) > 0


def test_without_a_budget_nothing_pushes_and_nothing_snaps() -> None:
    found = METHODS["effconv"](case(method="effconv", budget=None, start=6, steps=4, readings={"lam": 2.0}))
    assert found.sizes == [6]
    assert found.notes["budget_gradient"] == [0.0]
    assert "budget_error" not in found.notes


def test_readings_of_a_case_come_before_those_of_the_method() -> None:
    def of(method: str, **readings: Any) -> dict[str, Any]:
        return METHODS[method](case(budget=2 * 25 * 64, layers=2, steps=3, readings=readings)).notes

    low = of("effconv: soft budget")
    assert of("effconv", lam=0.02, budget_value="soft") == low
    assert of("effconv: soft budget", lam=2.0)["budget_gradient"] > low["budget_gradient"]
    with pytest.raises(UsageError, match="mask_centre"):
        of("effconv", mask_centre="nowhere")


def test_a_start_or_a_budget_that_cannot_be_is_named() -> None:
    with pytest.raises(UserError, match="sizes of 2 or more"):
        METHODS["effconv"](case(start=1, steps=1))
    with pytest.raises(UserError, match="nearest reachable"):
        METHODS["effconv"](case(budget=10, steps=1))


@pytest.mark.parametrize("method", ["flexconv", "njet"])
def test_baselines_learn_a_lag_within_their_start(method: str) -> None:
    found = METHODS[method](case(method=method, scale=2, start=5, budget=None, steps=60))
    assert found.test_accuracy >= 60
    assert found.notes == {"started": [5]}
