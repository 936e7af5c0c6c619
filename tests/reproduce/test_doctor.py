"""doctor: what is broken is named with its mend and costs an exit code; what is merely absent does not."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from reproduce.cli import main
from reproduce.findings import Finding, page
from reproduce.report import health, rendered
from reproduce.run import doctoring, inventory, machine
from reproduce.run.inventory import Row
from tests.reproduce.factory import make_record, spec_of, store_with

ROW = "EffConv-20 0.66M"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory on a machine with enough room, no GPU and no SLURM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctoring.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctoring.shutil, "disk_usage", lambda place: Usage(0, 0, 100 * 2**30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctoring, "DRIVER", tmp_path / "nvidia0")
    return tmp_path


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def states(found: list[Finding]) -> list[str]:
    return [one.state for one in found]


def test_a_fresh_checkout_is_well(here: Path) -> None:
    result = reproduce("doctor")
    assert result.exit_code == 0, result.output
    assert "reproduce data mnist --download" in " ".join(result.stdout.split())
    assert result.stdout.splitlines()[-1].endswith("0 BROKEN")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_stale_renderings_and_unreadable_records_are_broken(here: Path) -> None:
    record = make_record(spec_of(ROW))
    store = store_with(here / "results", record)
    assert states([one for one in health.findings(here / "results") if one.topic == "renderings"])[0] == "broken"
    rendered.write_all(store, here / "results/rendered")
    assert set(states(health.findings(here / "results"))) == {"ok"}
    path = store.path(record.spec, 0)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    result = reproduce("doctor", "--json")
    assert result.exit_code == 1
    broken = [one for one in json.loads(result.stdout) if one["state"] == "broken"]
    assert broken[0]["topic"] == "records" and record.run_id in broken[0]["text"]
    assert broken[0]["mend"] == "delete it and run again, or restore it from git"


def test_a_machine_that_is_missing_and_a_run_that_is_unfinished(here: Path) -> None:
    store = store_with(here, make_record(spec_of(ROW), machine="ffff"))
    rendered.write_all(store, here / "rendered")
    (here / ".resume" / "abc-s0").mkdir(parents=True)
    found = {one.state: one for one in health.findings(here)}
    assert "machines/ffff.json is missing" in found["broken"].text and "abc-s0" in found["note"].text


def test_data_sets_are_well_other_missing_or_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Row(
            name="mnist", title="MNIST", source="canonical", canonical=True, train_images=6, test_images=1, state="fine"
        ),
        Row(name="cifar10", title="JPEGs", source="other-1", train_images=6, test_images=1, state="none is canonical"),
        Row(name="stl10", title="STL-10", state="not found"),
        Row(name="imagenet32", title="ImageNet-32", state="val_data is truncated; fetch it again"),
    ]
    monkeypatch.setattr(inventory, "listing", lambda root, cache: rows)
    found = doctoring.data(Path("data"), None)
    assert states(found) == ["ok", "note", "note", "broken"]
    assert "truncated" in found[3].text and all(one.mend for one in found[1:])


@pytest.mark.parametrize(("free", "expected"), [(0.5, "broken"), (3.0, "note"), (50.0, "ok")])
def test_room_on_the_disk(free: float, expected: str) -> None:
    assert doctoring.room("records", free).state == expected


def test_a_driver_without_a_usable_gpu_is_broken(here: Path) -> None:
    assert doctoring.gpu().state == "note"
    doctoring.DRIVER.touch()
    assert doctoring.gpu().state == "broken"


def test_part_of_slurm_is_broken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctoring.slurm().state == "note"
    monkeypatch.setattr(doctoring.shutil, "which", lambda name: "x" if name == "sbatch" else None)
    found = doctoring.slurm()
    assert found.state == "broken" and "squeue" in found.text and "sbatch" not in found.text
    monkeypatch.setattr(doctoring.shutil, "which", lambda name: "x")
    assert doctoring.slurm().state == "ok"


@pytest.mark.parametrize(
    ("version", "sign", "bound", "expected"),
    [
        ("2.15.0+cu132", ">=", "2.8", True),
        ("2.15.0+cu132", "<", "3", True),
        ("3.0", "<", "3", False),
        ("2.7.9", ">=", "2.8", False),
        ("0.2.4", ">=", "0.2.4", True),
        ("0.3", "<", "0.3", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, sign: str, bound: str, expected: bool) -> None:
    assert doctoring.holds(version, sign, bound) is expected


def test_requirements_out_of_range_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version", {"torch": "2.0.1", "numpy": "2.1"}.get)
    lines = ["torch<3,>=2.8", "numpy<3,>=2.0", "nothing>=1", 'pytest>=8; extra == "dev"']
    assert doctoring.unmet(lines) == ["torch (2.0.1)", "nothing (not installed)"]


def test_versions_against_those_of_the_records() -> None:
    here = {"torch": "2.9.0", "cpu": "A", "cores": 2}
    assert states(doctoring.against_records(here, [])) == []
    assert states(doctoring.against_records(here, [here | {"torch": "2.8.0"}, here | {"cores": 4}])) == ["ok"]
    (found,) = doctoring.against_records(here, [here | {"torch": "2.8.0"}, here | {"torch": "2.8.0", "cpu": "B"}])
    assert found.state == "note" and "torch 2.8.0" in found.text and "cpu" not in found.text


def test_a_page_tells_state_text_and_mend() -> None:
    found = [
        Finding(topic="data", state="ok", text="all well"),
        Finding(topic="disk", state="broken", text="\x1b[31mfull\nup " + "x" * 100, mend="free some"),
    ]
    lines = page(found, {"ok": "ok", "broken": "BROKEN"})
    assert lines[0] == "data" and lines[2:4] == ["", "disk"] and lines[-1] == "1 ok, 1 BROKEN"
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert lines[-3].strip() == "mend: free some"
