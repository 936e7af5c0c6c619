"""`reproduce checklist`: scope, deviations, data, settings, statistics, compute, artifacts, each with its evidence.

Nothing is asserted: a line passes or fails by what stands in the records and the repository, or it needs a person.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reproduce.findings import Finding
from reproduce.report.checks import artifacts, runs, scope
from reproduce.report.checks.evidence import Evidence, Lines

PARTS: tuple[Callable[[Evidence], Lines], ...] = (
    scope.scope,
    scope.deviations,
    runs.data,
    runs.settings,
    runs.statistics,
    runs.compute,
    artifacts.artifacts,
)


def checklist(results: Path, root: Path) -> list[Finding]:
    """All lines, topic by topic. root: the repository, for its sources and history."""
    evidence = Evidence(results, root)
    return [line for part in PARTS for line in part(evidence)]
