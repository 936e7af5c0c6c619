"""Row globs, seeds, depths and budgets as a user types them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduce.errors import UsageError
from reproduce.naming import millions, parse_budgets, parse_depths, parse_seeds, select

NAMES = [
    "DCN-sigma^ji",
    "CIFARResNet-44",
    "CIFARResNet-44 w/ CKConv (k=3)",
    "EffConv-20 0.66M",
    "Wide-EffConv-28-1 0.66M",
    "control: ResNet-20",
]


@pytest.mark.parametrize(
    ("globs", "chosen"),
    [
        (None, NAMES[:5]),
        ("*", NAMES[:5]),
        ("control:*", NAMES[5:]),
        ("*,control:*", NAMES),
        ("EffConv-20*", NAMES[3:4]),
        ("*EffConv*", NAMES[3:5]),
        ("Wide*, DCN*", [NAMES[0], NAMES[4]]),
        ("CIFARResNet-44", NAMES[1:2]),
        ("CIFARResNet-44 w/ CKConv (k=3)", NAMES[2:3]),
        ("control: ResNet-20", NAMES[5:]),
        ("EffConv-[0-9]? 0.66M", NAMES[3:4]),
    ],
)
def test_globs_select_in_the_rows_order(globs: str | None, chosen: list[str]) -> None:
    assert select(NAMES, globs) == chosen


@pytest.mark.parametrize("globs", ["EffConv-21*", "EffConv-20*,nothing", "", ",", "*,", "*ResNet-20", "effconv-20*"])
def test_a_glob_without_a_row_is_a_usage_error(globs: str) -> None:
    with pytest.raises(UsageError):
        select(NAMES, globs)


def test_the_message_names_the_glob_and_the_mend() -> None:
    with pytest.raises(UsageError, match=r"no row matches 'EffConv-21\*'; --list"):
        select(NAMES, "EffConv-20*,EffConv-21*")


COMMAS = ["ResNet-18", "ResNet-18, STL-10", "at 33 x 33 / EffConv-20", "at 33 x 33, full grid / EffConv-20"]


@pytest.mark.parametrize(
    ("globs", "chosen"),
    [
        ("ResNet-18, STL-10", COMMAS[1:2]),
        ("ResNet-18,STL-10", COMMAS[1:2]),
        ("ResNet-18,at *full*", [COMMAS[0], COMMAS[3]]),
        ("*33, full*,ResNet-18", [COMMAS[0], COMMAS[3]]),
        ("*", COMMAS),
    ],
)
def test_a_name_may_hold_commas(globs: str, chosen: list[str]) -> None:
    assert select(COMMAS, globs) == chosen


def test_what_follows_a_comma_must_match_too() -> None:
    with pytest.raises(UsageError, match="no row matches 'CIFAR-10'"):
        select(COMMAS, "ResNet-18, CIFAR-10")


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0,2", [0, 2]), ("0..2", [0, 1, 2]), ("5,0..1,1", [5, 0, 1]), ("3..3", [3])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "1.5", "0..", "2..0", "0,,1", "0...2", "0..5000000", "٣"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)


def test_depths() -> None:
    assert parse_depths("20..56") == [20, 26, 32, 38, 44, 50, 56]
    assert parse_depths("20,32") == [20, 32]
    assert parse_depths("8") == [8]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("21", "20 and 26"), ("25", "20 and 26"), ("7", "are 8"), ("2", "are 8"), ("20..55", "50 and 56")],
)
def test_an_impossible_depth_names_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=nearest):
        parse_depths(text)


@pytest.mark.parametrize("text", ["", "x", "56..20", "20..", "20;26"])
def test_bad_depths(text: str) -> None:
    with pytest.raises(UsageError, match="--depths"):
        parse_depths(text)


def test_budgets_are_millions() -> None:
    assert parse_budgets("0.1..0.5") == [100_000, 200_000, 300_000, 400_000, 500_000]
    assert parse_budgets("0.1,0.66") == [100_000, 660_000]
    assert parse_budgets("0.66M") == [660_000]


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "0.5..0.1", "many", "1e6"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(UsageError, match="--budgets"):
        parse_budgets(text)


@given(st.integers(min_value=1, max_value=9_999_999))
def test_a_budget_in_millions_reads_back(budget: int) -> None:
    assert parse_budgets(millions(budget)) == [budget]


def test_budgets_are_written_as_in_the_paper() -> None:
    budgets = (660_000, 200_000, 100_000, 12_345)
    assert [millions(budget) for budget in budgets] == ["0.66M", "0.20M", "0.10M", "0.012345M"]
