"""The paper's checkable sentences, from paper/claims.toml, and the smallest effect that counts. Plain data; no torch.

Rules by kind:

- accuracy: `higher` (a exceeds b in every comparison), `on_par`.
- time, of seconds(a) / seconds(b): `times` (at least the stated factor, less the smallest effect), `longer`, `about`
  (the stated factor, within the smallest effect), `on_par`.
- trend over rows in order: `rising`, `saturates` (last two alike, though the first rise), `linear`, `slope_under_one`.
- structure of learned sizes over seeds: `largest`, `growth`, `no_growth`, `same_first`.
- cost and mechanism: the name of a computation or of a test; `untestable` says why.
- any kind: `all_of` other claims.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from reproduce import paper
from reproduce.paper import Printed
from reproduce.specs import Frozen

Kind = Literal["accuracy", "time", "cost", "trend", "structure", "mechanism"]
Metric = Literal["accuracy", "top5", "seconds", "sizes"]
FLOORS = {"cifar10": 0.1, "mnist": 0.02, "stl10": 0.5, "imagenet32": 0.3}  # points of accuracy
TIME_FLOOR = 0.1  # of a ratio: of seconds, and of counts that a sentence gives as a factor


class Term(Frozen):
    """One number of a sentence: a metric of a row of paper.toml, which is a cell of ours as well."""

    experiment: str
    row: str
    metric: Metric

    @property
    def dataset(self) -> str:
        return paper.tables()[self.experiment].dataset

    @property
    def printed(self) -> Printed | None:
        """As the paper prints it; None where it prints nothing."""
        found = paper.row(self.experiment, self.row)
        value: Printed | None = None if found is None else getattr(found, self.metric, None)
        return value

    @property
    def printed_std(self) -> Printed | None:
        found = paper.row(self.experiment, self.row)
        value: Printed | None = None if found is None else getattr(found, f"{self.metric}_std", None)
        return value


class Comparison(Frozen):
    """a is to exceed b. `states`: the difference or factor that the sentence itself gives."""

    a: Term
    b: Term
    states: float | None = None
    smallest: float


class Claim(Frozen):
    """One sentence, in our words, and how it is judged."""

    id: str
    sentence: str
    place: str
    family: str  # p values are adjusted within it
    kind: Kind
    rule: str
    compare: tuple[Comparison, ...] = ()
    terms: tuple[Term, ...] = ()  # of a trend or a structure, in order
    layers: int | None = None  # of a structure: which layer, or how many
    of: tuple[str, ...] = ()  # the claims that an `all_of` sums up
    slip: str = ""  # where the sentence disagrees with the paper's own numbers
    why: str = ""  # why it cannot be tested
    settle: str = ""  # what would settle it, where that does not follow from the rule

    @property
    def every_term(self) -> tuple[Term, ...]:
        """All terms, each once, in order."""
        compared = [term for one in self.compare for term in (one.a, one.b)]
        return tuple(dict.fromkeys([*compared, *self.terms]))


class LeftOut(Frozen):
    """A sentence that is not judged, and why."""

    what: str
    place: str
    why: str


def load() -> tuple[Claim, ...]:
    """All claims, in the paper's order. Raises `ValueError` for a file that contradicts itself or paper.toml."""
    return _loaded()[0]


def left_out() -> tuple[LeftOut, ...]:
    return _loaded()[1]


def smallest_effect(kind: Kind, a: Term, b: Term, states: float | None = None) -> float:
    """Half the difference that the sentence states, else that of the table; at least the floor of the data set.

    10 % for times and for counts that are to be a factor; none for counts that are just compared, as they have no
    noise. Only the paper's numbers go in.
    """
    if kind == "time":
        return TIME_FLOOR
    if kind == "cost":
        return 0.0 if states is None else TIME_FLOOR
    floor = FLOORS[a.dataset]
    stated = abs(states) if states is not None else difference(a, b)
    return floor if stated is None else max(floor, round(stated / 2, 6))


def difference(a: Term, b: Term) -> float | None:
    """|a - b| as printed; None where the paper prints one of them nowhere."""
    one, other = a.printed, b.printed
    return None if one is None or other is None else abs(float(one) - float(other))


@cache
def _loaded() -> tuple[tuple[Claim, ...], tuple[LeftOut, ...]]:
    with (paper.HERE / "claims.toml").open("rb") as file:
        raw = tomllib.load(file)
    claims = tuple(_claim(entry) for entry in raw["claim"])
    check(claims)
    return claims, tuple(LeftOut(**entry) for entry in raw["left_out"])


def check(claims: tuple[Claim, ...]) -> None:
    """Raises `ValueError` for an id that is there twice, a row that the paper lacks, or a claim `of` none of these."""
    names = [claim.id for claim in claims]
    for claim in claims:
        if names.count(claim.id) > 1:
            raise ValueError(f"claims.toml: {claim.id} is there more than once")
        for unknown in set(claim.of) - set(names):
            raise ValueError(f"claims.toml: {claim.id} sums up {unknown}, which is no claim")
        for term in claim.every_term:
            if paper.row(term.experiment, term.row) is None:
                raise ValueError(f"claims.toml: {claim.id}: {term.experiment} has no row {term.row}")


def _claim(entry: Mapping[str, Any]) -> Claim:
    defaults = {"experiment": entry["family"], "metric": "seconds" if entry["kind"] == "time" else "accuracy"}
    compare = [
        {**one, "a": {**defaults, **one["a"]}, "b": {**defaults, **one["b"]}} for one in entry.get("compare", ())
    ]
    return Claim(**{**entry, "compare": compare, "terms": [{**defaults, **one} for one in entry.get("terms", ())]})
