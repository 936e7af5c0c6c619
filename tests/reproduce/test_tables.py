"""Tables from records built by hand: exact cells, nothing mixed, nothing claimed that is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reproduce import experiments, paper
from reproduce.records import RunRecord
from reproduce.report.cells import own_sizes
from reproduce.report.tables import render_table, table_json, terminal_table
from reproduce.run import models
from reproduce.specs import PROTOCOL_VERSION, Protocol
from reproduce.store import Store
from tests.reproduce.factory import JPEG, make_record, spec_of, store_with

ROW = "EffConv-20 0.66M"
FOOTNOTE = re.compile(r"\[\^\d+\]")
SWAPPED = "CIFARResNet-44 w/ FlexConv"
OLDER = PROTOCOL_VERSION - 1


def rendered(store: Store, protocol: str = "paper", experiment: str = "table2") -> str:
    return render_table(experiment, Protocol.parse(protocol), store)


def cells(text: str, row: str = ROW) -> dict[str, str]:
    """The first markdown row of this name by column, without its footnotes' marks."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    names = None
    for line in lines:
        parts = [FOOTNOTE.sub("", part).strip() for part in line.strip("|").split("|")]
        if parts[0] == "model":
            names = parts
        if parts[0] == row and names:
            return dict(zip(names, parts, strict=True))
    raise AssertionError(f"no row {row}")


def ours(text: str, row: str = ROW) -> str:
    return next(value for name, value in cells(text, row).items() if " ours" in name and "epoch" not in name)


def three(spec_row: str = ROW, protocol: str = "paper", *, source: str = "canonical") -> list[RunRecord]:
    spec = spec_of(spec_row, protocol=protocol, source=source)
    return [make_record(spec, seed, 91.0 + seed) for seed in range(3)]


def test_a_full_row(tmp_path: Path) -> None:
    found = cells(rendered(store_with(tmp_path, *three())))
    assert list(found.values()) == [
        ROW,
        "0.66M",
        "660,000 to 662,000",
        "662,458 to 664,458",
        "92.35 ± 0.05",
        "92.00 ± 1.00 (n = 3)",
        "89.52 to 94.48",  # 92 -+ 4.3027 / sqrt(3)
        "17.77",
        "26.67 / 30.00",  # (40 + 20 + 20) / 3, and the mean of 40 and 20
    ]


def test_every_row_of_the_paper_stands_there_from_the_start_in_its_order(tmp_path: Path) -> None:
    for experiment in ("table1", "table2", "table3", "table4"):
        text = rendered(Store(tmp_path), experiment=experiment)
        printed = [row.name for row in paper.rows(experiment)]
        main = text.split("\n\n")[1]
        names = [FOOTNOTE.sub("", line.split("|")[1]).strip() for line in main.splitlines()[2:]]
        assert names == printed
        assert {ours(text, name) for name in names} == {"not run"}
        assert f"Of the paper's {len(names)} rows 0 have runs, {len(names)} are not run." in text


def test_numbers_of_the_paper_are_printed_as_it_prints_them_with_their_source(tmp_path: Path) -> None:
    text = rendered(Store(tmp_path), experiment="table1")
    assert cells(text, "FlexNet-16")["accuracy (paper)"] == "99.7 ± 0.0"
    assert cells(text, "FlexNet-16")["s/epoch (paper; another, unnamed machine)"] == "~205"
    assert "By correspondence with the authors of FlexConv; their logged run times over 350 epochs come to" in text
    assert "Cited: Lin, Chen and Yan 2013 (Network in Network)." in text
    assert "Own: measured by the authors of the paper." in text
    assert cells(rendered(Store(tmp_path)), "EffConv-20 0.50M")["accuracy (paper)"] == "92.30 ± 0.11"


def test_every_footnote_is_used_and_defined(tmp_path: Path) -> None:
    text = rendered(store_with(tmp_path, *three()))
    body, definitions = text.split("\n[^1]: ")
    used = {int(mark) for mark in re.findall(r"\[\^(\d+)\]", body)}
    assert used == set(range(1, len(definitions.splitlines()) + 1))


def test_fewer_seeds_say_so(tmp_path: Path) -> None:
    text = rendered(store_with(tmp_path, *three()[:1]))
    assert ours(text) == "91.00 (n = 1)"
    assert cells(text)["95 % interval (accuracy)"] == "-"


def test_protocols_are_never_mixed(tmp_path: Path) -> None:
    store = store_with(tmp_path, *three(protocol="quick"), make_record(spec_of(ROW), 0, 50.0))
    assert ours(rendered(store)) == "50.00 (n = 1)"
    assert ours(rendered(store, "quick")) == "92.00 ± 1.00 (n = 3)"
    assert any("ours (quick)" in name for name in cells(rendered(store, "quick")))
    assert rendered(store, "quick").startswith(
        "# Table 2: CIFAR-10, protocol quick (35 of 350 epochs of training, 1 of 10"
    )


def test_sources_are_never_mixed_and_canonical_comes_first(tmp_path: Path) -> None:
    store = store_with(tmp_path, *three(source=JPEG), make_record(spec_of(ROW), 0, 50.0))
    text = rendered(store)
    assert ours(text) == "50.00 (n = 1)"
    assert "Recorded as well: CIFAR-10 (class folders of JPEG, not the canonical files): 92.00 ± 1.00 (n = 3)." in text


def test_data_that_are_not_canonical_are_named_in_the_header(tmp_path: Path) -> None:
    text = rendered(store_with(tmp_path, *three(source=JPEG)))
    assert "accuracy ours (class folders of JPEG, not the canonical files)" in cells(text)
    assert ours(text) == "92.00 ± 1.00 (n = 3)"
    assert "source other-0123abcd, not canonical; 50,000 training and 10,000 test images" in text


def test_where_rows_differ_in_their_data_each_cell_names_them(tmp_path: Path) -> None:
    store = store_with(tmp_path, *three(source=JPEG), *three("CIFARResNet-44"))
    assert ours(rendered(store)) == "92.00 ± 1.00 (n = 3); class folders of JPEG, not the canonical files"
    assert ours(rendered(store), "CIFARResNet-44") == "92.00 ± 1.00 (n = 3); canonical files"


def test_an_old_version_is_marked_until_the_new_one_is_complete(tmp_path: Path) -> None:
    old = [make_record(spec_of(ROW), seed, 80.0, version=OLDER) for seed in range(3)]
    store = store_with(tmp_path, *old, make_record(spec_of(ROW), 0, 90.0))
    assert ours(rendered(store)) == f"80.00 ± 0.00 (n = 3); protocol v{OLDER}"
    assert "Recorded as well: CIFAR-10: 90.00 (n = 1)." in rendered(store)
    store = store_with(tmp_path, *three())
    assert ours(rendered(store)) == "92.00 ± 1.00 (n = 3)"
    assert f"Recorded as well: protocol v{OLDER}, CIFAR-10: 80.00 ± 0.00 (n = 3)." in rendered(store)


def test_diverged_and_failed_runs_are_shown_with_their_reasons(tmp_path: Path) -> None:
    spec = spec_of(ROW)
    diverged = make_record(spec, 1, status="diverged", reason="the loss is not\nfinite at step 12")
    store = store_with(tmp_path, diverged)
    assert ours(rendered(store)) == "diverged"
    assert "seed 1 diverged: the loss is not finite at step 12" in rendered(store)
    store = store_with(tmp_path, make_record(spec, 0, 91.0), make_record(spec, 2, status="failed", reason="no memory"))
    assert ours(rendered(store)) == "91.00 (n = 1); 1 diverged; 1 failed"
    assert "seed 2 failed: no memory" in rendered(store)


def test_digits_are_titled_a_smoke_test_without_the_papers_accuracies_or_seconds(tmp_path: Path) -> None:
    store = store_with(tmp_path, make_record(spec_of(ROW, protocol="tiny", source="digits"), 0, 12.5))
    for text in (rendered(store, "tiny"), rendered(Store(tmp_path / "none"), "tiny")):
        assert text.startswith("# Smoke test on digits")
        assert "s/epoch" not in text
        assert "(paper)" not in text.replace("size (paper)", "")
        for row in paper.rows("table2"):
            assert str(row.accuracy) not in text
    assert cells(rendered(store, "tiny"))["accuracy on digits (tiny; no measurement)"] == "12.50 (n = 1)"
    assert not any(
        isinstance(row["paper"], dict) for row in table_json("table2", Protocol.parse("tiny"), store)["rows"]
    )
    short = terminal_table("table2", Protocol.parse("tiny"), store)
    assert "paper" not in short.split("\n\n")[1]


def test_digits_never_stand_beside_images(tmp_path: Path) -> None:
    digits = [make_record(spec_of(ROW, protocol="tiny", source="digits"), seed, 12.5) for seed in range(3)]
    images = make_record(spec_of("CIFARResNet-44", protocol="tiny", source=JPEG), 0, 10.0)
    text = rendered(store_with(tmp_path, *digits, images), "tiny")
    assert ours(text) == "not run"
    assert ours(text, "CIFARResNet-44") == "10.00 (n = 1)"
    assert "12.50" not in text
    assert "s/epoch ours" not in text  # tiny is never timed


def test_a_shared_device_yields_no_seconds(tmp_path: Path) -> None:
    text = rendered(store_with(tmp_path, make_record(spec_of(ROW), 0, 91.0, shared_device=True)))
    assert cells(text)["s/epoch ours: all epochs / mean of the stages"] == "-"
    assert "Not timed: the device was shared." in text


def test_seconds_are_kept_apart_by_machine(tmp_path: Path) -> None:
    spec = spec_of("CIFARResNet-44")
    records = [
        make_record(spec, 0, 91.0, epoch_seconds=[10.0, 20.0], machine="0123456789ab"),
        make_record(spec, 1, 92.0, epoch_seconds=[1.0, 2.0], machine="ba9876543210"),
    ]
    text = rendered(store_with(tmp_path, *records))
    found = cells(text, "CIFARResNet-44")["s/epoch ours: all epochs / mean of the stages"]
    assert found == "15.00 (n = 1); 1.50 (n = 1)"
    assert "Timed on Example CPU (2 cores), torch 2.9.0 (machine 0123456789ab)." in text
    assert ours(text, "CIFARResNet-44") == "91.50 ± 0.71 (n = 2)"  # an accuracy may come from any machine


def test_below_the_table_stand_measures_sizes_settings_and_readings(tmp_path: Path) -> None:
    sizes = [3, 4, 5, 6, 7, 1] * 3
    record = make_record(spec_of(ROW), 0, 91.0, sizes=sizes)
    text = rendered(store_with(tmp_path, record, make_record(spec_of("control: ResNet-20"), 0, 88.0)))
    assert f"| {' '.join(map(str, sizes))} " in text
    assert "-3.21 %" in text and "+0.12 %" in text and "1 of 18 (by up to 1)" in text
    assert "| 91.50 (epoch 349) " in text and "selected on the test set" in text
    assert "350 epochs, batch 64, Adam, learning rate 0.01" in text
    assert "R-12 How final sizes are read out" in text and "R-19" not in text
    controls = text.split("## Controls")[1]
    assert ours(controls, "control: ResNet-20") == "88.00 (n = 1)"


def test_each_training_line_counts_its_own_full_schedule(tmp_path: Path) -> None:
    lines = [line for line in rendered(Store(tmp_path), "quick-6e").splitlines() if line.startswith("- Training: ")]
    full = {name: line.split(" epochs")[0] for line in lines for name in ("N-JetNet-ALLCNN", "DCN-sigma^ji", ROW)
            if name in line}  # fmt: skip
    assert full == {
        "N-JetNet-ALLCNN": "- Training: 6 of 90",
        "DCN-sigma^ji": "- Training: 6 of 100",
        ROW: "- Training: 6 of 350",
    }
    assert "- Training: 350 epochs, " in rendered(Store(tmp_path)) and " of 350 epochs" not in rendered(Store(tmp_path))


def test_kernel_sizes_of_baselines_stand_below_in_forward_order(tmp_path: Path) -> None:
    sizes = {"conv1": [1, 1], **{f"blocks.{block}.conv1": [block + 3, 5] for block in range(11)}}
    flexnet = [make_record(spec_of("FlexNet-16"), seed, 91.0, kernel_sizes=sizes) for seed in (0, 2)]
    text = rendered(store_with(tmp_path / "own", *flexnet, *three()))
    section = text.split("## Kernel sizes of the baselines\n\n")[1].split("\n\n")[0]
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in section.splitlines()[2:]]
    forward = "1 3x5 4x5 5 6x5 7x5 8x5 9x5 10x5 11x5 12x5 13x5"
    assert lines == [["FlexNet-16", "0", forward], ["FlexNet-16", "2", forward]]
    assert "## Kernel sizes" not in rendered(store_with(tmp_path / "none", *three()))


@pytest.mark.parametrize("row", ["FlexNet-5", "CKCNN-7", "N-JetNet-CIFARResNet32", "N-JetNet-ALLCNN", SWAPPED])
def test_the_order_of_kernel_sizes_is_the_networks(tmp_path: Path, row: str) -> None:
    spec = spec_of(row)
    sizes = models.kernel_sizes(models.build(spec.model, spec.data.name, 0))
    assert sizes is not None
    (record,) = store_with(tmp_path, make_record(spec, 0, 91.0, kernel_sizes=sizes)).records()
    assert list(own_sizes(record).items()) == list(sizes.items())


def test_table_4_has_top_1_and_top_5(tmp_path: Path) -> None:
    spec = spec_of("EffConv-20 0.50M", "table4")
    store = store_with(tmp_path, *(make_record(spec, seed, 31.0 + seed) for seed in range(3)))
    found = cells(rendered(store, experiment="table4"), "EffConv-20 0.50M")
    assert found["top-1 ours"] == "32.00 ± 1.00 (n = 3)" and found["top-5 ours"] == "37.00 ± 1.00 (n = 3)"
    assert found["top-1 (paper)"] == "36.07 ± 0.18" and found["top-5 (paper)"] == "60.96 ± 0.1"


@pytest.mark.parametrize("protocol", ["paper", "tiny", "quick-8e-2se-10000", "paper-sgd-100e-10se-25000"])
def test_the_terminal_table_fits_80_columns(tmp_path: Path, protocol: str) -> None:
    source = "digits" if protocol == "tiny" else JPEG
    for experiment in experiments.EXPERIMENTS:
        spec = experiments.rows(experiment, Protocol.parse(protocol), source=source)[0].spec
        store = store_with(
            tmp_path,
            make_record(spec, 0, 91.0),
            make_record(spec, 1, 12.0),
            make_record(spec, 2, status="failed", reason="x" * 200),
        )
        text = terminal_table(experiment, Protocol.parse(protocol), store)
        assert max(map(len, text.splitlines())) <= 80
        assert "(n = 2) [1]" in text


def test_json_holds_everything(tmp_path: Path) -> None:
    found = table_json("table2", Protocol.parse("paper"), store_with(tmp_path, *three()))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    row = next(row for row in found["rows"] if row["name"] == ROW)
    assert row["state"] == "finished"
    assert row["ours"]["top1"]["mean"] == 92.0 and row["ours"]["precision"]["n"] == 3
    assert row["paper"]["accuracy"] == 92.35 and row["paper"]["source"] == "own"
    assert [run["seed"] for run in row["ours"]["runs"]] == [0, 1, 2]
    assert row["ours"]["runs"][0]["kernel_sizes"] == {}
    assert row["ours"]["runs"][0]["best"]["epoch"] == 349 and row["ours"]["runs"][0]["best_selected_on"] == "test"
    assert row["ours"]["seconds_per_epoch"][0]["all_epochs"]["mean"] == pytest.approx(80 / 3, abs=1e-6)


def test_runs_on_more_threads_still_fill_their_row(tmp_path: Path) -> None:
    store = store_with(tmp_path, make_record(spec_of(ROW, threads=2), 0, 91.0))
    assert ours(rendered(store)) == "91.00 (n = 1); 2 threads"


def test_runs_of_the_graph_engine_fill_their_row_and_say_so(tmp_path: Path) -> None:
    store = store_with(tmp_path, make_record(spec_of(ROW, engine="graph", precision="bf16"), 0, 91.0))
    assert ours(rendered(store)) == "91.00 (n = 1); graph engine; bf16"


def test_engines_never_share_a_cell(tmp_path: Path) -> None:
    graph = [make_record(spec_of(ROW, engine="graph"), seed, 91.0) for seed in (0, 1)]
    text = rendered(store_with(tmp_path, make_record(spec_of(ROW), 0, 90.0), *graph))
    assert "(n = 2)" in ours(text) and "graph engine" in ours(text)
    assert "Recorded as well: CIFAR-10: 90.00 (n = 1)." in text


def test_reading_never_loads_torch() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from reproduce.store import Store; from reproduce.specs import Protocol\n"
        "from reproduce.report import canvas, drawing2, drawing3, figures, rendered, tables\n"
        "tables.render_table('table2', Protocol.parse('paper'), Store(Path('none')))\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
