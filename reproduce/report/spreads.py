"""How far seeds and images scatter in the runs that are recorded: what a plan reckons with."""

from __future__ import annotations

from reproduce import experiments
from reproduce.claims import Comparison, Term
from reproduce.records import RunRecord
from reproduce.report.evidence import decoded
from reproduce.report.power import Images, images_of, pooled
from reproduce.report.shelf import Series, Shelf, choose, question, series_of
from reproduce.specs import Protocol, RunSpec
from reproduce.study_plans import Asked, PlannedSpread


def spread_of(shelf: Shelf, dataset: str, pilot: Asked, metric: str = "top1") -> PlannedSpread | None:
    """The spread pooled over the cells of one data set, protocol and source; None without two seeds of any cell.

    A cell is the newest version of one spec's results, computed in one way.
    """
    cells = [one for one in _cells(shelf, dataset, pilot) if len(one.finished) > 1]
    found = pooled([[float(getattr(run.metrics.last, metric)) for run in one.finished if run.metrics] for one in cells])
    if found is None:
        return None
    return PlannedSpread(
        metric=metric,
        std=found.std,
        upper=found.upper,
        degrees=found.degrees,
        cells=found.cells,
        protocol=pilot.protocol,
        source=pilot.source,
        records=tuple(sorted(record.run_id for one in cells for record in one.finished)),
    )


def pilots(shelf: Shelf, dataset: str | None = None) -> list[tuple[str, Asked]]:
    """(data set, protocol and source) of all recorded runs, in order; smoke tests are none."""
    found = {
        (record.spec.data.name, record.spec.protocol, record.spec.data.source)
        for record in shelf.records
        if dataset in (None, record.spec.data.name) and not record.spec.protocol.startswith("tiny")
    }
    return [(name, Asked(protocol=protocol, source=source)) for name, protocol, source in sorted(found)]


def images_between(one: Comparison, pilot: Asked, shelf: Shelf) -> Images:
    """What images add, from the pilot's runs of both rows; nothing where fewer than two of either kept their bits."""
    import numpy as np

    arms = []
    for term in (one.a, one.b):
        chosen = choose(
            series for series in series_of(shelf.answers(_pilot_spec(term, pilot)))
            if series.source == pilot.source and series.newest
        )  # fmt: skip
        bits = [] if chosen is None else [decoded(record) for record in chosen.finished]
        arms.append([row for row in bits if row is not None])
    sizes = {row.size for arm in arms for row in arm}
    return images_of(*map(np.stack, arms)) if min(map(len, arms)) > 1 and len(sizes) == 1 else Images()


def _pilot_spec(term: Term, pilot: Asked) -> RunSpec:
    rows = experiments.rows(term.experiment, Protocol.parse(pilot.protocol), source=pilot.source)
    return next(row.spec for row in rows if row.name == term.row)


def _cells(shelf: Shelf, dataset: str, pilot: Asked) -> list[Series]:
    groups: dict[str, list[RunRecord]] = {}
    for record in shelf.records:
        spec = record.spec
        if (spec.data.name, spec.protocol, spec.data.source) == (dataset, pilot.protocol, pilot.source):
            groups.setdefault(question(spec), []).append(record)
    return [one for records in groups.values() for one in series_of(records) if one.newest]
