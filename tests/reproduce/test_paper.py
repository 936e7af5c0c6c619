"""The two TOML files: what the paper prints is what they hold, and every reading has its entry and its tag."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from reproduce import paper
from reproduce.paper import PaperRow, Printed

ROOT = Path(__file__).parents[2]
# (name, accuracy as printed, deviation as printed, seconds as printed): the cells of the paper's Table 2.
TABLE2 = [
    ("N-JetNet-ALLCNN", "0.66M", "89.91", "0.03", None),
    ("N-JetNet-CIFARResNet32", "0.52M", "92.28", "0.26", None),
    ("DCN-sigma^ji", "0.47M", "89.7", "0.3", None),
    ("CKCNN-7", "0.70M", "71.7", None, None),
    ("CKCNN-16", "0.63M", "72.1", "0.2", "68"),
    ("CKCNN_MAGNet-16", "0.67M", "86.8", "0.6", "102"),
    ("FlexNet-3", "0.27M", "90.4", "0.2", None),
    ("FlexNet-5", "0.44M", "91.0", "0.5", None),
    ("FlexNet_Gabor-16", "0.67M", "91.9", "0.2", "161"),
    ("FlexNet-16", "0.67M", "92.2", "0.1", "127"),
    ("CIFARResNet-44", "0.66M", "92.83", None, "22"),
    ("CIFARResNet-44 w/ CKConv (k=3)", "2.58M", "86.1", "0.9", None),
    ("CIFARResNet-44 w/ FlexConv", "2.58M", "81.6", "0.8", None),
    ("EffConv-20 0.20M", "0.20M", "91.78", "0.16", None),
    ("EffConv-20 0.50M", "0.50M", "92.30", "0.11", None),
    ("EffConv-20 0.66M", "0.66M", "92.35", "0.05", "17.77"),
    ("EffConv-32 0.66M", "0.66M", "92.99", "0.02", "23.82"),
    ("EffConv-44 0.66M", "0.66M", "93.35", "0.17", "27.65"),
    ("Wide-EffConv-28-1 0.66M", "0.66M", "93.14", "0.23", "15.99"),
]


def printed(value: Printed | None) -> str | None:
    return None if value is None else str(value)


def test_table_2_is_as_printed() -> None:
    found = [
        (row.name, row.size, printed(row.accuracy), printed(row.accuracy_std), printed(row.seconds))
        for row in paper.rows("table2")
    ]
    assert found == TABLE2


def test_table_4_has_both_accuracies() -> None:
    row = paper.row("table4", "EffConv-20 0.50M")
    assert row is not None
    values = (row.accuracy, row.accuracy_std, row.top5, row.top5_std, row.seconds)
    assert [printed(value) for value in values] == ["36.07", "0.18", "60.96", "0.1", "215.27"]


def test_numbers_stated_in_the_text() -> None:
    lowest, deepest = paper.row("figure3", "EffConv-20 0.10M"), paper.row("figure3", "EffConv-56 0.66M")
    assert lowest is not None
    assert deepest is not None
    assert (lowest.accuracy, lowest.accuracy_std) == (90.24, 0.05)
    assert (deepest.seconds, deepest.seconds_approximate, deepest.accuracy) == (31, True, None)


def test_figure_3_repeats_table_2_where_it_prints_nothing_itself() -> None:
    for row in paper.rows("figure3"):
        twin = paper.row("table2", row.name)
        if twin is not None:
            assert (row.accuracy, row.accuracy_std, row.seconds) == (twin.accuracy, twin.accuracy_std, twin.seconds)


EVERY = [row for table in paper.tables().values() for row in table.rows]


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_every_number_has_a_source(row: PaperRow) -> None:
    assert row.source in {"own", "cited", "correspondence"}
    assert (row.source == "own") == ("EffConv" in row.name)
    assert bool(row.origin) == (row.source != "own")
    assert bool(row.seconds_source) == (row.seconds is not None)
    assert row.seconds_source in {"", "own", "cited", "correspondence"}
    assert bool(row.seconds_origin) == (row.seconds_source in {"cited", "correspondence"})
    for value in (row.accuracy, row.accuracy_std, row.top5, row.top5_std, row.seconds):
        assert value is None or isinstance(value, Printed)


def test_times_by_correspondence_are_those_printed_with_a_tilde() -> None:
    told = [row for row in EVERY if row.seconds_source == "correspondence"]
    assert sorted(str(row.seconds) for row in told) == ["1800", "205", "740"]
    assert all(row.seconds_approximate for row in told)


def test_a_printed_number_keeps_its_spelling() -> None:
    number = Printed("92.30")
    assert (str(number), f"{number}", f"{number:.1f}", number + 1) == ("92.30", "92.30", "92.3", 93.3)
    copy = pickle.loads(pickle.dumps(number))
    assert (copy, str(copy)) == (92.3, "92.30")


def test_settings() -> None:
    learning = paper.settings()["size_learning"]
    assert (learning["lr"], learning["kernel_lr"], learning["weight_decay"]) == (1e-4, 1e-3, 1e-3)
    assert learning["lambda"] == 2
    assert (learning["k"], learning["tau"], learning["b"], learning["sizes"]) == (3, 3, -0.35, [1, 7])


def test_deviations_are_complete_and_in_order() -> None:
    entries = paper.deviations()
    assert [entry.id for entry in entries] == [f"R-{number:02d}" for number in range(1, 39)]
    for entry in entries:
        texts = (entry.title, entry.where, entry.paper, entry.chosen, entry.why, entry.code)
        assert all(text.strip() and "  " not in text for text in texts), entry.id
    assert paper.deviation("R-09").alternatives == ("printed", "fixed", "none")


@pytest.mark.parametrize("entry", paper.deviations(), ids=lambda entry: entry.id)
def test_the_tag_stands_where_the_code_does_it(entry: paper.Deviation) -> None:
    file = ROOT / entry.code
    assert file.is_file()
    assert entry.id in file.read_text(encoding="utf-8")


def test_no_tag_without_an_entry() -> None:
    known = {entry.id for entry in paper.deviations()}
    for folder in ("effconv", "baselines", "reproduce"):
        for file in (ROOT / folder).rglob("*.py"):
            assert set(re.findall(r"\bR-\d\d\b", file.read_text(encoding="utf-8"))) <= known, file
