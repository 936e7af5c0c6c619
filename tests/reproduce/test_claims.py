"""The list of claims: complete, consistent with the paper's numbers, each with a smallest effect by one rule."""

from __future__ import annotations

import pytest

from reproduce import claims, paper
from reproduce.claims import Claim, Comparison, Term
from reproduce.report import published
from reproduce.report.analyses import look

BY_ID = {claim.id: claim for claim in claims.load()}
COMPARISONS = [(claim.id, number) for claim in claims.load() for number in range(len(claim.compare))]
FLOORS = {"cifar10": 0.1, "mnist": 0.02, "stl10": 0.5, "imagenet32": 0.3}


@pytest.mark.parametrize(("name", "number"), COMPARISONS)
def test_the_smallest_effect_follows_from_the_papers_numbers_alone(name: str, number: int) -> None:
    """The rule anew: half the stated difference, at least the data set's floor; 10 % of times and of factors."""
    claim = BY_ID[name]
    one = claim.compare[number]
    rows = [paper.row(term.experiment, term.row) for term in (one.a, one.b)]
    printed = [getattr(row, one.a.metric, None) for row in rows]
    if claim.kind == "time":
        expected = 0.1
    elif claim.kind == "cost":
        expected = 0.1 if one.states else 0.0
    else:
        stated = one.states or (0.0 if None in printed else abs(printed[0] - printed[1]))  # type: ignore[operator]
        expected = max(stated / 2, FLOORS[paper.tables()[one.a.experiment].dataset])
    assert one.smallest == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "number"), COMPARISONS)
def test_what_a_sentence_states_is_in_the_tables_or_is_named_as_a_slip(name: str, number: int) -> None:
    claim = BY_ID[name]
    one = claim.compare[number]
    a, b = one.a.printed, one.b.printed
    if one.states is not None and a is not None and b is not None and claim.kind in ("time", "accuracy"):
        value = a / b if claim.kind == "time" else a - b
        assert value == pytest.approx(one.states, rel=0.1) or claim.slip


def test_every_claim_has_an_analysis_and_every_term_a_row() -> None:
    for claim in BY_ID.values():
        if claim.rule == "all_of":
            assert claim.of
        elif claim.rule == "untestable":
            assert claim.why and claim.settle
        else:
            assert look(claim) is not None
        if claim.kind in ("accuracy", "time") and claim.rule != "all_of":
            assert claim.compare
        assert claim.family in {*paper.tables(), "method", "whole"}
        assert all(paper.row(term.experiment, term.row) for term in claim.every_term)


def test_every_row_of_the_papers_tables_is_in_a_claim() -> None:
    """So no number of a table goes without a sentence, but for what the text never speaks of."""
    named = {(term.experiment, term.row) for claim in BY_ID.values() for term in claim.every_term}
    unnamed = {
        (table, row.name) for table in ("table1", "table2", "table3", "table4") for row in paper.rows(table)
        if (table, row.name) not in named
    }  # fmt: skip
    assert unnamed == {("table2", "FlexNet-5"), ("table2", "FlexNet_Gabor-16")}


def test_what_is_left_out_says_why() -> None:
    assert claims.left_out() and all(one.what and one.place and one.why for one in claims.left_out())


def term(row: str = "EffConv-20 0.66M", metric: str = "accuracy") -> Term:
    return Term(experiment="table2", row=row, metric=metric)  # type: ignore[arg-type]


def made(name: str = "made-up", **changes: object) -> Claim:
    values = {"sentence": "A.", "place": "B", "family": "table2", "kind": "accuracy", "rule": "higher"}
    return Claim(id=name, **{**values, **changes})  # type: ignore[arg-type]


def test_a_list_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="more than once"):
        claims.check((made(), made()))
    with pytest.raises(ValueError, match="which is no claim"):
        claims.check((made(of=("gone",)),))
    with pytest.raises(ValueError, match="has no row EffConv-21"):
        claims.check((made(terms=(term("EffConv-21 0.66M"),)),))


def test_published_numbers_decide_only_where_both_readings_agree() -> None:
    assert "supported (+20.25" in published.decides(BY_ID["t2-ckcnn-accuracy"])
    assert "nothing, as CKCNN-7 has no ±" in published.decides(BY_ID["t2-ckcnn-accuracy"])
    assert "undecided (+0.15" in published.decides(BY_ID["t2-flexnet-accuracy"])
    assert published.decides(BY_ID["t2-flexnet-time"]).startswith("nothing")


def test_the_papers_arithmetic_and_its_slips_are_named() -> None:
    assert published.arithmetic(BY_ID["t3-flexnet-accuracy"]).startswith("73.06 - 68.6 = 4.46 (stated: 4.46)")
    assert published.arithmetic(BY_ID["t3-flexnet-time"]).startswith("~1800 / 13.2 = 136 (stated: 136)")
    assert "which the numbers do not give" in published.arithmetic(BY_ID["t2-wide-time"])
    assert "EffConv-16" in published.arithmetic(BY_ID["t2-flexnet-accuracy"])


def test_a_printed_number_is_reproduced_within_the_floor() -> None:
    resnet, effconv = term("CIFARResNet-44"), term("EffConv-20 0.66M")
    assert "reproduced, ours less the printed +0.00" in published.reproduced(resnet, [92.82, 92.83, 92.84])
    assert "not reproduced" in published.reproduced(effconv, [90.0, 90.1, 90.05])
    assert "undecided" in published.reproduced(effconv, [92.0, 92.6])
    assert published.reproduced(effconv, [92.0]) == ""


def test_a_comparison_of_unprinted_numbers_has_the_floor() -> None:
    drawn = Term(experiment="figure3", row="EffConv-56 0.66M", metric="accuracy")
    assert claims.smallest_effect("accuracy", drawn, term()) == 0.1
    assert Comparison(a=drawn, b=term(), smallest=0.1).states is None
