"""Where two records of one spec and seed part: the first point, in the order of computation, that differs."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproduce.records import RunRecord

# Outcomes of a run, in the order in which they arise. Ids, origin of the data and clock are none.
AFTER_SIZES = ("snapped", "sizes")
AFTER_TRAINING = ("metrics", "correct_bits", "kernel_sizes", "kernels", "params", "outcome")
FIRST_OF_SIZES = ("epoch", "step", "v", "s", "loss")  # the order within a point; others follow by name
FIRST_OF_TRAINING = ("epoch", "train_loss", "train_top1")


@dataclass(frozen=True, kw_only=True)
class Parting:
    """The first difference. `a`, `b`: the two values there, as short text."""

    stage: str  # "size learning", "read-out of the sizes", "training", "result"
    field: str
    a: str
    b: str
    epoch: int | None = None
    step: int | None = None

    @property
    def place(self) -> str:
        """`size learning, epoch 1, step 3: loss`."""
        parts = [self.stage]
        parts += [] if self.epoch is None else [f"epoch {self.epoch}"]
        parts += [] if self.step is None else [f"step {self.step}"]
        return f"{', '.join(parts)}: {self.field}"

    def __str__(self) -> str:
        return f"{self.place}: {self.a} | {self.b}"


def parting(a: RunRecord, b: RunRecord) -> Parting | None:
    """The first difference in what came out; None if all is equal to the bit.

    A history holds at most 100 points a stage, so the courses may have parted between the point before and this one.
    """
    one, other = (record.model_dump(mode="json") for record in (a, b))
    return next(_partings(one, other), None)


def different_parts(a: RunRecord, b: RunRecord) -> list[str]:
    """Names of the outcomes that differ: `history`, `sizes`, `metrics`, ..."""
    one, other = (record.model_dump(mode="json") for record in (a, b))
    names = ("history", *AFTER_SIZES, *AFTER_TRAINING)
    return [name for name in names if one[name] != other[name]]


def same_images(a: RunRecord, b: RunRecord) -> bool:
    """Whether both say which of the same test images they were right on."""
    same = a.spec.data == b.spec.data and a.data.test_images == b.data.test_images
    return same and a.correct_bits is not None and b.correct_bits is not None


def bits(record: RunRecord) -> Any:
    """(images,) booleans: which test images were right, in file order."""
    import numpy as np

    packed = np.frombuffer(base64.b64decode(record.correct_bits or ""), dtype=np.uint8)
    return np.unpackbits(packed, count=record.data.test_images).astype(bool)


def _partings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Parting]:
    histories = [record["history"] for record in (a, b)]
    yield from _course("size learning", FIRST_OF_SIZES, *(one.get("size_learning", []) for one in histories))
    yield from _fields("read-out of the sizes", AFTER_SIZES, a, b)
    yield from _course("training", FIRST_OF_TRAINING, *(one.get("training", []) for one in histories))
    yield from _fields("result", AFTER_TRAINING, a, b)


def _course(
    stage: str, first: Sequence[str], a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]
) -> Iterator[Parting]:
    for one, other in zip(a, b, strict=False):
        for name in [*first, *sorted((one.keys() | other.keys()) - set(first))]:
            pair = one.get(name), other.get(name)
            if pair[0] != pair[1]:
                field, a_text, b_text = _inside(name, *pair)
                at = {"epoch": one.get("epoch"), "step": one.get("step")}
                yield Parting(stage=stage, field=field, a=a_text, b=b_text, **at)
    if len(a) != len(b):
        yield Parting(stage=stage, field="points recorded", a=str(len(a)), b=str(len(b)))


def _fields(stage: str, names: Sequence[str], a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Parting]:
    for name in names:
        if a[name] != b[name]:
            field, a_text, b_text = _inside(name, a[name], b[name])
            yield Parting(stage=stage, field=field, a=a_text, b=b_text)


def _inside(name: str, a: Any, b: Any) -> tuple[str, str, str]:
    """Where inside two values the first difference is, `metrics.last.top1` or `v[3]`, and what stands there."""
    while (step := _step(a, b)) is not None:
        name, a, b = name + step[0], step[1], step[2]
    return name, short(a), short(b)


def _step(a: Any, b: Any) -> tuple[str, Any, Any] | None:
    """One step into the first part that differs; None where there are no parts to go into."""
    if isinstance(a, dict) and isinstance(b, dict):
        key = next(key for key in [*a, *(key for key in b if key not in a)] if a.get(key) != b.get(key))
        return f".{key}", a.get(key), b.get(key)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        place = next(index for index, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1])
        return f"[{place}]", a[place], b[place]
    return None


def short(value: Any, most: int = 25) -> str:
    """A value in at most so many letters."""
    text = "none" if value is None else value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."
