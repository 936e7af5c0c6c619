"""The command line: what it prints where, its exit codes, one line for each bad input, and what it never imports."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from reproduce import __version__, cli, paper, plan
from reproduce.cli import main
from reproduce.errors import Interrupted
from reproduce.records import RunRecord
from reproduce.run import gpus, runner
from reproduce.size_records import SizeStore
from reproduce.specs import RunSpec
from reproduce.store import Store
from tests.reproduce.hall_samples import record_of, spec_of
from tests.reproduce.test_label_test import made

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
TODAY = {
    "table1", "table2", "table3", "table4", "figure2", "figure3", "ablation", "models", "status",
    "data", "evaluate", "time", "export", "import", "known-answer", "controls", "readings",
    "claims", "report", "plan", "show", "diff", "replay", "checklist", "doctor", "check-method", "cancel",
    "logs", "clean",
}  # fmt: skip
CONTROLS = [
    "control: ResNet-20", "control: uniform 0.66M", "control: random 0.66M", "control: init-only 0.66M",
    "control: shuffled 0.66M",
]  # fmt: skip
Todo = list[tuple[str, RunSpec, int]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: no results, no data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Todo:
    """The runs that commands hand to the runner, which here only makes records up."""
    seen: Todo = []

    def run_all(todo: Todo, context: runner.Context) -> list[RunRecord]:
        seen.extend(todo)
        records = [record_of(spec, seed) for _, spec, seed in todo]
        for record in records:
            context.store.write(record)
        return records

    monkeypatch.setattr(runner, "run_all", run_all)
    return seen


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def python(code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter that knows this checkout; its stdout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def is_one_clear_line(result: Result) -> bool:
    """No traceback, nothing on stdout, one line that says what is wrong."""
    lines = result.stderr.strip().splitlines()
    return result.stdout == "" and sum(line.lower().startswith("error: ") for line in lines) == 1


def test_help_lists_exactly_todays_commands() -> None:
    assert set(main.commands) == TODAY
    result = reproduce("--help")
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in TODAY)


def test_version() -> None:
    assert reproduce("--version").stdout == f"reproduce, version {__version__}\n"


def test_help_loads_nothing_heavy(here: Path) -> None:
    code = """
import sys
from reproduce.cli import main
main(["table2", "--help"], standalone_mode=False)
print(sorted({"torch", "pydantic", "pandas", "numpy", "matplotlib", "rich"} & sys.modules.keys()))
"""
    assert python(code, here).splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["table2", "figure3"])
def test_reading_and_finished_work_never_import_torch(here: Path, command: str) -> None:
    store = Store(here / "build/tiny")
    for seed in (0, 1, 2):
        store.write(record_of(spec_of("EffConv-20 0.66M"), seed))
    code = f"""
import sys
from reproduce.cli import main
main(["{command}", "--protocol", "tiny", *sys.argv[1:], "--rows", "EffConv-20 0.66M"], standalone_mode=False)
print("torch" in sys.modules)
"""
    for option in ("'--no-run'", ""):
        assert python(code.replace("*sys.argv[1:]", option or "'--jobs', '1'"), here).splitlines()[-1] == "False"


BAD: list[tuple[str, str]] = [
    ("table2 --rows EffConv-21*", "no row matches 'EffConv-21*'; --list"),
    ("table2 --rows EffConv-20*,x --no-run", "no row matches 'x'"),
    ("table2 --protocol slow", "slow"),
    ("table2 --seeds 2..0", "write 0..2"),
    ("table2 --seeds x", "--seeds"),
    ("table2 --epochs 0", "epochs"),
    ("table2 --device tpu", "tpu"),
    ("table5", "table5"),
    ("ablation --depths 21", "the nearest are 20 and 26"),
    ("ablation --budgets 3", "out of reach"),
    ("ablation --budgets x", "--budgets"),
    ("table2 --jobs 0", "jobs"),
    ("table2 --time-budget soon", "write for example 90s, 9m or 1.5h"),
    ("table2 --stall-limit soon", "--stall-limit: 'soon' is no length of time"),
    ("table2 --backend inline --jobs 2", "--backend inline is one process"),
    ("table2 --backend cloud", "cloud"),
    ("table2 --sbatch =4", "--sbatch account=lab"),
    ("cancel", "RUN"),
    ("logs 0123", "`reproduce status` lists them"),
    ("table2 --engine fast", "fast"),
    ("table2 --precision float16", "float16"),
    ("import nowhere.zip", "nowhere.zip"),
    ("data --download", "name the data sets"),
    ("data imagenet", "imagenet"),
]


@pytest.mark.parametrize(("line", "mend"), BAD, ids=[line for line, _ in BAD])
def test_a_usage_error_is_one_line_and_exit_code_2(here: Path, line: str, mend: str) -> None:
    result = reproduce(*line.split())
    assert result.exit_code == 2
    assert is_one_clear_line(result)
    assert mend in result.stderr
    assert list(here.iterdir()) == []


def test_a_glob_with_a_blank_is_one_argument(here: Path) -> None:
    result = reproduce("table2", "--rows", "EffConv-20 0.66M,control:*", "--list")
    assert result.stdout.splitlines() == ["EffConv-20 0.66M", *CONTROLS]


def test_controls_are_run_when_asked_for(here: Path, asked: Todo) -> None:
    result = reproduce("table2", "--protocol", "tiny", "--rows", "control:*", "--seeds", "0")
    assert result.exit_code == 0, result.stderr
    assert [name for name, _, _ in asked] == CONTROLS
    assert len({spec.spec_id for _, spec, _ in asked}) == len(CONTROLS)


def test_list_prints_the_names_and_does_nothing(here: Path) -> None:
    names = reproduce("table1", "--list").stdout.splitlines()
    assert names == [
        "Efficient-CapsNet", "Net in Net", "VGG-5", "FlexNet-16", "EffConv-20 0.66M", *CONTROLS
    ]  # fmt: skip
    assert json.loads(reproduce("table1", "--list", "--json").stdout) == names
    assert list(here.iterdir()) == []


def test_all_rows_of_the_paper_are_run_by_default(here: Path, asked: Todo) -> None:
    result = reproduce("table2", "--protocol", "tiny")
    assert result.exit_code == 0, result.stderr
    assert sorted((name, seed) for name, _, seed in asked) == sorted(
        (row.name, seed) for row in paper.rows("table2") for seed in (0, 1, 2)
    )
    assert "Of the paper's 19 rows 19 have runs, 0 are not run." in result.stdout
    assert states(result.stdout) == dict.fromkeys(CONTROLS, "not run") | {
        row.name: "50.00 ± 0.00 (n = 3)" for row in paper.rows("table2")
    }
    assert (here / "build/tiny/rendered/table2.tiny.md").is_file()
    assert not (here / "results").exists()


def states(table: str) -> dict[str, str]:
    """What a smoke test's markdown says of each row, in the column of our results."""
    main, controls = (part for part in table.split("\n\n") if part.startswith("| model") and "size (paper)" in part)
    rows = [line.strip("|").split("|") for line in [*main.splitlines()[2:], *controls.splitlines()[2:]]]
    return {re.sub(r"\[\^\d+\]", "", row[0]).strip(): row[4].strip() for row in rows}


def test_a_finished_table_says_so_and_costs_nothing(here: Path, asked: Todo) -> None:
    line = ("table2", "--protocol", "tiny", "--rows", "EffConv-20*", "--seeds", "0")
    first = reproduce(*line)
    assert len(asked) == 3
    again = reproduce(*line)
    assert len(asked) == 3
    assert "nothing to run: 3 of 3 runs are finished" in again.stderr
    assert again.stdout == first.stdout


def test_only_what_is_missing_is_run(here: Path, asked: Todo) -> None:
    Store(here / "r").write(record_of(spec_of(), 1))
    reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--results", "r")
    assert [seed for _, _, seed in asked] == [0, 2]


def test_a_failed_run_is_tried_again_and_a_diverged_one_is_not(here: Path, asked: Todo) -> None:
    store = Store(here / "r")
    store.write(record_of(spec_of(), 0, status="failed"))
    store.write(record_of(spec_of(), 1, status="diverged"))
    reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--results", "r", "--seeds", "0,1")
    assert [seed for _, _, seed in asked] == [0]


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("diverged", 0)])
def test_runs_without_a_result_are_named(here: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    monkeypatch.setattr(
        runner, "run_all", lambda todo, context: [record_of(spec, seed, status=status) for _, spec, seed in todo]
    )
    result = reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--seeds", "0")
    assert result.exit_code == code
    assert f"{status}: {spec_of().run_id(0)}: made up" in result.stderr


def test_a_run_that_was_killed_makes_the_exit_code_1_and_the_others_are_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_all(todo: Todo, context: runner.Context) -> list[RunRecord]:
        context.store.write(record_of(*todo[0][1:]))
        return [record_of(*todo[0][1:])]

    monkeypatch.setattr(runner, "run_all", run_all)
    result = reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--seeds", "0,1")
    assert result.exit_code == 1 and "50.00 (n = 1)" in result.stdout


def test_the_backends_options_reach_the_runner(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[runner.Context] = []

    def run_all(_todo: Todo, context: runner.Context) -> list[RunRecord]:
        given.append(context)
        return []

    monkeypatch.setattr(runner, "run_all", run_all)
    line = "table2 --protocol tiny --seeds 0 --device cpu --rows CKCNN-7 --backend slurm --stall-limit 2m --time 4h"
    line += " --max-jobs 5 --partition gpu --sbatch account=lab --sbatch --exclusive"
    reproduce(*line.split())
    (context,) = given
    assert (context.backend, context.stall_limit, context.jobs) == ("slurm", 120.0, plan.cores())
    cluster = context.cluster
    assert (cluster.partition, cluster.time, cluster.max_jobs, cluster.pack) == ("gpu", 14_400.0, 5, None)
    assert cluster.sbatch == (("account", "lab"), ("exclusive", ""))
    reproduce(*line.replace("slurm", "inline").split())
    assert given[-1].jobs == 1


def test_the_gpus_are_counted_once_for_a_command(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    looks: list[None] = []

    def usable() -> list[gpus.Gpu]:
        looks.append(None)
        return [gpus.Gpu(name=name) for name in "abc"]

    def run_all(_todo: Todo, context: runner.Context) -> list[RunRecord]:
        given.append(context.jobs)
        return []

    monkeypatch.setattr(gpus, "usable", usable)
    monkeypatch.setattr(runner, "run_all", run_all)
    reproduce("table4", "--protocol", "tiny", "--device", "cuda", "--seeds", "0", "--backend", "local")
    assert given == [3] and len(looks) == 1


def test_options_make_the_request(here: Path, asked: Todo) -> None:
    line = "table2 --protocol quick --recipe sgd --epochs 8 --size-epochs 2 --train-images 10000 --no-run"
    assert reproduce(*line.split()).exit_code == 0
    request = cli._request(
        "table2", seeds="0", results=None, protocol="quick", recipe="sgd", epochs=8, size_epochs=2, train_images=10_000
    )
    assert request.protocol.name == "quick-sgd-8e-2se-10000"
    assert request.results == Path("results")


def test_one_panel_alone_can_be_asked_for(here: Path) -> None:
    deep = reproduce("ablation", "--depths", "20..32", "--list").stdout.splitlines()
    assert deep == ["EffConv-20 0.66M", "EffConv-26 0.66M", "EffConv-32 0.66M"]
    small = reproduce("ablation", "--budgets", "0.1..0.2", "--list").stdout.splitlines()
    assert small == ["EffConv-20 0.10M", "EffConv-20 0.20M"]
    both = reproduce("ablation", "--depths", "20..56", "--budgets", "0.1..0.5", "--list").stdout
    assert both == reproduce("figure3", "--list").stdout == reproduce("ablation", "--list").stdout


def test_rows_without_runs(here: Path, asked: Todo) -> None:
    before = reproduce("table2", "--protocol", "tiny", "--rows", "FlexNet-*", "--no-run")
    assert before.exit_code == 0
    assert set(states(before.stdout).values()) == {"not run"}
    assert "Of the paper's 19 rows 0 have runs, 19 are not run." in before.stdout
    assert asked == []
    after = reproduce("table2", "--protocol", "tiny", "--rows", "FlexNet-*,DCN*", "--seeds", "0")
    assert after.exit_code == 0
    chosen = {"DCN-sigma^ji", "FlexNet-3", "FlexNet-5", "FlexNet-16"}
    assert {name for name, _, _ in asked} == chosen
    assert {name for name, state in states(after.stdout).items() if state != "not run"} == chosen
    assert "Of the paper's 19 rows 4 have runs, 15 are not run." in after.stdout


def test_dry_run_prints_the_plan_and_writes_nothing(here: Path, asked: Todo) -> None:
    result = reproduce("table2", "--protocol", "quick", "--rows", "EffConv-20 0.66M,CKCNN-7", "--dry-run")
    assert result.exit_code == 0
    for seed in (0, 1, 2):
        assert f"CKCNN-7, seed {seed}, quick: to run, about " in result.stdout
    assert "0 of 6 runs are finished" in result.stdout
    (entry, *_) = json.loads(
        reproduce("table2", "--protocol", "quick", "--rows", "EffConv-20 0.66M", "--dry-run", "--json").stdout
    )
    assert entry["record"] == f"runs/cifar10/effconv-20-0.66M/quick/{spec_of(protocol='quick').run_id(0)}.json"
    assert (entry["finished"], entry["seed"]) == (False, 0)
    assert asked == []
    assert list(here.iterdir()) == []


def some_images(folder: Path) -> Path:
    """A folder that the suite takes for CIFAR-10: class folders, one small image in each."""
    from PIL import Image

    for split in ("train", "test"):
        for number in range(10):
            path = folder / "cifar10" / split / f"{number}" / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (32, 32), (number, 0, 0)).save(path)
    return folder


def test_long_work_says_so_names_cheaper_protocols_and_goes_on(here: Path, asked: Todo) -> None:
    images = str(some_images(here / "images"))
    line = ("table2", "--rows", "EffConv-20 0.66M", "--data-root", images, "--device", "cpu", "--cache", "cache")
    result = reproduce(*line)
    assert result.exit_code == 0, result.stderr
    assert len(asked) == 3
    assert asked[0][1].data.source.startswith("other-")
    warning = next(line for line in result.stderr.splitlines() if "rough estimate" in line)
    assert "3 runs on the CPU, about" in warning
    assert "--protocol quick (about" in warning
    assert "--protocol tiny" in warning
    assert "warning" not in reproduce("table2", "--protocol", "tiny").stderr


def test_without_images_the_line_says_where_to_get_them(here: Path, asked: Todo) -> None:
    result = reproduce("table1", "--seeds", "0")
    assert result.exit_code == 1
    assert "error: no images of mnist: name their folder with --data-root" in result.stderr
    missing = reproduce("table1", "--seeds", "0", "--data-root", str(here / "nowhere"))
    assert missing.exit_code == 1
    assert "--data-root" in missing.stderr
    assert asked == []


def test_finished_runs_of_any_images_count_where_there_are_none(here: Path, asked: Todo) -> None:
    spec = spec_of("EffConv-20 0.66M", protocol="quick", source="other-01234567")
    Store(here / "results").write(record_of(spec, 0))
    result = reproduce("table2", "--protocol", "quick", "--rows", "EffConv-20 0.66M", "--seeds", "0")
    assert result.exit_code == 0, result.stderr
    assert "nothing to run: 1 of 1 runs are finished" in result.stderr


def test_a_bad_record_blocks_its_own_run_only(here: Path, asked: Todo) -> None:
    store = Store(here / "r")
    bad = store.path(spec_of(), 1)
    bad.parent.mkdir(parents=True)
    bad.write_text("[1]")
    result = reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--results", "r")
    assert result.exit_code == 1
    assert [seed for _, _, seed in asked] == [0, 2]
    assert "delete it and run again, or restore it from git" in result.stderr
    assert bad.read_text() == "[1]"
    assert "EffConv-20 0.66M" in result.stdout


def raising(fault: BaseException) -> Callable[..., Any]:
    def run_all(*_: object) -> None:
        raise fault

    return run_all


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (Interrupted(), "stopped; the same command goes on from here"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: no space left; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "r/runs"), "error: cannot use r/runs: Permission denied"),
    ],
)
def test_faults_of_the_surroundings(
    here: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, line: str
) -> None:
    monkeypatch.setattr(runner, "run_all", raising(fault))
    result = reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M")
    assert result.exit_code == 1
    assert result.stderr.strip().splitlines()[-1].startswith(line)
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_fault_of_the_code_is_not_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run_all", raising(RuntimeError("a bug")))
    result = reproduce("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M")
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there(here: Path) -> None:
    result = reproduce("table2", "--protocol", "tiny", "--rows", "control:*", "--seeds", "0", "--device", "cuda")
    assert result.exit_code == 1
    assert "--device cpu" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with cli.stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert signal.getsignal(number) == before  # a second signal acts as ever
    assert signal.getsignal(number) == before


def test_the_main_job_end_to_end(here: Path) -> None:
    """Size learning, training, record, table and figure at `tiny` on the bundled digits, through the command line."""
    line = ("table2", "--protocol", "tiny", "--rows", "EffConv-20 0.66M", "--seeds", "0", "--device", "cpu")
    result = reproduce(*line)
    assert result.exit_code == 0, result.stderr
    (record,) = Store(here / "build/tiny").records()
    assert record.outcome.status == "finished"
    assert record.params.eq3 is not None
    assert abs(record.params.eq3 / 660_000 - 1) <= 0.01
    assert result.stdout.startswith("# Smoke test")
    assert "Figure 2: build/tiny/rendered/figure2.tiny.png" in result.stdout
    assert (here / "build/tiny/rendered/figure2.tiny.png").is_file()
    table = json.loads(reproduce(*line, "--json").stdout)
    assert isinstance(table, dict)
    figure = reproduce("figure2", "--protocol", "tiny", "--no-run")
    assert figure.stdout.splitlines() == [f"build/tiny/rendered/figure2.tiny.{kind}" for kind in ("png", "svg")]


def test_nothing_to_draw_yet(here: Path) -> None:
    result = reproduce("figure3", "--protocol", "tiny", "--no-run")
    assert result.exit_code == 0
    assert "nothing to draw yet" in result.stderr
    assert result.stdout == ""
    assert list(here.iterdir()) == []


def test_models_json() -> None:
    entries = json.loads(reproduce("models", "--json").stdout)
    by_name = {(entry["table"], entry["name"]): entry for entry in entries}
    assert len(by_name) == len(entries)
    assert {entry["table"] for entry in entries} == {"table1", "table2", "table3", "table4", None}
    wanted = {"name", "table", "total_params", "eq3_params", "macs", "layers", "paper_size"}
    assert all(wanted <= entry.keys() for entry in entries)
    resnet = by_name["table2", "CIFARResNet-44"]
    assert (resnet["total_params"], resnet["eq3_params"], resnet["layers"]) == (658_586, 654_336, 44)
    assert resnet["paper_size"] == "0.66M"
    assert by_name["table2", "FlexNet-16"]["total_params"] == 671_650
    assert all(entry["total_params"] > 0 for entry in entries)
    assert by_name[None, "EffConv-56 0.66M"]["eq3_params"] == 847_872


def test_models_as_text() -> None:
    text = reproduce("models").stdout
    assert "Wide-EffConv-28-1 0.66M" in text
    assert "658,586" in text


def test_status(here: Path) -> None:
    store = Store(here / "results")
    store.write(record_of(spec_of(protocol="quick", source="canonical"), 0))
    store.write(record_of(spec_of(protocol="quick", source="canonical"), 2, status="diverged"))
    store.resume_dir(spec_of(), 1).mkdir(parents=True)
    (store.runs / "bad.json").write_text("[]")
    SizeStore(here / "results").write(made("shuffled", 3, [3.0] * 18))
    entry = json.loads(reproduce("status", "--json").stdout)
    assert [(one["labels"], one["seeds"]) for one in entry["sizes"]] == [("shuffled", [3])]
    assert entry["records"] == 2
    assert {cell["experiment"] for cell in entry["cells"]} == {"table2", "figure2", "figure3"}
    assert entry["cells"][0]["seeds"] == {"0": "finished", "2": "diverged"}
    assert entry["unfinished"] == [spec_of().run_id(1)]
    assert len(entry["problems"]) == 1
    text = reproduce("status").stdout
    assert "table2, quick: EffConv-20 0.66M: seeds 0, 2 (diverged)" in text
    assert "sizes alone: cifar10, cifar_resnet 660,000, 1,000 steps, shuffled labels: seeds 3" in text
    assert "0 records" in reproduce("status", "--results", "nowhere").stdout


def test_data(here: Path) -> None:
    images = str(some_images(here / "images"))
    entries = json.loads(reproduce("data", "--data-root", images, "--cache", "cache", "--json").stdout)
    found = {entry["name"]: entry for entry in entries}
    assert set(found) == set(cli.DATASETS)
    assert found["cifar10"]["train_images"] == 10
    assert found["mnist"]["state"] == "not found"
    assert "cifar10: CIFAR-10" in reproduce("data", "cifar10", "--data-root", images).stdout
    missing = reproduce("data", "mnist", "--data-root", images)
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: ")
