"""replay: the bits of a run once more, the verdict on them, where two runs part, and that it may be interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from reproduce import looking
from reproduce.cli import main
from reproduce.errors import Interrupted
from reproduce.records import RunRecord
from reproduce.report.replayed import Noise, judge, noise_of, text
from reproduce.run import replaying
from reproduce.run.runner import run
from reproduce.specs import PROTOCOL_VERSION
from reproduce.store import Store, write_atomically
from tests.reproduce.factory import JPEG, make_record, put, spec_of
from tests.reproduce.run_samples import StopAt, context, learning, spec

torch.set_num_threads(1)

HERE = {"cpu": "A", "torch": "2.9.0", "cores": 2}
THERE = HERE | {"cpu": "B"}
ROW = "EffConv-20 0.66M"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    """A run of both stages on digits, and its results folder."""
    results = tmp_path_factory.mktemp("results")
    return run(spec(learning(epochs=1)), 0, context(results)), results


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def altered(record: RunRecord, results: Path, folder: Path) -> Path:
    """A copy of the record with one loss of training changed and the digest computed anew; its file."""
    history: dict[str, list[dict[str, Any]]] = json.loads(json.dumps(record.history))
    history["training"][1]["train_loss"] += 1e-6
    path = folder / Store(results).path(record.spec, record.seed).relative_to(results)
    write_atomically(path, record.model_copy(update={"history": history}).signed().model_dump(mode="json"))
    machine = f"machines/{record.machine}.json"
    write_atomically(folder / machine, json.loads((results / machine).read_text()))
    return path


def test_a_replay_is_bitwise_equal(here: Path, recorded: tuple[RunRecord, Path]) -> None:
    record, results = recorded
    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    result = reproduce("replay", record.run_id, "--results", str(results))
    assert result.exit_code == 0 and result.stdout.startswith("bitwise equal\n")
    told = result.stderr.splitlines()[0]  # before anything is begun
    assert told.startswith(f"replay of {record.run_id}") and "about" in told and "the record took" in told
    assert {path: path.read_bytes() for path in results.rglob("*.json")} == before
    assert Store(here / "build/replay").find(record.spec, 0) is not None


def test_an_altered_record_is_different_and_the_place_is_named(here: Path, recorded: tuple[RunRecord, Path]) -> None:
    path = altered(*recorded, here / "copy")
    result = reproduce("replay", str(path), "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["verdict"] == "different" and "of the same kind" in found["why"]
    assert found["parts_at"]["place"] == "training, epoch 2: train_loss" and found["differs_in"] == ["history"]


def test_an_interrupted_replay_goes_on(here: Path, recorded: tuple[RunRecord, Path]) -> None:
    record, results = recorded
    request = looking.ReplayRequest(run=record.run_id, results=results)
    said: list[str] = []
    with pytest.raises(Interrupted) as stopped:
        looking.replay(request, out=said.append, err=said.append, stop=StopAt(6))
    assert not stopped.value.idle and list((here / "build/replay/.resume").iterdir())
    assert looking.replay(request, out=said.append, err=said.append, stop=lambda: False) == 0
    assert said[-1].startswith("bitwise equal")
    again = Store(here / "build/replay").find(record.spec, 0)
    assert again is not None and again.clock.resumed == 1


@pytest.mark.slow
def test_a_finished_replay_is_done_anew(here: Path, recorded: tuple[RunRecord, Path]) -> None:
    record, _ = recorded
    put(Store(here / "scratch"), record.model_copy(update={"lineage": {"old": True}}).signed())
    found, _ = replaying.replay(
        record, "x", here / "scratch", data_root=None, cache=None, device="cpu", stop=lambda: False
    )
    assert found.lineage == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scratch", "RESULTS"), "never stands among the records"),
        (("--device", "cuda"), "no CUDA device"),
        (("--time-budget", "x"), "is no length of time"),
    ],
)
def test_what_is_refused(here: Path, recorded: tuple[RunRecord, Path], words: tuple[str, ...], says: str) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is one")
    record, results = recorded
    options = [str(results) if word == "RESULTS" else word for word in words]
    result = reproduce("replay", record.run_id, "--results", str(results), *options)
    assert result.exit_code in (1, 2) and result.stdout == ""
    assert says in result.stderr.splitlines()[-1]


def test_another_protocol_version_is_not_replayed(here: Path) -> None:
    old = make_record(spec_of(ROW), version=PROTOCOL_VERSION + 1)
    put(Store(here / "results"), old)
    result = reproduce("replay", old.run_id)
    assert result.exit_code == 1 and "check out commit 000000" in result.stderr


def test_a_dry_run_only_says_how_long(here: Path) -> None:
    record = make_record(spec_of(ROW), epoch_seconds=(1800.0, 1800.0), size_seconds=(3600.0,))
    put(Store(here / "results"), record)
    result = reproduce("replay", record.run_id, "--dry-run")
    assert result.exit_code == 0 and "the record took 2.0 h" in result.stdout and not (here / "build").exists()


def pair(top1: float) -> tuple[RunRecord, RunRecord]:
    """Two records of one run whose results differ."""
    first = make_record(spec_of(ROW), 0, 90.0)
    return first, make_record(spec_of(ROW), 0, top1)


@pytest.mark.parametrize(
    ("top1", "machine", "verdict"),
    [
        (90.0, THERE, "bitwise equal"),
        (90.5, THERE, "within seed noise"),
        (91.5, THERE, "different"),
        (90.5, HERE, "different"),  # the same kind of machine: the bits should be equal
        (90.5, HERE | {"cores": 64}, "different"),  # what cannot change bits excuses nothing
    ],
)
def test_verdicts(top1: float, machine: dict[str, Any], verdict: str) -> None:
    found = judge(*pair(top1), (HERE, machine), Noise(limit=1.0, basis="made up"))
    assert found.verdict == verdict
    assert all(len(line) <= 80 for line in text(found, "b.json", "a.json").splitlines())
    assert (found.parts_at is None) == (verdict == "bitwise equal")
    assert found.as_json()["verdict"] == verdict


def test_other_machines_are_named_as_what_may_explain_it() -> None:
    found = judge(*pair(90.5), (HERE, THERE), Noise(limit=1.0, basis="made up"))
    assert found.machines == ("machine.cpu A | B",) and "machine.cpu A | B" in text(found, "b", "a")


def test_without_a_result_nothing_is_within_noise() -> None:
    failed = make_record(spec_of(ROW), 0, status="failed", reason="memory")
    assert judge(pair(90.0)[0], failed, (HERE, THERE), Noise(limit=1.0, basis="")).verdict == "different"


def test_noise_comes_from_the_seeds_of_the_cell() -> None:
    runs = [make_record(spec_of(ROW), seed, top1) for seed, top1 in enumerate((89.0, 90.0, 91.0))]
    noise = noise_of(runs[0], runs)
    assert noise is not None and "3 seeds" in noise.basis
    assert noise.limit == pytest.approx(4.302653 * 2**0.5, rel=1e-6)  # t(0.975, 2) s sqrt 2, s = 1


def test_noise_is_pooled_over_cells_where_seeds_are_few() -> None:
    cells = {ROW: (89.0, 91.0), "EffConv-32 0.66M": (80.0, 84.0), "CIFARResNet-44": (70.0,)}
    runs = [make_record(spec_of(row), seed, top1) for row, values in cells.items() for seed, top1 in enumerate(values)]
    noise = noise_of(runs[0], [*runs, make_record(spec_of(ROW, source=JPEG), 0, 10.0)])  # other images do not count
    assert noise is not None and "2 cells" in noise.basis
    assert noise.limit == pytest.approx(4.302653 * (2 * (2.0 + 8.0) / 2) ** 0.5, rel=1e-6)  # variances 2 and 8


def test_noise_of_a_lone_run_is_that_of_its_images() -> None:
    record = make_record(spec_of(ROW), 0, 90.0)
    noise = noise_of(record, [record])
    assert noise is not None and "10,000 test images" in noise.basis
    assert noise.limit == pytest.approx(196 * (2 * 0.09 / 10_000) ** 0.5)
