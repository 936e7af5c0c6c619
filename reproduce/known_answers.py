"""Known answers: does a method that learns kernel sizes find the size that its data need?

**Tasks.** Two families of small pictures, two classes each, generated from a seed.

- *Lag d*: on a ground of zeros stands a column of white Gaussian noise a (3 pixels high, in each of 8 channels);
  d columns to its right stands y a, where y = +1 or -1 is the class; and -a and -y a stand below these two, d - 1 empty
  rows between. *A receptive field of d + 1 suffices by construction*: with taps at both ends of a row, the sum over all
  positions p of |x(p) + x(p + d)| - |x(p) - x(p + d)|, which four filters, ReLU, mean and a linear layer compute, has
  the sign of y. *Below it, chance by symmetry*: a window of d pixels or fewer meets at most one of the four columns.
  Exchange the two columns on the right: the classes change places, while the set of windows, and so whatever is pooled
  over them, stays. The minimal size is s = d + 1. Of two stacked convolutions the same holds of their receptive field,
  s1 + s2 - 1, but for the rows that the zeros around layer 2's input mark; even so each column's own law is the same in
  both classes, and so are the means of all that is pooled. Networks of fixed sizes (the *oracle*) confirm both halves.
- *Texture d*: smooth random fields whose correlation length is d in one class and 1.5 d in the other, under white
  noise. Evidence stands at every size, so there is no minimal one; the oracle's curve, accuracy over sizes, is the
  answer.

Some lags are wider than the kernel that a method starts with, and one is wider than any that EffConv can reach.

**Scores**, kept apart and never added up:

- *reaches*: the receptive field (of the nominal or of the effective sizes, whichever is larger) is at least the
  minimal one, and test accuracy is within 2 points of the oracle's best at the same seed and budget, if any.
- *excess*: the receptive field of the effective sizes less the minimal one. It says something only where size costs:
  without a budget nothing speaks against a large kernel, and there is no excess.

Methods have different notions of a size, so they are compared by the *effective* one: the side of the smallest
centred square that holds 95 % of the trained kernel's squared weights. The nominal size stands beside it.

A budget is one number for all scales: if it followed the scale, it would give the answer away, and a method that
ignores the data would score. `known_scores` computes both and says why a case does not reach. Plain data; no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from reproduce.errors import UserError
from reproduce.records import Part, Signed
from reproduce.specs import Frozen, sha256_of
from reproduce.store import MEND, Unreadable, read_signed, write_atomically

SCHEMA_VERSION = 1  # the newest that this checkout can read
TASKS_VERSION = 1  # raised when tasks, networks or training change, so that old records answer no new case
MAX_SIZE = 7  # that a size learner may choose
ORACLE = "oracle"


class Case(Frozen):
    """One question to one method; with its seed, a complete description of what is computed."""

    version: int = TASKS_VERSION
    task: Literal["lag", "texture"]
    scale: int  # d, in pixels
    layers: Literal[1, 2]
    budget: int | None  # weights of the learned convolutions
    start: int  # kernel size of each layer before learning
    method: str
    seed: int
    steps: int  # of size learning, and again of training
    readings: dict[str, str | float] = Field(default_factory=dict)  # of EffConv, where they are not the default
    fixed: tuple[int, ...] = ()  # the oracle's sizes, by layer

    @property
    def minimal(self) -> int | None:
        """The smallest receptive field that suffices; None for a texture."""
        return self.scale + 1 if self.task == "lag" else None


class KnownClock(Part):
    """The only times of a record."""

    started: str  # ISO 8601, UTC
    finished: str
    seconds: float


class KnownAnswer(Signed):
    """What came of one case. The oracle's own cases have no score."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["known_answer"] = "known_answer"
    case_id: str
    case: Case
    sizes: list[int]  # nominal, by layer
    effective_sizes: list[int]
    test_accuracy: float | None  # percent; None: diverged
    oracle_accuracy: float | None = None  # the best of the oracle at this task, seed and budget
    oracle_size: int | None = None  # the smallest receptive field within 2 points of that
    minimal: int | None = None
    reaches: bool = False
    excess: int | None = None
    failure: str = ""  # empty where it reaches
    notes: dict[str, Any] = Field(default_factory=dict)  # of the method: v, dead layers, budget error
    clock: KnownClock
    machine: str  # id of RESULTS/machines/<id>.json
    code: dict[str, Any]


def case_id(case: Case) -> str:
    """`lag-d4-1l-start3-0123456789ab-s0`: readable, and unique by the digits of its content's hash."""
    words = f"{case.task}-d{case.scale}-{case.layers}l-start{case.start}"
    return f"{words}-{sha256_of(case.model_dump(mode='json'))[:12]}-s{case.seed}"


def slug(method: str) -> str:
    """A method's folder: "effconv: soft budget" -> "effconv-soft-budget"."""
    return re.sub(r"[^\w.]+", "-", method).strip("-")


def first_sizes(case: Case, notes: Mapping[str, Any]) -> list[int]:
    """The sizes that learning began with: the case's, or the nearest that the method has, which it notes."""
    return list(notes.get("started") or [case.start] * case.layers)


def receptive_field(sizes: Sequence[int]) -> int:
    """s1 + s2 - 1 for two stacked convolutions of stride 1."""
    return 1 + sum(size - 1 for size in sizes)


class KnownStore:
    """The records under RESULTS/known_answer. A file that cannot be read costs a line in `problems`."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.problems: list[str] = []

    def path(self, case: Case) -> Path:
        """Where the record of a case stands: a function of the case alone."""
        return self.results / "known_answer" / slug(case.method) / f"{case_id(case)}.json"

    def records(self) -> list[KnownAnswer]:
        """All readable records, in order of their paths."""
        found = (self._load(path) for path in sorted((self.results / "known_answer").rglob("*.json")))
        return [record for record in found if record is not None]

    def find(self, case: Case) -> KnownAnswer | None:
        path = self.path(case)
        return self._load(path) if path.exists() else None

    def write(self, record: KnownAnswer) -> Path:
        """Write a record once, atomically, with its digest. One that stands there already stays.

        Raises `UserError` if a file that cannot be read stands in the way.
        """
        path = self.path(record.case)
        if path.exists():
            if self._load(path) is None:
                raise UserError(self.problems[-1])
            return path
        write_atomically(path, record.signed().model_dump(mode="json"))
        return path

    def _load(self, path: Path) -> KnownAnswer | None:
        try:
            return read_known(path)
        except Unreadable as fault:
            line = f"{path.relative_to(self.results).as_posix()}: {fault}"
            self.problems = [known for known in self.problems if known != line] + [line]
            return None


def read_known(path: Path) -> KnownAnswer:
    """Read and check one file. Raises `Unreadable` with the fault and the mend."""
    def kind(raw: dict[str, Any]) -> type[KnownAnswer] | None:
        return KnownAnswer if raw.get("kind") == "known_answer" else None

    _, record = read_signed(path, kind, newest=SCHEMA_VERSION, what="known answer", valid="known answer")
    if path.stem != record.case_id:
        raise Unreadable(f"its name does not belong to its case; {MEND}")
    return record
