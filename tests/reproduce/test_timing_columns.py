"""Seconds by the stopwatch in tables and figures: one column for each place, nothing mixed, no time that is none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reproduce import listings
from reproduce.floors import floor, floor_seconds
from reproduce.report import figures, ratios
from reproduce.report.figures import figure_data
from reproduce.report.rendered import stale, write_all
from reproduce.report.shelf import Shelf, pace
from reproduce.report.tables import render_table, table_json, terminal_table
from reproduce.report.words import ratio, seconds
from reproduce.specs import Protocol
from reproduce.store import Store, write_atomically
from reproduce.timing_store import TimingStore
from reproduce.timings import (
    Certificate,
    PairTiming,
    RowTiming,
    Side,
    StageTiming,
    pair_timing_id,
    row_timing_id,
)
from tests.reproduce.factory import JPEG, make_record, spec_of, store_with

ROW, FLEXNET, RESNET = "EffConv-20 0.66M", "FlexNet-16", "CIFARResNet-44"
PAPER = Protocol.parse("paper")
CPU, GPU = "0123456789ab", "ba9876543210"
MACHINES = {CPU: "Example CPU", GPU: "Example GPU"}
WHEN: dict[str, Any] = {"started": "2030-01-01T00:00:00Z", "finished": "2030-01-01T00:10:00Z"}
ON_CPU = "s/epoch ours (Example CPU (2 cores), torch 2.9.0; random images): weighted by epochs / mean of stages"
ON_GPU = "s/epoch ours (Example GPU, torch 2.9.0; random images, graph, bf16): weighted by epochs / mean of stages"
OF_RUNS = "s/epoch ours (during the runs, on their data): all epochs / mean of the stages"
FAST: dict[str, Any] = {"device": "cuda", "engine": "graph", "precision": "bf16"}


def stage(value: float, epochs: int, *, how: Any = "epochs", steps: int = 3) -> StageTiming:
    return StageTiming(
        seconds=value, how=how, samples=[value] * steps, parts={"steps": value}, one_off={"capture": 1.5},
        evaluation_seconds=0.5, images=50_000, batch_size=64, steps=782, epochs=epochs, floor_seconds=value / 20,
    )  # fmt: skip


def certificate(device: str, invalid: str = "", warnings: list[str] | None = None) -> Certificate:
    name = "Example GPU" if device == "cuda" else "Example CPU"
    return Certificate(
        device=name, threads=1, load_before=0.1, load_after=1.0, invalid=invalid, warnings=warnings or []
    )


def row_timing(
    name: str = ROW,
    size_learning: float | None = 40.0,
    training: float | None = 20.0,
    *,
    experiment: str = "table2",
    device: Any = "cpu",
    how: Any = "epochs",
    invalid: str = "",
    warnings: list[str] | None = None,
    **changes: Any,
) -> RowTiming:
    """A timing under `paper` on made-up images; `changes` replace fields of the spec or of the record."""
    of_spec = {key: changes.pop(key) for key in ("engine", "precision", "threads") if key in changes}
    spec = spec_of(name, experiment, source="random", **of_spec)
    first = None if spec.size_learning is None or size_learning is None else stage(size_learning, 10, how=how, steps=8)
    record = RowTiming(
        name=name, timing_id=row_timing_id(spec, device), spec=spec, device=device,
        sizes_from="learned by seed 0 under quick", size_learning=first,
        training=None if training is None else stage(training, spec.training.epochs, how=how, steps=10),
        certificate=certificate(device, invalid, warnings), machine=GPU if device == "cuda" else CPU, code={}, **WHEN,
    )  # fmt: skip
    return record.model_copy(update=changes)


def pair_timing(
    level: Any = "ii",
    value: float = 3.0,
    *,
    kernel_size: int | None = 15,
    full_grid: bool = False,
    control: float = 1.01,
    names: tuple[str, str] = (FLEXNET, ROW),
    stages: tuple[Any, Any] = ("training", "training"),
    claim: str = "table2",
    device: Any = "cuda",
    invalid: str = "",
    cut: bool = False,
    pairs: int = 9,
    warnings: list[str] | None = None,
) -> PairTiming:
    a, b = (Side(name=name, spec=spec_of(name, claim, source="random"), stage=one)
            for name, one in zip(names, stages, strict=True))  # fmt: skip
    a = a.model_copy(update={"kernel_size": kernel_size, "full_grid": full_grid, "method": kernel_size and "fft"})
    batch = 8 if cut else 64
    return PairTiming(
        timing_id=pair_timing_id(a, b, level, device), claim=claim, level=level, a=a, b=b, batch_size=batch,
        batch_cut=cut, ratios=[value] * pairs, ratio=value, low=value - 0.1, high=value + 0.1,
        control=[control] * pairs, control_ratio=control, device=device,
        certificate=certificate(device, invalid, warnings), machine=GPU if device == "cuda" else CPU, code={}, **WHEN,
    )  # fmt: skip


def timed(folder: Path, *timings: RowTiming | PairTiming) -> Store:
    """A store with these timings and the two machines, and no runs."""
    for machine, name in MACHINES.items():
        gpu = name if machine == GPU else None
        about = {"cpu": "Example CPU", "cores": 2, "gpu": gpu, "torch": "2.9.0"}
        write_atomically(folder / "machines" / f"{machine}.json", about)
    for timing in timings:
        TimingStore(folder).write(timing)
    return Store(folder)


def rendered(store: Store, experiment: str = "table2", protocol: str = "paper") -> str:
    return render_table(experiment, Protocol.parse(protocol), store)


def cells(text: str, row: str = ROW) -> dict[str, str]:
    """The first line of this row by column, without the marks of footnotes."""
    lines = [[re.sub(r"\[\^\d+\]", "", part).strip() for part in line.strip("|").split("|")]
             for line in text.splitlines() if line.startswith("|")]  # fmt: skip
    return dict(zip(lines[0], next(line for line in lines if line[0] == row), strict=True))


def grids(text: str, head: str) -> list[list[str]]:
    """The body of all grids whose first column has this name and that stand below "## Time ratios"."""
    found: list[list[str]] = []
    inside = False
    for line in text.split("## Time ratios")[1].split("\n## ")[0].splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or head in parts)
        if inside and head not in parts and not line.startswith("|--"):
            found.append(parts)
    return found


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [("fft", None, "fft"), (None, None, "-"), ("fft", "auto", "fft / auto"), (None, "auto", "direct / auto")],
)
def test_how_both_convolve_is_told_where_there_was_a_choice(a: str | None, b: str | None, told: str) -> None:
    pair = pair_timing()
    sides = {"a": pair.a.model_copy(update={"method": a}), "b": pair.b.model_copy(update={"method": b})}
    assert ratios.methods(pair.model_copy(update=sides)) == told


def test_each_place_has_a_column_of_its_own(tmp_path: Path) -> None:
    store = timed(tmp_path, row_timing(), row_timing(RESNET, None, 30.0), row_timing(ROW, 0.8, 0.402, **FAST))
    found = cells(rendered(store))
    assert list(found)[-3:] == ["s/epoch (paper; another, unnamed machine)", ON_GPU, ON_CPU]
    assert found[ON_CPU] == "20.6 / 30.0"  # (10 x 40 + 350 x 20) / 360, and the mean of 40 and 20: R-23
    assert found[ON_GPU] == "0.413 / 0.601"
    assert cells(rendered(store), RESNET)[ON_CPU] == "30.0"  # it has one stage
    assert cells(rendered(store), RESNET)[ON_GPU] == "-"
    assert cells(rendered(store), "EffConv-32 0.66M")[ON_CPU] == "-"
    assert found["s/epoch (paper; another, unnamed machine)"] == "17.77"


def test_machines_that_read_alike_are_told_apart_and_threads_are_named(tmp_path: Path) -> None:
    store = timed(tmp_path, row_timing(), row_timing(machine="aaaaaaaaaaaa"), row_timing(threads=2))
    write_atomically(tmp_path / "machines/aaaaaaaaaaaa.json", store.machine(CPU))
    columns = [name for name in cells(rendered(store)) if name.startswith("s/epoch ours")]
    assert len(columns) == len(set(columns)) == 3
    assert sum("2 threads" in name for name in columns) == 1
    assert sum("machine aaaaaaaaaaaa" in name for name in columns) == 1


def test_an_extrapolated_time_is_marked_and_the_origin_of_the_sizes_named(tmp_path: Path) -> None:
    text = rendered(timed(tmp_path, row_timing(how="steps")))
    assert cells(text)[ON_CPU] == "~20.6 / 30.0"
    assert "]: Extrapolated from 8 timed steps of size learning and 10 of training." in text
    assert "]: Sizes: learned by seed 0 under quick." in text
    assert "Extrapolated" not in rendered(timed(tmp_path / "whole", row_timing()))


def test_what_is_no_timing_is_never_shown_as_one(tmp_path: Path) -> None:
    invalid = row_timing(RESNET, None, 77.7, invalid="another process on the GPU", **FAST)
    failed = row_timing(FLEXNET, None, 88.8, outcome="failed", reason="out of memory", **FAST)
    half = row_timing(ROW, None, 20.0, **FAST)
    store = timed(tmp_path, invalid, failed, half, row_timing("EffConv-44 0.66M", training=None, **FAST))
    text = rendered(store)
    assert cells(text, RESNET)[ON_GPU] == "invalid: another process on the GPU"
    assert cells(text, FLEXNET)[ON_GPU] == "failed" and "Not timed: out of memory." in text
    assert cells(text)[ON_GPU] == "20.0" and "Training alone: size learning was not timed." in text
    assert cells(text, "EffConv-44 0.66M")[ON_GPU] == "-" and "Size learning alone was timed." in text
    assert "77.7" not in text and "88.8" not in text
    lines = {row["name"]: row["timings"] for row in table_json("table2", PAPER, store)["rows"]}
    assert [lines[name][0]["valid"] for name in (RESNET, FLEXNET, ROW)] == [False, False, True]
    assert lines[RESNET][0]["training"] is lines[RESNET][0]["weighted"] is None
    assert lines[RESNET][0]["reason"] == "another process on the GPU"


def test_seconds_of_runs_keep_a_column_of_their_own(tmp_path: Path) -> None:
    store_with(tmp_path, make_record(spec_of(RESNET), 0, 91.0))
    text = rendered(timed(tmp_path, row_timing()))
    assert cells(text, RESNET)[OF_RUNS] == "20.00 (n = 1)" and cells(text, RESNET)[ON_CPU] == "-"
    assert cells(text)[OF_RUNS] == "-" and cells(text)[ON_CPU] == "20.6 / 30.0"
    store_with(tmp_path / "shared", make_record(spec_of(RESNET), 0, 91.0, shared_device=True))
    names = cells(rendered(timed(tmp_path / "shared", row_timing())))
    assert OF_RUNS not in names and ON_CPU in names  # it would be empty


def test_a_timing_stands_beside_the_results_of_every_protocol_of_its_recipe(tmp_path: Path) -> None:
    store = timed(tmp_path, row_timing())
    store_with(tmp_path, make_record(spec_of(ROW, protocol="quick-8e-2se-10000", source=JPEG), 0, 80.0))
    assert cells(rendered(store, protocol="quick-8e-2se-10000"))[ON_CPU] == "20.6 / 30.0"
    assert ON_CPU not in cells(rendered(store, protocol="paper-sgd"))  # another batch, another optimiser
    assert "random images" not in rendered(store, protocol="tiny")


@pytest.mark.parametrize("name", [ROW, FLEXNET, "N-JetNet-ALLCNN", "DCN-sigma^ji", "Wide-EffConv-28-1 0.66M"])
def test_the_pace_is_the_same_under_every_protocol(name: str) -> None:
    protocols = ("paper", "quick", "quick-8e-2se-500", "paper-100e")
    assert len({pace(spec_of(name, protocol=protocol)) for protocol in protocols}) == 1
    assert pace(spec_of(name)) != pace(spec_of("EffConv-20 0.50M"))


def test_stages_stand_below_with_their_floors_and_what_is_apart(tmp_path: Path) -> None:
    text = rendered(timed(tmp_path, row_timing(), row_timing(RESNET, None, 30.0, invalid="busy")))
    section = text.split("## Seconds per epoch on random images, by stage")[1].split("\n## ")[0]
    line = [part.strip() for part in section.splitlines()[4].strip("|").split("|")]
    assert line == [
        ROW, f"{CPU} (cpu)", "plain, float32", "40.0", "20.0", "20.6 / 30.0", "20 / 20", "0.500", "3.00"
    ]  # fmt: skip
    assert RESNET not in section


def test_warnings_of_certificates_are_notes(tmp_path: Path) -> None:
    warnings = ["the clocks were throttled"]
    text = rendered(timed(tmp_path, row_timing(warnings=warnings), row_timing(RESNET, None, warnings=warnings),
                          pair_timing(warnings=["busy"])))  # fmt: skip
    assert f"- Timing on machine {CPU}: the clocks were throttled ({RESNET}, {ROW})." in text
    assert f"- Timing on machine {GPU}: busy ({FLEXNET} / {ROW})." in text
    assert f"- Machine {CPU}: Example CPU (2 cores), torch 2.9.0." in text


def test_the_headline_is_the_lower_of_levels_ii_and_iii(tmp_path: Path) -> None:
    store = timed(
        tmp_path,
        pair_timing("i", 8.0), pair_timing("i", 12.0, full_grid=True), pair_timing("ii", 3.0), pair_timing("iii", 3.2),
        pair_timing("ii", 6.0, kernel_size=33), pair_timing("iii", 5.0, kernel_size=33, cut=True),
    )  # fmt: skip
    text = rendered(store)
    title, printed = f"{FLEXNET} / {ROW}", "7.15 (127 / 17.77)"
    assert "### Example GPU, torch 2.9.0 (machine ba9876543210, cuda)" in text
    assert grids(text, "headline") == [
        [title, "15", "3.00", "ii", "8.00", "12.00", "-", printed],
        [title, "33", "5.00", "iii", "-", "-", "-", printed],
    ]
    every = grids(text, "ratio")
    assert len(every) == 6
    assert every[1] == [title, "i", "15", "yes", "fft", "12.00", "11.90 to 12.10", "9", "1.010", "64"]
    assert every[-1] == [title, "iii", "33", "no", "fft", "5.00", "4.90 to 5.10", "9", "1.010", "8 (cut)"]


def test_a_headline_says_what_it_lacks(tmp_path: Path) -> None:
    busy = pair_timing("iii", 2.5, kernel_size=5, invalid="another process on the GPU")
    alone = pair_timing("i", 9.0, kernel_size=9)
    text = rendered(timed(tmp_path, pair_timing("ii", 3.0, kernel_size=5, control=1.05, pairs=3), busy, alone))
    first, second = grids(text, "headline")
    trust = "not to be trusted, its control 1.050 is outside 1.00 ± 0.03"
    assert first[2:4] == ["3.00", f"ii; level iii has no ratio; {trust}"]
    assert second[2:5] == ["-", "-", "9.00"]
    every = grids(text, "ratio")
    assert every[0][5:9] == ["3.00", "2.90 to 3.10", "3", "1.050: outside 1.00 ± 0.03"]
    assert every[1][5:9] == ["invalid: another process on the GPU", "-", "-", "-"] and "2.50" not in text


def test_a_ratio_against_both_stages_is_weighted_by_their_epochs(tmp_path: Path) -> None:
    stages = pair_timing("ii", 1.5, kernel_size=None, names=(ROW, ROW), stages=("size_learning", "training"))
    other_level = pair_timing("iii", 9.0, kernel_size=None, names=(ROW, ROW), stages=("size_learning", "training"))
    text = rendered(timed(tmp_path, pair_timing("ii", 3.0), stages, other_level))
    (line,) = grids(text, "headline")
    assert line[6] == "2.96 / 2.40"  # 3 / ((10 x 1.5 + 350) / 360), and 3 / ((1.5 + 1) / 2)
    assert grids(text, "ratio")[0][0] == f"{ROW} (size learning) / {ROW} (training)"
    (found,) = table_json("table2", PAPER, Store(tmp_path))["time_ratios"]
    assert found["headlines"][0]["both_stages_weighted"] == pytest.approx(3 * 360 / 365)
    assert found["headlines"][0]["ratio"] == 3.0 and len(found["pairs"]) == 3


@pytest.mark.parametrize(
    ("claim", "printed"),
    [("table1", "~5.72 (~205 / 35.86)"), ("table2", "7.15 (127 / 17.77)"), ("table3", "~136 (~1800 / 13.2)")],
)
def test_machines_never_share_a_block_and_the_papers_ratio_stands_beside(
    tmp_path: Path, claim: str, printed: str
) -> None:
    store = timed(tmp_path, pair_timing("ii", 3.0, claim=claim), pair_timing("iii", 2.0, claim=claim, device="cpu"))
    found = grids(rendered(store, claim), "headline")
    assert [line[2] for line in found] == ["3.00", "2.00"]
    assert {line[-1] for line in found} == {printed}
    assert "## Time ratios" not in rendered(store, "table4")


def test_json_carries_the_timings(tmp_path: Path) -> None:
    store = timed(tmp_path, row_timing(how="steps"), row_timing(ROW, 0.8, 0.4, **FAST))
    found = table_json("table2", PAPER, store)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    slow, fast = next(row for row in found["rows"] if row["name"] == ROW)["timings"]
    assert (slow["machine"], slow["device"], slow["engine"], slow["precision"]) == (CPU, "cpu", "plain", "float32")
    assert (slow["how"], slow["size_learning"], slow["training"], slow["mean_of_stages"]) == ("steps", 40, 20, 30)
    assert slow["weighted"] == pytest.approx(7400 / 360) and slow["valid"]
    assert (fast["machine"], fast["how"], fast["engine"], fast["precision"]) == (GPU, "epochs", "graph", "bf16")


def points(folder: Path) -> Store:
    specs = [spec_of(name, "figure3") for name in (ROW, "EffConv-32 0.66M", "EffConv-20 0.10M")]
    return store_with(folder, *(make_record(spec, 0, 92.0) for spec in specs))


def test_figure_3_shows_the_stopwatch_of_one_place_and_no_seconds_of_runs(tmp_path: Path) -> None:
    points(tmp_path)
    store = timed(
        tmp_path, row_timing(), row_timing("EffConv-32 0.66M", 60.0, 30.0, how="steps"),
        row_timing(ROW, 0.8, 0.4, **FAST), row_timing("EffConv-20 0.10M", experiment="figure3", invalid="busy"),
    )  # fmt: skip
    found = figure_data("figure3", PAPER, Shelf.of(store))
    assert found is not None
    assert found["machine"]["by"] == "stopwatch" and found["machine"]["id"] == CPU
    assert found["a"][0]["seconds"] == {"weighted": 7400 / 360, "mean_of_stages": 30.0, "how": "epochs"}
    assert found["a"][2]["seconds"]["how"] == "steps"
    assert found["b"][0]["seconds"] is None  # its run was timed, but in another way
    assert [len(point["timings"]) for point in found["a"][:3]] == [2, 0, 1] and not found["b"][0]["timings"][0]["valid"]
    picture = figures.pictures(found)["svg"].decode()
    assert "by the stopwatch" in picture and "during the runs" not in picture and "random images" in picture
    assert "Extrapolated from timed steps: EffConv-32 0.66M." in picture


def test_figure_3_falls_back_to_the_seconds_of_runs(tmp_path: Path) -> None:
    points(tmp_path)
    before = figure_data("figure3", PAPER, Shelf.of(Store(tmp_path)))
    after = figure_data("figure3", PAPER, Shelf.of(timed(tmp_path, row_timing(invalid="busy"))))
    assert before is not None and after is not None
    for found in (before, after):
        assert found["machine"]["by"] == "runs"
        assert found["b"][0]["seconds"]["all_epochs"]["mean"] == pytest.approx(80 / 3, abs=1e-6)
    assert "timings" not in before["a"][0] and not after["a"][0]["timings"][0]["valid"]


def test_timings_alone_have_a_table_under_paper_and_make_it_stale(tmp_path: Path) -> None:
    store, folder = timed(tmp_path, row_timing(), pair_timing(claim="table3")), tmp_path / "rendered"
    of_all = {"README.md", "claims.md", "report.html", "report.md"}
    assert {path.name for path in write_all(store, folder)} == {"table2.paper.md", "table3.paper.md"} | of_all
    assert "none: timings alone" in (folder / "README.md").read_text()
    assert "- R-23 Seconds per epoch" in (folder / "table2.paper.md").read_text()
    assert stale(store, folder) == []
    timed(tmp_path, row_timing(RESNET, None, 30.0))
    names = {line.split(":")[0] for line in stale(store, folder)}
    assert {"table2.paper.md", "report.html", "report.md"} <= names <= {"table2.paper.md"} | of_all


@pytest.mark.parametrize("experiment", ["table1", "table2", "table3", "table4"])
def test_the_terminal_table_with_timings_fits_80_columns(tmp_path: Path, experiment: str) -> None:
    row = "EffConv-20 0.50M" if experiment == "table4" else ROW
    network = "FlexNet-5" if experiment == "table4" else FLEXNET
    names = (network, row)
    timings: list[RowTiming | PairTiming] = [
        row_timing(row, 12345.6, 12345.6, experiment=experiment, how="steps"),
        row_timing(network, experiment=experiment, invalid="another process computes on the same GPU", **FAST),
        pair_timing("ii", 3.0, claim=experiment, names=names, control=1.2, device="cpu"),
        pair_timing("i", 3.0, claim=experiment, names=names, full_grid=True),
    ]
    text = terminal_table(experiment, PAPER, timed(tmp_path, *timings))
    assert max(map(len, text.splitlines())) <= 80
    assert "~12,346 / 12,346" in text and "not to be trusted" in text
    assert "invalid [" in text and "Not timed: another process computes on the same GPU." in " ".join(text.split())


def test_status_counts_timings_by_machine_and_their_problems(tmp_path: Path) -> None:
    timed(tmp_path, row_timing(), row_timing(RESNET, None, outcome="failed"))
    timed(tmp_path, pair_timing(), pair_timing("i", invalid="busy"))
    (tmp_path / "timings" / CPU / "bad.json").write_text("{}")
    found = listings.status(tmp_path)
    assert [(one["rows"], one["pairs"], one["failed"], one["invalid"]) for one in found["timings"]] == [
        (2, 0, 1, 0), (0, 2, 0, 1)
    ]  # fmt: skip
    text = listings.status_text(found)
    where = f"Example CPU (2 cores), torch 2.9.0 (machine {CPU}, cpu)"
    assert f"timings on {where}: 2 rows, 0 pairs, 1 of them failed" in text
    assert f"(machine {GPU}, cuda): 0 rows, 2 pairs, 1 of them invalid" in text
    assert f"warning: timings/{CPU}/bad.json: is no timing" in text


def test_times_and_ratios_keep_three_digits() -> None:
    assert [seconds(value) for value in (0.0402, 0.5, 17.77, 127.4, 1831.6, 9.999)] == [
        "0.0402", "0.500", "17.8", "127", "1,832", "10.00"
    ]  # fmt: skip
    assert [ratio(value) for value in (0.966, 7.147, 136.36)] == ["0.97", "7.15", "136"]


def test_a_timing_is_held_against_the_floor_of_today() -> None:
    """By the ceilings of its certificate, each stage at its own sizes; without ceilings what was noted stands."""
    ceilings = {"copy_tb_s": 0.02, "matmul_tflop_s": 0.09}
    record = row_timing(ROW)
    assert floor_seconds(record, "training") == 1.0 and floor_seconds(record, "size_learning") == 2.0  # as noted
    measured = record.model_copy(update={"certificate": record.certificate.model_copy(update={"ceilings": ceilings})})
    threes, fives = ({str(layer): size for layer in range(18)} for size in (3, 5))
    older = measured.model_copy(update={"sizes": threes})
    assert older.size_learning is not None
    newer = older.model_copy(update={"size_learning": older.size_learning.model_copy(update={"sizes": fives})})
    for held, size in ((older, 3), (newer, 5)):
        assert floor_seconds(held, "training") == floor(record.spec, "training", sizes=[3] * 18).seconds(ceilings)
        least = floor(record.spec, "size_learning", sizes=[size] * 18)
        assert floor_seconds(held, "size_learning") == least.seconds(ceilings)
    assert floor_seconds(measured.model_copy(update={"sizes": {"one": 3}}), "training") == 1.0  # no such network
    assert floor_seconds(row_timing(ROW, None), "size_learning") is None
