"""What each field of a record can do to its result, and which fields two records or two machines differ in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reproduce.report.parting import short

Effect = Literal["results", "bits", "times", "none", "outcome"]

TITLES: dict[Effect, str] = {
    "results": "Changes results",
    "bits": "May change the last bits, and so, step by step, results within seed noise",
    "times": "Bears on seconds alone",
    "none": "Changes no result",
    "outcome": "What came out",
}
# The first entry that a field equals, or lies below where the entry ends in a dot, says what a difference there can do.
RULES: tuple[tuple[str, Effect, str], ...] = (
    ("seed", "results", "start, order of the images and augmentation: seed noise"),
    ("case.seed", "results", "start and order of the images: seed noise"),
    ("protocol_version", "results", "code that is known to give other results; a cell never mixes them"),
    ("spec.protocol", "results", "length of the schedule and number of images; a cell never mixes protocols"),
    ("spec.data.source", "results", "other image files"),
    ("spec.threads", "bits", "the order in which the CPU adds up"),
    ("spec.engine", "bits", "the order of operations in a step"),
    ("spec.precision", "results", "how convolutions and products are rounded"),
    ("spec.processes.", "results", "how many images batch norm sees, and the order in which gradients add up"),
    ("spec.", "results", "another question"),
    ("case.", "results", "another question"),
    ("a.step_seconds", "outcome", ""),
    ("b.step_seconds", "outcome", ""),
    ("a.steps_in_block", "none", "how many steps one reading of the clock held"),
    ("b.steps_in_block", "none", "how many steps one reading of the clock held"),
    ("a.", "results", "another network or setting on side a of the pair"),
    ("b.", "results", "another network or setting on side b of the pair"),
    ("name", "none", "what the row is called"),
    ("kind", "results", "records of different kinds have little to compare"),
    ("level", "results", "how the two networks were treated while timed"),
    ("data.source", "results", "other image files"),
    ("data.canonical", "results", "other image files"),
    ("data.train_images", "results", "other images"),
    ("data.test_images", "results", "other images"),
    ("data.files.sha256", "results", "other image files"),
    ("data.", "none", "where the same images lay, and what they are called"),
    ("clock.device", "bits", "another device adds up in another order"),
    ("device", "bits", "another device adds up in another order"),
    ("clock.shared_device", "times", "seconds of a shared device are no timing"),
    ("clock.resumed", "none", "a resumed run equals an uninterrupted one"),
    ("clock.", "times", ""),
    ("started", "times", ""),
    ("finished", "times", ""),
    ("certificate.", "times", "what else went on while the clock ran"),
    ("machine.cpu", "bits", "another processor may choose other kernels"),
    ("machine.torch_cpu", "bits", "another vector width adds up in another order"),
    ("machine.gpu", "bits", "another GPU chooses other kernels"),
    ("machine.cuda", "bits", "other libraries, other kernels"),
    ("machine.torch", "bits", "another version may compute in another order"),
    ("machine.torchvision", "bits", "another version may compute in another order"),
    ("machine.numpy", "bits", "images are decoded and counted with it; rarely anything"),
    ("machine.os", "bits", "other libraries of mathematics"),
    ("machine.python", "none", "no number is computed in Python alone"),
    ("machine.cores", "times", "one run keeps to its threads"),
    ("machine.memory_gib", "times", "a run fits or it does not"),
    ("machine.", "bits", "not known to this checkout, so it may"),
    ("code.commit", "none", "as long as the protocol version is the same, by its promise"),
    ("code.dirty", "none", "unless what was changed and not committed bears on results"),
    ("code.", "none", "where it came from"),
    ("lineage.", "none", "where it came from"),
    ("schema_version", "none", "how the file is laid out"),
)
DERIVED = {"digest", "spec_id", "run_id", "timing_id", "case_id"}  # follow from the rest


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field that two files differ in. `a`, `b`: the two values in short."""

    field: str
    a: str
    b: str
    effect: Effect
    why: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def effect_of(field: str) -> tuple[Effect, str]:
    """What a difference in this field can do, and why. A field that no rule names came out of the run."""
    for rule, effect, why in RULES:
        if field in (rule, rule.rstrip(".")) or (rule.endswith(".") and field.startswith(rule)):
            return effect, why
    return "outcome", ""


def differences(
    a: Mapping[str, Any], b: Mapping[str, Any], machine_a: Mapping[str, Any], machine_b: Mapping[str, Any]
) -> list[Difference]:
    """All fields in which two records, with their machines written out, differ; those that change most come first."""
    one, other = ({**record, "machine": dict(machine)} for record, machine in ((a, machine_a), (b, machine_b)))
    found = []
    for field, left, right in _apart(one, other):
        effect, why = effect_of(field)
        found.append(Difference(field=field, a=shown(left), b=shown(right), effect=effect, why=why))
    order = list(TITLES)
    return sorted(found, key=lambda one: order.index(one.effect))


def machine_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The fields in which two descriptions of hardware and software differ."""
    return differences({}, {}, a, b)


def bears_on_bits(found: list[Difference]) -> list[Difference]:
    """Those that may explain that two runs of one spec and seed are not equal to the bit."""
    return [one for one in found if one.effect == "bits"]


def shown(value: Any) -> str:
    """A value in short: seconds by their sum, longer lists and groups of settings by their number."""
    if isinstance(value, Mapping):
        return f"({len(value)} fields)"
    if isinstance(value, list) and len(value) > 1 and all(isinstance(part, float) for part in value):
        return f"{len(value)} values, sum {math.fsum(value):.4g}"
    return short(value)


def _apart(a: Mapping[str, Any], b: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value in a, value in b) of what differs; ids that follow from the rest are left out."""
    for key in [*a, *(key for key in b if key not in a)]:
        name, one, other = f"{before}{key}", a.get(key), b.get(key)
        if one == other or name in DERIVED:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _apart(one, other, f"{name}.")
        elif name == "data.files" and isinstance(one, list) and isinstance(other, list):
            for part in ("path", "sha256"):
                left, right = ([file.get(part) for file in files] for files in (one, other))
                if left != right:
                    yield f"{name}.{part}", left, right
        else:
            yield name, one, other
