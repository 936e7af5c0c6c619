"""Where learned sizes are large, over seeds: from finished runs, and from size learning alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reproduce import recipes
from reproduce.claims import Claim, Term
from reproduce.networks import network
from reproduce.report import words
from reproduce.report.cells import layer_sizes, own_sizes
from reproduce.report.evidence import Evidence
from reproduce.report.inference import distinct, share
from reproduce.report.scopes import Finding, Scope
from reproduce.report.verdicts import Verdict, structure
from reproduce.size_records import SizeRecord, SizeSpec
from reproduce.specs import DATASETS, PROTOCOL_VERSION, Protocol

FIXED = 3.0  # the first convolution, which is not learned

Sizes = Mapping[int, Sequence[float]]  # by seed: (L,) in forward order


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The sizes of a claim's terms under one scope."""

    scope: Scope
    sizes: tuple[Sizes, ...]  # one for each term
    records: tuple[str, ...]


def structures(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """k of n seeds against one half, with the fixed first layer counted and without; both must agree."""
    for learned in [*from_runs(claim, evidence), *from_size_learning(claim, evidence)]:
        seeds = sorted(set.intersection(*(set(one) for one in learned.sizes)))
        if not seeds:
            continue
        found = {
            counted: [holds(claim, [sizes[seed] for sizes in learned.sizes], counted) for seed in seeds]
            for counted in (True, False)
        }
        effects = {counted: share(sum(several), len(seeds)) for counted, several in found.items()}
        verdicts = {counted: structure(effect) for counted, effect in effects.items()}
        verdict: Verdict = verdicts[True] if verdicts[True] == verdicts[False] else "undecided"
        weaker = min(effects.values(), key=lambda effect: effect.estimate)
        yield Finding(
            scope=learned.scope,
            verdict=verdict,
            text="; ".join(
                f"{sum(found[counted])} of {len(seeds)} seeds (share {effects[counted].low:.2f} to "
                f"{effects[counted].high:.2f}) with the first layer {'counted' if counted else 'not counted'}"
                for counted in (True, False)
            ),
            effect=weaker.minus(0.5),
            smallest=0.0,
            p={} if weaker.p is None else {claim.id: weaker.p},
            seeds=words.seed_list(seeds),
            records=learned.records,
        )


def holds(claim: Claim, sizes: Sequence[Sequence[float]], counted: bool) -> bool:
    """Whether one seed is as the sentence says. sizes: (L,) by term.

    counted: whether the network's first layer counts among the layers. EffConv's is fixed and not in `sizes`.
    """
    learned_first = claim.terms[0].row.startswith("Flex")
    first = [] if learned_first else [FIXED]
    layers = [([*first, *one] if counted else list(one)[len(first) == 0 :]) for one in sizes]
    if claim.rule == "same_first":
        assert claim.layers is not None
        alike = layers[0][: claim.layers] == layers[1][: claim.layers]
        return alike and layers[0][claim.layers :] != layers[1][claim.layers :]
    if claim.rule == "largest":
        assert claim.layers is not None
        return layers[0].count(max(layers[0])) == 1 and layers[0].index(max(layers[0])) + 1 == claim.layers
    rises = slope(layers[0]) > 0
    return rises if claim.rule == "growth" else not rises


def slope(values: Sequence[float]) -> float:
    """Sign and size of a straight line's slope over the index, up to a positive factor."""
    centre = (len(values) - 1) / 2
    return math.fsum((index - centre) * value for index, value in enumerate(values))


def from_runs(claim: Claim, evidence: Evidence) -> Iterator[Learned]:
    """The sizes that finished runs have, by setting."""
    for setting in evidence.shared(claim.terms):
        arms = [evidence.arms(term)[setting] for term in claim.terms]
        sizes: list[Sizes] = []
        for arm in arms:
            own = {one.seed: [math.sqrt(h * w) for h, w in own_sizes(one).values()] for one in arm.finished}
            learned = {one.seed: list(map(float, layer_sizes(one).values())) for one in arm.finished}
            sizes.append({seed: learned[seed] or own[seed] for seed in own if learned[seed] or own[seed]})
        if all(sizes):
            scope = evidence.scope(setting, arms, claim.terms[0].dataset)
            yield Learned(scope=scope, sizes=tuple(sizes), records=evidence.paths(arms))


def from_size_learning(claim: Claim, evidence: Evidence) -> Iterator[Learned]:
    """The sizes of size learning alone with true labels, by length, images and way of computing.

    Raises `ValueError` for a seed that is there twice.
    """
    groups: dict[str, list[list[SizeRecord]]] = {}
    for place, term in enumerate(claim.terms):
        for record in evidence.size_records:
            if of_term(record, term):
                groups.setdefault(_group(record), [[] for _ in claim.terms])[place].append(record)
    for _, several in sorted(groups.items()):
        if all(several):
            every = [record for records in several for record in records]
            for records in several:
                distinct(record.case.seed for record in records)
            yield Learned(
                scope=size_scope(every[0]),
                sizes=tuple({one.case.seed: in_order(one) for one in records} for records in several),
                records=tuple(evidence.size_path(record) for record in every),
            )


def of_term(record: SizeRecord, term: Term) -> bool:
    """Whether this is stage 1 of the row under the paper's settings, with true labels and today's version."""
    case, found = record.case, network(term.row)
    if found.budget is None or case.arm != "true" or case.spec.data.name != term.dataset:
        return False
    whole = Protocol(base="paper")
    wanted = recipes.size_learning(found, term.dataset, whole, recipes.training(found, term.dataset, whole))
    given = case.spec.size_learning.model_copy(update={"epochs": wanted.epochs})
    same = case.spec.model == found.model and given == wanted
    return same and record.outcome.status == "finished" and record.protocol_version == PROTOCOL_VERSION


def _group(record: SizeRecord) -> str:
    """What runs of size learning must share: all but network, budget and seed."""
    spec = record.case.spec
    return f"{spec.steps:09} {spec.data} {spec.engine} {spec.precision} {spec.threads}"


def size_scope(record: SizeRecord) -> Scope:
    """Decisive at the full length of the paper's stage 1, on all canonical images."""
    spec, origin = record.case.spec, record.data
    whole = origin.canonical and origin.train_images == DATASETS[spec.data.name].train_images
    name = f"size learning alone, {spec.steps:,} of {paper_steps(spec):,} steps"
    return Scope(
        decisive=whole and spec.steps >= paper_steps(spec),
        data=f"{origin.title}, {origin.train_images:,} training images",
        protocol=", ".join([name] + ([] if spec.engine == "plain" else [f"{spec.engine} engine"])),
        source=spec.data.source,
        asked=str(spec.steps),
    )


def paper_steps(spec: SizeSpec) -> int:
    """Steps of the paper's stage 1: whole epochs over all images, the last batch kept."""
    images = DATASETS[spec.data.name].train_images
    return recipes.SIZE_EPOCHS[spec.data.name] * math.ceil(images / spec.size_learning.batch_size)


def in_order(record: SizeRecord) -> list[float]:
    """(L,) in forward order; a file sorts its keys as text."""
    sizes = record.sizes or {}
    return [float(sizes[name]) for name in sorted(sizes, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])]
