"""Figures' data, the rendered folder, and what is called stale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reproduce.report import figures
from reproduce.report.figures import figure_data
from reproduce.report.rendered import stale, write, write_all
from reproduce.report.shelf import Shelf
from reproduce.specs import Protocol
from reproduce.store import Store
from tests.reproduce.factory import JPEG, make_record, spec_of, store_with

PAPER = Protocol.parse("paper")
ROW = "EffConv-20 0.66M"


def data_of(experiment: str, store: Store, protocol: str = "paper") -> dict[str, Any]:
    found = figure_data(experiment, Protocol.parse(protocol), Shelf.of(store))
    assert found is not None
    return found


def two_budgets(folder: Path, **changes: Any) -> Store:
    small, large = (spec_of(f"EffConv-20 0.{tenth}0M", "figure3") for tenth in (1, 2))
    records = [make_record(spec, seed, 90.0 + seed, **changes) for spec in (small, large) for seed in range(2)]
    return store_with(folder, *records, make_record(spec_of(ROW), 0, 92.0, **changes))


def test_figure_2_holds_the_sizes_of_every_seed_and_the_kernels_of_the_first(tmp_path: Path) -> None:
    sizes = [3, 4, 5, 6, 7, 1] * 3
    found = data_of(
        "figure2", store_with(tmp_path, *(make_record(spec_of(ROW), seed, 91.0, sizes=sizes) for seed in (0, 2)))
    )
    assert [run["seed"] for run in found["runs"]] == [0, 2]
    assert found["runs"][0]["sizes"] == sizes
    assert found["layers"][:3] == ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"]
    assert found["kernels_of_seed"] == 0
    assert (
        [len(one["kernel"]) for one in found["kernels"]] == [len(one["mean_abs"]) for one in found["kernels"]] == sizes
    )
    assert "seeds 0, 2" in found["subtitle"] and "paper's full schedule" in found["subtitle"]


def test_figure_3_holds_points_with_the_papers_where_it_prints_them(tmp_path: Path) -> None:
    found = data_of("figure3", two_budgets(tmp_path))
    assert [point["depth"] for point in found["a"]] == [20, 26, 32, 38, 44, 50, 56]
    assert [point["budget"] for point in found["b"]] == [100_000, 200_000, 300_000, 400_000, 500_000]
    assert found["a"][0]["accuracy"]["mean"] == 92.0 and found["a"][1]["accuracy"] is None
    assert found["b"][0]["accuracy"]["mean"] == 90.5 and found["b"][0]["accuracy"]["n"] == 2
    assert found["b"][0]["paper"]["accuracy"] == 90.24
    assert [point["paper"]["accuracy"] if point["paper"] else None for point in found["b"]] == [
        90.24, 91.78, None, None, 92.30
    ]  # fmt: skip
    assert found["a"][-1]["paper"]["seconds"] == 31 and found["a"][-1]["paper"]["accuracy"] is None
    assert [row["budget"] for row in found["c"]] == [100_000, 200_000]
    assert found["a"][0]["seconds"]["all_epochs"]["mean"] == pytest.approx(80 / 3, abs=1e-6)
    assert found["machine"]["title"] == "Example CPU (2 cores), torch 2.9.0"


def test_figure_3_keeps_to_one_source_and_shows_depths_beyond_the_papers(tmp_path: Path) -> None:
    spec = spec_of(ROW)
    deeper = spec.model_copy(update={"model": spec.model.model_copy(update={"args": {"depth": 62}})})
    other = spec_of("EffConv-32 0.66M", source=JPEG)
    records = make_record(spec, 0, 92.0), make_record(deeper, 0, 93.0), make_record(other, 0, 70.0)
    found = data_of("figure3", store_with(tmp_path, *records))
    assert [point["depth"] for point in found["a"]][-2:] == [56, 62]
    assert found["a"][2]["accuracy"] is None and found["a"][-1]["accuracy"]["mean"] == 93.0


def test_digits_are_a_smoke_test_without_points_of_the_paper_or_seconds(tmp_path: Path) -> None:
    specs = [spec_of(row, protocol="tiny", source="digits") for row in (ROW, "EffConv-32 0.66M")]
    found = data_of("figure3", store_with(tmp_path, *(make_record(spec, 0, 12.5) for spec in specs)), "tiny")
    assert found["title"].startswith("Smoke test on digits")
    assert all(point["paper"] is None and point["seconds"] is None for point in found["a"] + found["b"])


def test_tiny_and_shared_runs_yield_no_seconds(tmp_path: Path) -> None:
    found = data_of("figure3", two_budgets(tmp_path, shared_device=True))
    assert all(point["seconds"] is None for point in found["a"] + found["b"])
    assert found["machine"] is None


def test_one_point_is_no_curve(tmp_path: Path) -> None:
    assert figure_data("figure3", PAPER, Shelf.of(store_with(tmp_path, make_record(spec_of(ROW), 0, 92.0)))) is None


def test_no_record_no_figure(tmp_path: Path) -> None:
    assert figure_data("figure2", PAPER, Shelf.of(Store(tmp_path))) is None
    diverged = store_with(tmp_path, make_record(spec_of(ROW), 0, status="diverged"))
    assert figure_data("figure2", PAPER, Shelf.of(diverged)) is None


def test_pictures_are_the_same_bytes_for_the_same_data(tmp_path: Path) -> None:
    store = two_budgets(tmp_path)
    for experiment in ("figure2", "figure3"):
        data = data_of(experiment, store)
        once, again = figures.pictures(data), figures.pictures(json.loads(figures.as_text(data)))
        assert once == again
        assert once["png"].startswith(b"\x89PNG") and b"<dc:date>" not in once["svg"]


def test_write_all_and_what_is_stale(tmp_path: Path) -> None:
    store, folder = two_budgets(tmp_path), tmp_path / "rendered"
    assert len(stale(store, folder)) == 11  # README, a table, two figures of three files, claims, the report's two
    written = write_all(store, folder)
    assert {path.name for path in written} == {path.name for path in folder.iterdir()} == {
        "README.md", "table2.paper.md", "figure2.paper.json", "figure2.paper.png", "figure2.paper.svg",
        "figure3.paper.json", "figure3.paper.png", "figure3.paper.svg", "claims.md", "report.html", "report.md",
    }  # fmt: skip
    assert stale(store, folder) == []
    assert "[figure2.paper](figure2.paper.svg)" in (folder / "README.md").read_text()

    (folder / "figure2.paper.svg").unlink()
    (folder / "figure3.paper.json").write_text("{}\n")
    (folder / "table9.old.md").touch()
    (folder / "notes.md").touch()  # no file of ours
    lines = stale(store, folder)
    names = ["figure2.paper.svg", "figure3.paper.json", "report.html", "table9.old.md"]
    assert [line.split(":")[0] for line in lines] == names
    assert all("regenerate with" in line for line in lines)
    write_all(store, folder)
    assert stale(store, folder) == []
    assert (folder / "notes.md").exists() and not (folder / "table9.old.md").exists()


def test_a_new_record_makes_table_figure_and_index_stale(tmp_path: Path) -> None:
    store, folder = two_budgets(tmp_path), tmp_path / "rendered"
    write_all(store, folder)
    store_with(tmp_path, make_record(spec_of(ROW), 1, 92.5))
    names = {line.split(":")[0] for line in stale(store, folder)}
    of_figures = {"figure2.paper.json", "figure3.paper.json"}
    assert names == of_figures | {"README.md", "table2.paper.md", "claims.md", "report.md", "report.html"}


def test_pictures_of_unchanged_data_are_not_drawn_again(tmp_path: Path) -> None:
    store, folder = two_budgets(tmp_path), tmp_path / "rendered"
    write_all(store, folder)
    (folder / "figure2.paper.png").write_bytes(b"kept")
    write_all(store, folder)
    assert (folder / "figure2.paper.png").read_bytes() == b"kept"


def test_write_one_experiment_alone(tmp_path: Path) -> None:
    store, folder = two_budgets(tmp_path), tmp_path / "rendered"
    assert [path.name for path in write("table2", PAPER, store, folder)] == ["table2.paper.md"]
    assert write("table1", PAPER, store, folder) == []
    assert [path.name for path in folder.iterdir()] == ["table2.paper.md"]


def test_drawing_never_loads_torch(tmp_path: Path) -> None:
    two_budgets(tmp_path)
    code = (
        "import sys; from pathlib import Path; from reproduce.store import Store\n"
        "from reproduce.report.rendered import write_all\n"
        f"assert write_all(Store(Path({str(tmp_path)!r})), Path({str(tmp_path / 'rendered')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
