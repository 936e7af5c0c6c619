"""Records of size learning alone, without the training after it, and their files. Plain data; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from reproduce.errors import UserError
from reproduce.records import DataOrigin, Outcome, Part, Signed, Snapped
from reproduce.specs import (
    PROTOCOL_VERSION,
    DataSpec,
    Engine,
    Frozen,
    ModelSpec,
    Normalisation,
    Precision,
    SizeLearning,
    sha256_of,
)
from reproduce.store import MEND, RESUME, Unreadable, read_signed, write_atomically

SCHEMA_VERSION = 1  # the newest that this checkout can read

# What the labels are: the data set's, a permutation of them, another independent one; or the data set's, with a known
# gradient on the sizes beside what they say.
Arm = Literal["true", "shuffled", "reshuffled", "planted"]


class SizeSpec(Frozen):
    """Size learning alone, but for its seed and labels: the first `steps` batches of stage 1."""

    model: ModelSpec
    size_learning: SizeLearning  # epochs: 1, of `steps` batches; labels: the arm says which
    data: DataSpec
    normalisation: Normalisation
    steps: int
    threads: int = 1
    precision: Precision = "float32"
    engine: Engine = "plain"


class SizeCase(Frozen):
    """One such run. `planted`, of the arm of that name: a constant gradient on v beside that of the true labels."""

    spec: SizeSpec
    arm: Arm
    seed: int
    planted: float = 0.0

    @property
    def case_id(self) -> str:
        """16 hex digits and the seed."""
        return case_id_of(self.model_dump(mode="json"), PROTOCOL_VERSION)


def case_id_of(case: Mapping[str, Any], version: int) -> str:
    """Of a case as plain values, so that a record of an older schema keeps its name."""
    named = {key: value for key, value in case.items() if key != "seed"}
    return f"{sha256_of({'case': named, 'protocol_version': version})[:16]}-s{case['seed']}"


class SizeClock(Part):
    """Times of one run: ISO 8601 (UTC), and the seconds of all its steps."""

    started: str
    finished: str
    seconds: float
    device: str
    shared_device: bool  # other work ran beside it, so its seconds are no timing
    resumed: int = 0


class SizeRecord(Signed):
    """What one run gave. `history`: at most 100 points, each with v, s and both gradients on v by layer."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["size_learning"] = "size_learning"
    protocol_version: int
    case: SizeCase
    outcome: Outcome
    sizes: dict[str, int] | None  # on budget, in forward order
    snapped: Snapped | None
    params: int | None  # Eq. 3
    history: list[dict[str, Any]]
    clock: SizeClock
    machine: str  # id of RESULTS/machines/<id>.json
    data: DataOrigin
    code: dict[str, Any]


class SizeStore:
    """RESULTS/sizes/<data set>/<arm>-<case id>.json. A file that cannot be read costs a line in `problems`."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.problems: list[str] = []

    def path(self, case: SizeCase) -> Path:
        return self.results / "sizes" / case.spec.data.name / f"{case.arm}-{case.case_id}.json"

    def resume_dir(self, case: SizeCase) -> Path:
        """Where an unfinished run keeps its state."""
        return self.results / RESUME / f"sizes-{case.case_id}"

    def find(self, case: SizeCase) -> SizeRecord | None:
        """Raises `UserError` if what stands there cannot be read."""
        path = self.path(case)
        try:
            return read_size_record(path) if path.exists() else None
        except Unreadable as fault:
            raise UserError(f"{path.relative_to(self.results).as_posix()}: {fault}") from fault

    def records(self) -> list[SizeRecord]:
        """All readable records, in order of their paths."""
        found = []
        for path in sorted((self.results / "sizes").glob("*/*.json")):
            try:
                found.append(read_size_record(path))
            except Unreadable as fault:
                self.problems.append(f"{path.relative_to(self.results).as_posix()}: {fault}")
        return found

    def write(self, record: SizeRecord) -> Path:
        """Write a record once, atomically; one that stands there stays. Raises `UserError` as `find` does."""
        path = self.path(record.case)
        if self.find(record.case) is None:
            write_atomically(path, record.signed().model_dump(mode="json"))
        return path


def read_size_record(path: Path) -> SizeRecord:
    """Read and check one file. Raises `Unreadable` with the fault and the mend."""
    def kind(raw: dict[str, Any]) -> type[SizeRecord] | None:
        return SizeRecord if raw.get("kind") == "size_learning" else None

    raw, record = read_signed(path, kind, newest=SCHEMA_VERSION, what="record of size learning", valid="record")
    if path.stem != f"{record.case.arm}-{case_id_of(raw['case'], record.protocol_version)}":
        raise Unreadable(f"its name does not belong to its content; {MEND}")
    return record
