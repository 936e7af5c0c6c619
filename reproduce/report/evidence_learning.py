"""What size learning says beyond where sizes are large: does it meet the budget, and do labels have a say?"""

from __future__ import annotations

from collections.abc import Iterator

from reproduce.claims import Claim
from reproduce.known_answers import KnownStore
from reproduce.known_cases import EFFCONV
from reproduce.label_test import Question, questions
from reproduce.report import known, labels, words
from reproduce.report.evidence import Arm, Evidence, setting_of
from reproduce.report.evidence_sizes import size_scope
from reproduce.report.inference import against
from reproduce.report.scopes import Finding, Scope
from reproduce.report.statistics import mean
from reproduce.report.verdicts import on_par
from reproduce.specs import PROTOCOL_VERSION

TOLERANCE = 0.01  # of the budget: two printed digits of 0.66M


def budgets(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """How far rounded sizes are from the budget before snapping, over all EffConv runs, by data set and setting."""
    groups: dict[tuple[bool, str, str], list[tuple[float, float, int, str]]] = {}
    for record in evidence.effconv_runs:
        arm = Arm(finished=(record,), diverged=())
        scope = evidence.scope(setting_of(record), [arm], record.spec.data.name)
        assert record.snapped is not None
        entry = (record.snapped.error_before, record.snapped.error_after, record.seed, *evidence.paths([arm]))
        groups.setdefault((scope.decisive, scope.data, scope.protocol), []).append(entry)  # type: ignore[arg-type]
    for (decisive, data, protocol), entries in sorted(groups.items()):
        before = [one[0] for one in entries]
        effect = against(before, 0.0) if len(before) > 1 else None
        after = 100 * max(abs(one[1]) for one in entries)
        yield Finding(
            scope=Scope(decisive=decisive, data=data, protocol=protocol),
            verdict="undecided" if effect is None else on_par(effect, TOLERANCE),
            text=f"{len(before)} runs: off by {100 * mean(before):+.2f} % on average (up to "
            f"{100 * max(map(abs, before)):.2f} %) as rounded, at most {after:.2f} % after snapping (R-12)",
            effect=effect,
            smallest=TOLERANCE,
            p={} if effect is None or effect.p is None else {claim.id: effect.p},
            seeds=words.seed_list(sorted({one[2] for one in entries})),
            records=tuple(one[3] for one in entries),
        )


def label_tests(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Label tests of the paper's settings, then known answers. Not detected is no contradiction."""
    yield from _tests(claim, evidence)
    yield from _known_answers(evidence)


def _known_answers(evidence: Evidence) -> Iterator[Finding]:
    """How often learned sizes reach what their data need, where that is proven or measured; never a verdict."""
    data = known.known_data(KnownStore(evidence.results).records())
    for score in [] if data is None else data["scores"]:
        if score["method"] in EFFCONV:
            plural = "s" if score["layers"] > 1 else ""
            yield Finding(
                scope=Scope(
                    decisive=False,
                    data=f"tasks with a known answer: {score['task']}, {score['layers']} layer{plural}",
                    protocol=f"{data['steps']:,} steps of size learning" if data else "",
                ),
                verdict="undecided",
                text=f"{score['method']}, {_budget(score['budget'])}: {score['reached']} of {score['cases']} reached",
                seeds=words.seed_list(data["seeds"]) if data else "",
            )


def _budget(budget: int | None) -> str:
    return "no budget" if budget is None else f"budget {budget:,}"


def _tests(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """One finding for each question."""
    for question in questions(evidence.size_records):
        verdict = question.verdict()
        if verdict.seeds and question.version == PROTOCOL_VERSION and _is_papers(question):
            yield Finding(
                scope=size_scope(question.records[0]),
                verdict="supported" if verdict.detected else "undecided",
                text=words.one_line(f"{labels.name_of(question)}: {labels.finding(question)}"),
                p={} if verdict.p is None else {claim.id: verdict.p},
                seeds=words.seed_list(verdict.seeds),
                records=tuple(evidence.size_path(record) for record in question.records),
            )


def _is_papers(question: Question) -> bool:
    """Whether the readings are the default ones: those of other readings say nothing of the paper's method."""
    given = question.spec.size_learning
    fields = type(given).model_fields.items()
    return all(field.is_required() or getattr(given, name) == field.default for name, field in fields)
