"""`reproduce check-method`: a method that breaks what it declares is found out, check by check; honest ones pass."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from effconv import resize, snap_to_budget
from reproduce import known_cases
from reproduce.cli import main
from reproduce.errors import UserError
from reproduce.run import method_checks
from reproduce.run.known.networks import Spec, conv_names, njet
from reproduce.run.method_checks import learner_checks, network_checks, trials
from reproduce.run.method_checks.methods import PROPERTIES, Method, built_in, declared_by

EXAMPLE = Path(__file__).parents[2] / "examples" / "random_search"
Found = dict[str, tuple[str, str]]  # by check: status and text


class Answering(nn.Module):
    """Knows the class of a lag image whatever labels it was trained on."""

    def __init__(self, lag: int = 2) -> None:
        super().__init__()
        self.inner, self.lag = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), lag

    def forward(self, images: Tensor) -> Tensor:
        answer = (images[..., : -self.lag] * images[..., self.lag :]).sum((1, 2, 3))
        logits: Tensor = self.inner(images)
        return logits + 100 * torch.stack((-answer, answer), 1)

    def effective_sizes(self) -> list[int]:
        return [5, 5]


class Dull(nn.Module):
    """One answer for all images."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        return self.bias.expand(len(images), 2)


class Honest:
    """Soft sizes by a running sum over the batches, kept in a checkpoint after each epoch."""

    gradient_based = has_budget = resumable = True

    def __call__(
        self,
        model: nn.Module,
        batches: list[trials.Batch],
        *,
        budget: int | None,
        epochs: int,
        seed: int,
        checkpoint: Path | None = None,
    ) -> SimpleNamespace:
        total, done = self.load(checkpoint)
        for epoch in range(done, epochs):
            for images, labels in batches:
                total += self.seen(images, labels)
                self.meddle(model, images)
            self.save(checkpoint, total, epoch + 1)
        v = [3.5 + total + self.chance(seed), 3.5]
        sizes = self.sizes(v, budget)
        chosen = dict(zip(conv_names(model), sizes, strict=True))
        return SimpleNamespace(sizes=chosen, build=lambda: self.build(model, chosen), notes={"v": v})

    def load(self, file: Path | None) -> tuple[float, int]:
        if file is None or not file.exists():
            return 0.0, 0
        total, done = json.loads(file.read_text())
        return total, done

    def save(self, file: Path | None, total: float, done: int) -> None:
        if file is not None:
            file.write_text(json.dumps([total, done]))

    def seen(self, images: Tensor, labels: Tensor) -> float:
        return float((images.mean((1, 2, 3)) * labels).sum())

    def chance(self, seed: int) -> float:
        return 0.1 * seed

    def sizes(self, v: list[float], budget: int | None) -> list[int]:
        return snap_to_budget(v, [64, 64], budget, max_size=7) if budget else [3, 3]

    def meddle(self, model: nn.Module, images: Tensor) -> None:
        """Nothing."""

    def build(self, model: nn.Module, sizes: dict[str, int]) -> nn.Module:
        return resize(model, sizes)


class OverBudget(Honest):
    def sizes(self, v: list[float], budget: int | None) -> list[int]:
        return [5, 5]  # where it began


class BuildsLarger(Honest):
    def build(self, model: nn.Module, sizes: dict[str, int]) -> nn.Module:
        return resize(model, {name: size + 1 for name, size in sizes.items()})


class Deaf(Honest):
    def seen(self, images: Tensor, labels: Tensor) -> float:
        return 0.0


class Forgetful(Honest):
    def load(self, file: Path | None) -> tuple[float, int]:
        return 0.0, super().load(file)[1]


class Unsaved(Honest):
    def save(self, file: Path | None, total: float, done: int) -> None:
        """Nothing."""


class Idle(Honest):
    def load(self, file: Path | None) -> tuple[float, int]:
        return 0.0, 99


class Seedless(Honest):
    calls = itertools.count()

    def chance(self, seed: int) -> float:
        return 0.01 * next(self.calls)


class OnGlobalState(Honest):
    def chance(self, seed: int) -> float:
        return float(torch.rand(()))


class Overwriting(Honest):
    def meddle(self, model: nn.Module, images: Tensor) -> None:
        with torch.no_grad():
            next(model.parameters()).mul_(0.5)


class Switching(Honest):
    def meddle(self, model: nn.Module, images: Tensor) -> None:
        model.eval()


class Hooking(Honest):
    def meddle(self, model: nn.Module, images: Tensor) -> None:
        model.register_forward_hook(lambda *_: None)


class Normalising(Honest):
    def meddle(self, model: nn.Module, images: Tensor) -> None:
        images -= 1


class KnowsTheAnswer(Honest):
    def build(self, model: nn.Module, sizes: dict[str, int]) -> nn.Module:
        return Answering()


class LearnsNothing(Honest):
    def build(self, model: nn.Module, sizes: dict[str, int]) -> nn.Module:
        return Dull()


class Raising(Honest):
    def sizes(self, v: list[float], budget: int | None) -> list[int]:
        raise RuntimeError("out of\nluck")


def method(call: Callable[..., Any], kind: Any = "size learner") -> Method:
    return Method(name="mine", kind=kind, call=call, declared=declared_by(call, "mine"))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short trainings: enough for a lag of 2, as honest methods show."""
    monkeypatch.setattr(trials, "STEPS", 30)
    monkeypatch.setattr(trials, "SHUFFLES", 1)


def found(call: Callable[..., Any], *names: str, kind: Any = "size learner") -> Found:
    """Status and text of the checks whose names begin so; of all without."""
    checked, module = method(call, kind), learner_checks if kind == "size learner" else network_checks
    chosen = [one for one in module.checks(checked) if not names or one.name.startswith(names)]
    patched = SimpleNamespace(checks=lambda _: chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method_checks, module.__name__.rpartition(".")[2], patched)
        return {one.check: (one.status, one.text) for one in method_checks.check(checked)}


def only(result: Found) -> tuple[str, str]:
    ((status, text),) = result.values()
    return status, text


@pytest.mark.slow
def test_an_honest_learner_passes_every_check(brief: None) -> None:
    result = found(Honest())
    assert {status for status, _ in result.values()} == {"pass"}, result
    assert len(result) == 8


@pytest.mark.parametrize(
    ("broken", "check", "says"),
    [
        (OverBudget, "budget", r"3,200 weights (3,200 by the sizes told) of 1,600: +100.0%"),
        (BuildsLarger, "budget", "(1,600 by the sizes told) of 1,600"),
        (BuildsLarger, "sizes", "built [("),
        (Deaf, "gradient", "differ by 0 between two data sets"),
        (Forgetful, "resume", "stopped after 18 of 24 batches and resumed: soft sizes differ by"),
        (Unsaved, "resume", "there is no checkpoint"),
        (Idle, "resume", "nothing to resume"),
        (Seedless, "seed", "soft sizes differ by 0.01"),
        (OnGlobalState, "seed", "soft sizes differ by"),
        (Overwriting, "caller", "first tensor 0.weight"),
        (Switching, "caller", "first module"),
        (Hooking, "caller", "1 parts changed, first module (whole)"),
        (Normalising, "caller", "first the batches"),
        (KnowsTheAnswer, "shuffled", "100.0 % with shuffled ones"),
        (LearnsNothing, "shuffled", "nothing was learned that could be lost"),
        (LearnsNothing, "overfits", "50.0 % of 64 images"),
        (Raising, "sizes", "raised RuntimeError: out of luck"),
    ],
)
def test_a_broken_learner_is_found_out(brief: None, broken: type[Honest], check: str, says: str) -> None:
    status, text = only(found(broken(), check))
    assert status == "fail"
    assert says in text


def test_what_is_not_declared_is_not_tested() -> None:
    class Modest(Deaf):
        gradient_based = has_budget = resumable = False

    result = found(Modest(), "budget", "gradient", "resume")
    assert [status for status, _ in result.values()] == ["not declared"] * 3
    assert "does not declare has_budget = True" in result["budget identity"][1]
    assert method(lambda: None).declared == ()


def test_a_seed_without_effect_is_told_but_no_failure() -> None:
    class Fixed(Honest):
        def chance(self, seed: int) -> float:
            return 0.0

    status, text = only(found(Fixed(), "seed"))
    assert status == "pass" and "another seed changes nothing" in text


def test_sizes_alone_ask_for_soft_sizes_where_they_do_not_move() -> None:
    def learn(model: nn.Module, batches: Any, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(sizes=[3, 4], build=lambda: resize(model, {"0": 3, "3": 4}))

    learn.gradient_based = True  # type: ignore[attr-defined]
    status, text = only(found(learn, "gradient"))
    assert status == "fail" and text.endswith('tell soft sizes as result.notes["v"]')


def test_a_declaration_is_true_or_false() -> None:
    call = SimpleNamespace(gradient_based="yes")
    with pytest.raises(UserError, match="gradient_based = 'yes'; make it True or False"):
        declared_by(call, "mine")  # type: ignore[arg-type]


def test_effconv_resumes() -> None:
    effconv = built_in()["effconv"]
    assert effconv.declared == PROPERTIES

    def call(*args: Any, **options: Any) -> Any:
        return effconv.call(*args, **options)

    call.__dict__.update(dict.fromkeys(PROPERTIES, True))
    result = found(call, "resume")
    assert only(result)[0] == "pass"


class Built:
    """N-Jet under a property or two that are broken."""

    gradient_based = resumable = True

    def __call__(self, spec: Spec) -> nn.Module:
        model = njet(spec)
        self.spoil(model)
        return model

    def spoil(self, model: nn.Module) -> None:
        """Nothing."""


class Stiff(Built):
    def spoil(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name.endswith("scale"):
                parameter.requires_grad_(False)


class OutsideTheState(Built):
    calls = itertools.count(3)

    def spoil(self, model: nn.Module) -> None:
        size = next(self.calls)
        model.sizes = lambda: [size, size]  # type: ignore[assignment]


class Chancy(Built):
    calls = itertools.count()

    def spoil(self, model: nn.Module) -> None:
        with torch.no_grad():
            next(model.parameters()).add_(next(self.calls))


class Sharing(Built):
    shared: nn.Module | None = None

    def spoil(self, model: nn.Module) -> None:
        self.shared = self.shared or model[1]  # type: ignore[index]
        model[1] = self.shared  # type: ignore[operator]


class OneSize(Built):
    def spoil(self, model: nn.Module) -> None:
        model.sizes = lambda: [5]  # type: ignore[assignment]


class Budgeted(Built):
    has_budget = True


class Untold(Built):
    def __call__(self, spec: Spec) -> nn.Module:
        return nn.Sequential(*njet(spec))


class KnowingNetwork(Built):
    def __call__(self, spec: Spec) -> nn.Module:
        return Answering()


@pytest.mark.parametrize(
    ("broken", "check", "says"),
    [
        (Stiff, "gradient", "differ by 0 or more"),
        (OutsideTheState, "resume", "outputs differ by 0, sizes 3 3 and 4 4"),
        (Chancy, "seed", "tensors differ"),
        (Sharing, "other", "tensor 1."),
        (OneSize, "sizes", "sizes 5, after"),
        (Budgeted, "budget", "gets no budget"),
        (Untold, "sizes", "raised AttributeError"),
        (KnowingNetwork, "shuffled", "100.0 % with shuffled ones"),
    ],
)
def test_a_broken_network_is_found_out(brief: None, broken: type[Built], check: str, says: str) -> None:
    status, text = only(found(broken(), check, kind="network"))
    assert status == "fail"
    assert says in text


def test_a_network_that_tells_no_size_parameters_is_named() -> None:
    with pytest.raises(TypeError, match=r"size_parameters\(\)"):
        network_checks.size_parameters(nn.Linear(1, 1))
    own = SimpleNamespace(size_parameters=lambda: [torch.ones(1, requires_grad=True)])
    assert not network_checks.size_parameters(own)[0].requires_grad


def test_a_built_in_network_keeps_what_it_declares() -> None:
    known = built_in()["njet"]
    build = SimpleNamespace(**dict.fromkeys(known.declared, True))
    assert method(build).declared == ("gradient_based", "resumable")  # type: ignore[arg-type]

    def call(spec: Spec) -> nn.Module:
        built: nn.Module = known.call(spec)
        return built

    call.__dict__.update(dict.fromkeys(known.declared, True))
    result = found(call, "gradient", "resume", kind="network")
    assert [status for status, _ in result.values()] == ["pass"] * 2


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes an installed package register something as `mine`."""

    def add(group: str, registered: Any, value: str = "somewhere:learn") -> None:
        class Point(EntryPoint):
            def load(self) -> Any:
                return registered if registered is not None else super().load()

        point = Point(name="mine", value=value, group=group)
        monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [point] if group == point.group else [])

    return add


def test_an_unknown_name_gets_those_that_there_are(register: Callable[..., None]) -> None:
    register("reproduce.networks", Built())
    result = reproduce("check-method", "effcon")
    assert result.exit_code == 2
    assert result.output == "error: no method is named 'effcon'; there are effconv, flexconv, njet, mine\n"


def test_a_method_that_cannot_be_loaded_is_one_line(register: Callable[..., None]) -> None:
    register("reproduce.size_learners", None, "no_such_package:learn")
    result = reproduce("check-method", "mine")
    assert result.exit_code == 1
    assert "'mine' (no_such_package:learn) cannot be loaded" in result.output
    assert result.output.count("\n") == 1


def test_a_failed_check_is_exit_code_1(register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    register("reproduce.size_learners", Deaf())
    kept = learner_checks.checks
    monkeypatch.setattr(learner_checks, "checks", lambda asked: kept(asked)[:4])
    result = reproduce("check-method", "mine")
    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert lines[0].startswith("mine, a size learner; declares gradient_based, has_budget, resumable. Lag tasks of 16")
    assert [line.split()[0] for line in lines[1:]] == ["pass", "pass", "fail", "pass"]


def test_json(register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    register("reproduce.networks", Built())
    kept = network_checks.checks
    monkeypatch.setattr(network_checks, "checks", lambda asked: kept(asked)[:2])
    result = reproduce("check-method", "mine", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (told["method"], told["kind"], told["declared"]) == ("mine", "network", ["gradient_based", "resumable"])
    assert [one["status"] for one in told["checks"]] == ["pass", "not declared"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as an installer would leave it: importable, with its entry points beside it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    about = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    known_cases.registered.cache_clear()  # a process looks only once: tests before this one have, those after will
    yield
    known_cases.registered.cache_clear()


def test_the_example_is_found_and_declares(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_checks, "STEPS", 2)
    monkeypatch.setattr(learner_checks, "EPOCHS", 1)
    known = method_checks.find("random-search")
    assert (known.kind, known.declared) == ("size learner", ("has_budget",))
    result = found(known.call, "sizes", "budget", "seed", "caller", "gradient")
    assert [status for status, _ in result.values()] == ["pass", "pass", "not declared", "pass", "pass"]


def test_the_example_takes_no_budget_too(installed: None) -> None:
    learn = method_checks.find("random-search").call
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    batches = [(torch.randn(4, 1, 9, 9), torch.tensor([0, 1, 0, 1]))]
    before = torch.get_rng_state()
    result = learn(model, batches, budget=None, epochs=1, seed=3)
    assert 1 <= result.sizes["0"] <= 7
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["effconv", "flexconv", "njet", "random-search"])
def test_every_known_method_and_the_example_pass(installed: None, name: str) -> None:
    result = reproduce("check-method", name)
    assert result.exit_code == 0, result.output
    assert "fail" not in result.output
