"""`reproduce models`: what it lists, and that every difference from the paper's sizes is flagged."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from reproduce import listings, paper
from reproduce.cli import main
from reproduce.listings import differs, models, models_text

KEYS = {
    "name", "table", "total_params", "eq3_params", "macs", "layers", "paper_size",
    "budget", "differs", "note", "dataset",
}  # fmt: skip
FLAGGED = {
    ("table2", "CKCNN-7"): "0.69M, the paper prints 0.70M",
    ("table2", "FlexNet-3"): "0.28M, the paper prints 0.27M",
    ("table2", "FlexNet-5"): "0.45M, the paper prints 0.44M",
    ("table3", "CIFARResNet-18"): "11.2M, the paper prints 11.7M",
    ("table4", "WRN-28-1"): "0.43M, the paper prints 0.44M",
    ("table4", "FlexNet-5"): "0.50M, the paper prints 0.44M",
}


@pytest.mark.parametrize(
    ("total", "size", "found"),
    [
        (658_586, "0.66M", None),
        (454_046, "0.44M", "0.45M, the paper prints 0.44M"),
        (664_999, "0.66M", None),
        (655_001, "0.66M", None),
        (665_001, "0.66M", "0.67M, the paper prints 0.66M"),
        (11_689_512, "11.7M", None),
        (11_181_642, "11.7M", "11.2M, the paper prints 11.7M"),
        (349_674, "N/A", None),
    ],
)
def test_sizes_are_compared_as_the_paper_rounds_them(total: int, size: str, found: str | None) -> None:
    assert differs(total, size) == found


def test_exactly_the_known_differences_are_flagged() -> None:
    flagged = {(entry["table"], entry["name"]): entry["differs"] for entry in models() if entry["differs"]}
    assert flagged == FLAGGED


def test_every_row_of_the_tables_is_listed_and_counted() -> None:
    entries = models()
    for table in listings.TABLES:
        rows = [(entry["name"], entry["paper_size"]) for entry in entries if entry["table"] == table]
        assert rows == [(row.name, row.size) for row in paper.rows(table)]
    for entry in entries:
        assert entry.keys() == KEYS
        assert min(entry[key] for key in ("total_params", "eq3_params", "macs", "layers")) > 0
        assert not entry["name"].startswith("control")


def test_a_budget_is_the_size_of_learned_rows_and_never_flagged() -> None:
    for entry in models():
        assert (entry["budget"] is not None) == ("EffConv" in entry["name"])
        if entry["budget"] is not None:
            assert f"{entry['budget'] / 1e6:.2f}" == f"{float(entry['paper_size'].rstrip('M')):.2f}"
            assert entry["differs"] is None


def test_networks_without_a_row() -> None:
    rest = {entry["name"]: entry for entry in models() if entry["table"] is None and entry["budget"] is None}
    assert {"N-JetNet-NiN", "ALL-CNN-C", "VGG-5 spinal"} <= set(rest)
    assert rest["VGG-5 spinal"]["total_params"] == 3_629_770
    assert all(entry["paper_size"] is None for entry in rest.values())


def test_json_holds_exact_counts() -> None:
    result = CliRunner().invoke(main, ["models", "--json"])
    assert result.exit_code == 0
    entries = json.loads(result.stdout)
    assert entries == models()
    found = {(entry["table"], entry["name"]): entry for entry in entries}
    assert found["table2", "DCN-sigma^ji"]["total_params"] == 472_202
    assert found["table1", "Efficient-CapsNet"]["total_params"] == 161_824
    assert found["table2", "FlexNet-16"]["layers"] == 16
    assert found["table2", "CIFARResNet-44"]["macs"] == 97_174_144


def test_the_text_fits_a_terminal_and_repeats_every_entry() -> None:
    entries = models()
    lines = models_text(entries).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines[1 : lines.index("")] if line.startswith("  ")]
    for entry, line in zip(entries, rows, strict=True):
        assert line.startswith(f"  {entry['name']} ")
        assert f"{entry['total_params']:,}{'*' if entry['differs'] else ''}" in line.split()
        assert f"{entry['eq3_params']:,}" in line.split()


def test_the_text_says_what_differs_and_why() -> None:
    text = " ".join(models_text(models()).split())
    for (table, name), difference in FLAGGED.items():
        row = paper.row(table, name)
        assert row is not None
        assert row.note
        assert f"* {table.capitalize().replace('e', 'e ')}, {name}: {difference}. {' '.join(row.note.split())}" in text
    assert text.count("* Table") == len(FLAGGED)
