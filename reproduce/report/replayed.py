"""The verdict on a replay: bitwise equal, within seed noise, or different, and where the two part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reproduce.findings import clean, labelled
from reproduce.records import RunRecord
from reproduce.report.effects import bears_on_bits, differences
from reproduce.report.parting import Parting, different_parts, parting
from reproduce.report.shelf import Series, Way, is_finished, series_of
from reproduce.report.statistics import sample_std, t_quantile

Verdict = Literal["bitwise equal", "within seed noise", "different"]
FEWEST = 3  # seeds of a cell that say how far seeds scatter


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How far two runs of one spec may lie apart in top-1 (points): 19 of 20 pairs of seeds lie closer."""

    limit: float
    basis: str  # what it was computed from


@dataclass(frozen=True, kw_only=True)
class Replayed:
    verdict: Verdict
    why: str
    parts_at: Parting | None
    differs_in: tuple[str, ...]
    top1: tuple[float | None, float | None]  # recorded, replayed
    noise: Noise | None
    machines: tuple[str, ...]  # what may change bits between the two, in words

    def as_json(self) -> dict[str, Any]:
        place = None if self.parts_at is None else {**asdict(self.parts_at), "place": self.parts_at.place}
        return {**asdict(self), "parts_at": place}


def judge(
    recorded: RunRecord,
    replayed: RunRecord,
    machines: tuple[Mapping[str, Any], Mapping[str, Any]],
    noise: Noise | None,
) -> Replayed:
    """machines: of the record and of the replay. On the same kind of machine nothing but equal bits is expected."""
    place = parting(recorded, replayed)
    one, other = recorded.model_dump(mode="json"), replayed.model_dump(mode="json")
    apart = bears_on_bits(differences(one, other, *machines))
    told = tuple(f"{one.field} {one.a} | {one.b}" for one in apart)
    a, b = (None if one.metrics is None else one.metrics.last.top1 for one in (recorded, replayed))
    verdict, why = _verdict(place, told, a, b, noise)
    return Replayed(
        verdict=verdict,
        why=why,
        parts_at=place,
        differs_in=tuple(different_parts(recorded, replayed)),
        top1=(a, b),
        noise=noise,
        machines=told,
    )


def _verdict(
    place: Parting | None, told: Sequence[str], a: float | None, b: float | None, noise: Noise | None
) -> tuple[Verdict, str]:
    if place is None:
        return "bitwise equal", "all that came out is the same, to the last bit"
    if a is None or b is None or noise is None:
        return "different", "there is no accuracy to compare, and the courses part"
    inside = abs(a - b) <= noise.limit
    near = f"top-1 is {'inside' if inside else 'outside'} the noise of seeds"
    if not told:
        return "different", (
            f"the machine is of the same kind, so the bits should be equal ({near}): the code changed without a new "
            "protocol version, or the record was altered"
        )
    return ("within seed noise" if inside else "different"), f"{near}; the machines may differ in the last bits"


def noise_of(record: RunRecord, records: Sequence[RunRecord]) -> Noise | None:
    """From the seeds of the same cell; else pooled over the cells of its data and protocol; else from the images."""
    if record.metrics is None:
        return None
    alike = [one for one in records if _comparable(one, record)]
    own = _deviations([one for one in series_of(alike) if one.sample.spec == record.spec], FEWEST)
    spec = record.spec
    if own:
        return _noise(own, f"{own[0][0] + 1} seeds of the same spec")
    pooled = _deviations([one for spec_ in _specs(alike) for one in series_of(spec_)], 2)
    if sum(degrees for degrees, _ in pooled) >= FEWEST - 1:
        return _noise(pooled, f"seeds pooled over {len(pooled)} cells of {spec.data.name}, {spec.protocol}")
    share, images = record.metrics.last.top1 / 100, record.data.test_images
    half = 1.96 * math.sqrt(2 * share * (1 - share) / images)
    return Noise(limit=100 * half, basis=f"no other seeds, so binomial noise of {images:,} test images")


def _comparable(one: RunRecord, record: RunRecord) -> bool:
    """Finished, of the same data, protocol, version and way of computing."""
    spec, other = one.spec, record.spec
    same = (spec.data, spec.protocol, Way.of(spec)) == (other.data, other.protocol, Way.of(other))
    return same and is_finished(one) and one.protocol_version == record.protocol_version


def _specs(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        found.setdefault(record.spec_id, []).append(record)
    return list(found.values())


def _deviations(several: Sequence[Series], fewest: int) -> list[tuple[int, float]]:
    """(degrees of freedom, sample deviation) of the last epoch's top-1 of each series with enough seeds."""
    values = ([run.metrics.last.top1 for run in one.finished if run.metrics is not None] for one in several)
    return [(len(some) - 1, sample_std(some) or 0.0) for some in values if len(some) >= fewest]


def _noise(found: Sequence[tuple[int, float]], basis: str) -> Noise:
    """The difference of two runs has twice the variance of one, which is estimated: so Student's t."""
    degrees = sum(one for one, _ in found)
    deviation = math.sqrt(math.fsum(one * std**2 for one, std in found) / degrees)
    return Noise(limit=t_quantile(degrees) * deviation * math.sqrt(2), basis=basis)


def text(one: Replayed, path: str, source: str) -> str:
    """In 80 columns. path, source: of the replay's file and of the record's."""
    a, b = one.top1
    lines = [one.verdict, *labelled("why", one.why)]
    if a is not None and b is not None:
        limit = "" if one.noise is None else f"; seeds scatter up to {one.noise.limit:.2f} ({one.noise.basis})"
        lines += labelled("top-1", f"{a:.2f} recorded, {b:.2f} replayed % ({b - a:+.2f}{limit})")
    if one.parts_at is not None:
        lines += labelled("they part", one.parts_at.place)
        lines += labelled("", f"{one.parts_at.a} recorded, {one.parts_at.b} replayed (first point recorded)")
        lines += labelled("differs in", ", ".join(one.differs_in))
    for told in one.machines:
        lines += labelled("may explain", told)
    return "\n".join([*lines, "compare", f"  reproduce diff {clean(source)} \\", f"    {clean(path)}"])
