"""What counts alone say of a sentence on cost: parameters, layers, forward passes, epochs. No run is needed.

FlexConv's passes of its kernel network are counted as its authors' code makes them, which crops the grid of positions
first, and as the EffConv paper describes them, over the whole grid. The verdict is on the former.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from reproduce import experiments, paper
from reproduce.claims import Claim, Comparison, Term
from reproduce.complexity import Complexity, complexity
from reproduce.layers import flex_size, odd
from reproduce.networks import BASELINES, network
from reproduce.report import words
from reproduce.report.cells import own_sizes
from reproduce.report.evidence import Arm, Evidence, setting_of
from reproduce.report.inference import Effect
from reproduce.report.scopes import Finding, Scope, combined, exact
from reproduce.report.shelf import DIGITS
from reproduce.report.verdicts import Verdict, agreed, directional, on_par
from reproduce.specs import DATASETS, Protocol

COMPUTED = Scope(decisive=True, data="no images", protocol="counted on the networks")
MARGIN = 0.1
FRACTION = 0.2  # 'a small fraction' of the epochs: under a fifth
ORDER = 10.0  # 'orders of magnitude': at least one
FLEXNET, DEEPEST = "FlexNet-16", 16
START = 3  # EffConv's sizes at the start

Judged = tuple[Verdict, str, Effect]


def counts(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """The computation that the claim names. Raises `KeyError` for a rule that is none."""
    verdict, text, effect = RULES[claim.rule](claim)
    smallest = claim.compare[0].smallest if claim.compare else MARGIN
    yield Finding(scope=COMPUTED, verdict=verdict, text=text, effect=effect, smallest=smallest)
    if claim.rule in ("passes", "orders", "waste"):
        yield from _as_learned(evidence)


def layers(claim: Claim) -> Judged:
    """Convolutions and linear layers, as `ResNet-20` counts them."""
    return _all(claim, lambda term: {"": _complexity(term).layers}, "layers")


def parameters(claim: Claim) -> Judged:
    return _all(claim, totals, "parameters")


def totals(term: Term) -> dict[str, int]:
    """Trainable parameters; where sizes are learned, under both readings of the budget (R-05, R-21)."""
    found, counted = network(term.row), _complexity(term)
    if found.budget is None:
        return {"": counted.total}
    rest = counted.total - counted.eq3
    return {"the budget read as Eq. 3": found.budget + rest, "the budget read as the total": found.budget}


def _complexity(term: Term) -> Complexity:
    return complexity(network(term.row).model, term.dataset)


def _all(claim: Claim, count: Callable[[Term], Mapping[str, int]], what: str) -> Judged:
    """All comparisons of a claim; readings of a count must agree."""
    judged = [_ratio(one, count) for one in claim.compare]
    verdict = combined(each[0] for each in judged)
    effect = next(effect for found, _, effect in judged if found == verdict)
    return verdict, f"{what}: {'; '.join(text for _, text, _ in judged)}", effect


def _ratio(one: Comparison, count: Callable[[Term], Mapping[str, int]]) -> Judged:
    """a over b: about what the sentence states, or just above 1."""
    verdicts, texts, effects = [], [], []
    for name_a, a in count(one.a).items():
        for name_b, b in count(one.b).items():
            effect = exact(a / b / (one.states or 1.0) - 1.0)
            verdicts.append(on_par(effect, one.smallest) if one.states else directional(effect, one.smallest))
            reading = f" ({name_a or name_b})" if name_a or name_b else ""
            texts.append(f"{one.a.row} {a:,}, {one.b.row} {b:,}, ratio {a / b:.3g}{reading}")
            effects.append(effect)
    verdict = verdicts[0]
    for other in verdicts[1:]:
        verdict = agreed(verdict, other)
    return verdict, "; ".join(texts), min(effects, key=lambda each: each.estimate)


def deepest(_: Claim) -> Judged:
    """Whether any network of FlexConv layers that the paper prints an accuracy for has more than 16 layers."""
    found = {
        row.name: complexity(BASELINES[row.name], experiment.dataset).layers
        for experiment in paper.tables().values()
        for row in experiment.rows
        if row.accuracy is not None and row.name in BASELINES and "w/ CKConv" not in row.name
        if "CKCNN" not in row.name and BASELINES[row.name].family in ("flexnet", "flex_resnet")
    }
    name = max(found, key=lambda one: found[one])
    effect = exact(float(DEEPEST - found[name]))
    verdict: Verdict = "supported" if found[name] <= DEEPEST else "contradicted"
    return verdict, f"the paper's own tables have an accuracy of {name}, which has {found[name]} layers", effect


def image_size(_: Claim) -> Judged:
    ratio = (DATASETS["stl10"].image_size / DATASETS["cifar10"].image_size) ** 2
    effect = exact(ratio / 9 - 1)
    return on_par(effect, MARGIN), f"{ratio:g} times the pixels, {math.sqrt(ratio):g} times the side", effect


def positions(side: int) -> tuple[int, int]:
    """(cropped first, whole grid): passes of the kernel network for one layer at FlexConv's first kernels."""
    grid = odd(side)
    return flex_size(grid) ** 2, grid**2


def passes(_: Claim, datasets: Sequence[str] = tuple(DATASETS)) -> Judged:
    """Passes of one layer against N x N, for each data set."""
    sides = sorted({DATASETS[name].image_size for name in datasets})
    effects = [exact(positions(side)[0] / side**2 - 1) for side in sides]
    text = "; ".join(
        f"N = {side}: {cropped:,} of N x N = {side**2:,} at its first kernels ({whole:,} as described)"
        for side, (cropped, whole) in ((side, positions(side)) for side in sides)
    )
    described = all(abs(positions(side)[1] / side**2 - 1) < MARGIN for side in sides)
    verdict = combined(on_par(effect, MARGIN) for effect in effects)
    return verdict, _variants(text, described), min(effects, key=lambda one: one.estimate)


def passes_stl10(claim: Claim) -> Judged:
    return passes(claim, ("stl10",))


def waste(_: Claim) -> Judged:
    """The share of computed positions that the crop throws away."""
    cropped, whole = positions(DATASETS["cifar10"].image_size)
    effect = exact(0.0)
    text = f"none of the {cropped} positions computed is thrown away ({100 * (1 - cropped / whole):.0f} % as described)"
    return directional(effect, MARGIN), _variants(text, True), effect


def quadratic(_: Claim) -> Judged:
    """The exponent of the side in the number of passes, from 32 to 96 pixels."""
    near, far = (DATASETS[name].image_size for name in ("cifar10", "stl10"))
    exponents = [math.log(b / a) / math.log(far / near) for a, b in zip(positions(near), positions(far), strict=True)]
    effect = exact(exponents[0] - 2)
    text = (
        f"from {near} to {far} pixels they grow with the side to the power {exponents[0]:.2f} "
        f"({exponents[1]:.2f} as described)"
    )
    return on_par(effect, 2 * MARGIN), _variants(text, abs(exponents[1] - 2) < 2 * MARGIN), effect


def orders(_: Claim) -> Judged:
    """All passes of FlexNet-16 for one set of kernels over those of EffConv-20, both at their first sizes."""
    effects, texts, described = [], [], []
    for name in DATASETS:
        side = DATASETS[name].image_size
        ours = (complexity(network("EffConv-20 0.66M").model, name).layers - 2) * START**2  # but for first and last
        theirs = complexity(BASELINES[FLEXNET], name).layers - 1  # but for the head
        cropped, whole = (theirs * count / ours for count in positions(side))
        effects.append(exact(math.log10(cropped / ORDER)))
        described.append(whole >= ORDER)
        texts.append(f"N = {side}: {cropped:.1f} times as many ({whole:.0f} as described)")
    verdict = combined(directional(effect, MARGIN) for effect in effects)
    text = f"FlexNet-16 against EffConv-20: {'; '.join(dict.fromkeys(texts))}; orders of magnitude: at least {ORDER:g}"
    return verdict, _variants(text, all(described)), min(effects, key=lambda one: one.estimate)


def _variants(text: str, described: bool) -> str:
    """Both variants: the verdict is on the code's."""
    outcome = "holds" if described else "fails"
    return f"as its authors' code does it (crop first): {text}; as the paper describes it the sentence {outcome}"


def epochs(_: Claim) -> Judged:
    """Epochs of stage 1 over those of stage 2, in each of the paper's EffConv rows."""
    shares = {}
    for table in ("table1", "table2", "table3", "table4"):
        for row in experiments.rows(table, Protocol(base="paper")):
            if row.spec.size_learning is not None and row.paper is not None:
                shares[row.spec.data.name] = (row.spec.size_learning.epochs, row.spec.training.epochs)
    most = max(first / second for first, second in shares.values())
    effect = exact(FRACTION - most)
    texts = (f"{DATASETS[name].title} {first} of {second}" for name, (first, second) in shares.items())
    text = f"{', '.join(texts)}; a small fraction: under a fifth. Stage 2 follows FlexConv's schedule (R-15)"
    return "supported" if effect.low > 0 else "contradicted", text, effect


def budget_range(_: Claim) -> Judged:
    """0.1M and 0.5M over ResNet-20's parameters, against a half and two."""
    total = complexity(network("CIFARResNet-20").model, "cifar10").total
    budgets = experiments.FIGURE3_BUDGETS
    shares = [budget / total for budget in (budgets[0], budgets[-1])]
    effects = [exact(share / states - 1) for share, states in zip(shares, (0.5, 2.0), strict=True)]
    text = f"{shares[0]:.2f} and {shares[1]:.2f} times ResNet-20's {total:,}, against 0.5 and 2"
    return combined(on_par(effect, MARGIN) for effect in effects), text, max(effects, key=lambda one: abs(one.estimate))


RULES: dict[str, Callable[[Claim], Judged]] = {
    "layers": layers, "parameters": parameters, "fewer_parameters": parameters, "deepest": deepest,
    "image_size": image_size, "passes": passes, "passes_stl10": passes_stl10, "waste": waste, "quadratic": quadratic,
    "orders": orders, "epochs": epochs, "budget_range": budget_range,
}  # fmt: skip


def _as_learned(evidence: Evidence) -> Iterator[Finding]:
    """Passes at the kernel sizes that recorded runs of FlexNet-16 ended with."""
    names = {protocol.name for protocol in evidence.protocols}
    for record in evidence.shelf.records:
        ours = record.spec.model == BASELINES[FLEXNET] and record.spec.protocol in names
        if ours and record.kernel_sizes and record.spec.data.source != DIGITS:
            arm = Arm(finished=(record,), diverged=())
            cropped = sum(height * width for height, width in own_sizes(record).values())
            whole = len(record.kernel_sizes) * odd(DATASETS[record.spec.data.name].image_size) ** 2
            yield Finding(
                scope=replace(evidence.scope(setting_of(record), [arm], record.spec.data.name), decisive=False),
                verdict="undecided",
                text=f"at the sizes that FlexNet-16 learned: {cropped:,} passes cropped first, {whole:,} over the grid",
                seeds=words.seed_list([record.seed]),
                records=evidence.paths([arm]),
            )
