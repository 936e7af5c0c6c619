"""The label test and the worth test as a page for each data set: results/rendered/labels.<data set>.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce.experiments import effconv_name
from reproduce.label_test import (
    ARMS,
    FEWEST,
    LEVEL,
    Question,
    Verdict,
    detectable_shift,
    gradient_ratio,
    questions,
    rms,
    vector,
)
from reproduce.report import words
from reproduce.report.pages import Page
from reproduce.report.sections import grid
from reproduce.report.statistics import mean
from reproduce.report.worth import worth_section
from reproduce.size_records import Arm, SizeStore
from reproduce.specs import DATASETS
from reproduce.store import Store

METHOD = (
    "At each seed sizes are learned from the same start and the same batches with true labels (T), with shuffled ones "
    "(S) and with another, independent shuffle (S'). d is the mean absolute difference by layer of the soft sizes that "
    "are read out, in kernel sizes; x = d(T, S) - d(S', S). If labels have no say, x is as likely -x. The p-value is "
    "the share of all sign flips of x whose mean is at least as large. The same of the integer sizes and the distance "
    "between seeds stand beside it and decide nothing."
)
HEADERS = ("seed", "d(T, S)", "d(S', S)", "x", "integers: d(T, S)", "d(S', S)", "x",
           "class gradient / budget gradient on v, rms", "what lasts of it / budget gradient")  # fmt: skip


def page_name(dataset: str) -> str:
    return f"labels.{dataset}.md"


def write(results: Path, folder: Path) -> list[Path]:
    """Write the page of each data set that has records into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    found = pages(results)
    for page in found:
        (folder / page.name).write_text(page.text, encoding="utf-8")
    return [folder / page.name for page in found]


def problems(results: Path) -> list[str]:
    """One line for each record of size learning that cannot be read."""
    store = SizeStore(results)
    store.records()
    return store.problems


def pages(results: Path) -> list[Page]:
    """One page for each data set that has records of size learning."""
    asked = questions(SizeStore(results).records())
    runs = Store(results).records() if asked else []
    found = []
    for dataset in DATASETS:
        own = [question for question in asked if question.spec.data.name == dataset]
        if own:
            blocks = [f"# Do labels have a say in the learned sizes? {DATASETS[dataset].title}", METHOD]
            blocks += [part for question in own for part in block(question)]
            blocks += against_budget(own) + worth_section(dataset, runs)
            text = "\n\n".join(blocks) + "\n"
            found.append(Page(name=page_name(dataset), text=text, about=about(dataset, own)))
    return found


def about(dataset: str, own: Sequence[Question]) -> tuple[str, ...]:
    """The page's line in the index."""
    steps = ", ".join(f"{question.spec.steps:,} steps" for question in own)
    titles = sorted({question.records[0].data.title for question in own})
    seeds = sorted({record.case.seed for question in own for record in question.records})
    return f"[labels.{dataset}]({page_name(dataset)})", steps, "; ".join(titles), "", words.number_list(seeds)


def name_of(question: Question) -> str:
    """`EffConv-20 0.66M`, and whatever is not as in our default: `EffConv-20 0.66M, lam 0.05, graph engine`."""
    spec, args = question.spec, question.spec.model.args
    row = effconv_name(int(str(args["depth"])), spec.size_learning.budget)
    if "widen_factor" in args:
        row = row.replace(f"EffConv-{args['depth']}", f"Wide-EffConv-{args['depth']}-{args['widen_factor']}")
    given, changed = spec.size_learning, []
    for name, field in type(given).model_fields.items():
        if not field.is_required() and getattr(given, name) != field.default:
            changed.append(f"{name} {getattr(given, name)}")
    changed += [] if spec.engine == "plain" else [f"{spec.engine} engine"]
    return ", ".join([row, *changed])


def block(question: Question) -> list[str]:
    """All about one question: the finding in a sentence, then what it rests on."""
    parts = [f"## {name_of(question)}, {question.spec.steps:,} steps"]
    verdict = question.verdict()
    if verdict.seeds:
        parts += [finding(question), by_seed(question, verdict), tests(question), by_layer(question, verdict)]
        parts += [planted(question)] if question.planted else []
    return [*parts, *not_comparable(question), sizes(question)]


def not_comparable(question: Question) -> list[str]:
    """Which seeds the tests leave out, and why."""
    left_out = sorted({seed for arm, size in tested(question) for seed in question.apart(arm, size)})
    if not left_out:
        return []
    return [
        f"Left out of the tests, {words.seed_list(left_out)}: their runs come from several kinds of machine, and "
        "another rounding moves sizes by about as much as another shuffle."
    ]


def tested(question: Question) -> list[tuple[Arm, float]]:
    """What stands in the place of T: true labels, then each planted gradient."""
    return [("true", 0.0), *(("planted", size) for size in question.planted)]


def finding(question: Question) -> str:
    """One sentence; steps, images and seeds come first."""
    verdict, spec, origin = question.verdict(), question.spec, question.records[0].data
    seeds = words.seed_list(verdict.seeds)
    lead = (
        f"With {spec.steps:,} steps of {spec.size_learning.batch_size} images, from {origin.train_images:,} training "
        f"images of {words.one_line(origin.title)}, and {seeds}, "
    )
    if verdict.p is None:
        return f"{lead}nothing can be said: the test needs {FEWEST} seeds."
    if verdict.detected:
        return (
            f"{lead}a say of the labels in the sizes was detected (p = {verdict.p:.3f}): true labels moved the soft "
            f"sizes farther from a shuffle's than another shuffle did, by {mean(verdict.x):.4f} on average."
        )
    return (
        f"{lead}a say of the labels in the sizes was not detected at this length (p = {verdict.p:.3f}); "
        f"{would_have_been(question, verdict)}."
    )


def would_have_been(question: Question, verdict: Verdict) -> str:
    """How large an effect the test would have seen: by planted gradients, and by the scatter of x."""
    shift, seen = detectable_shift(verdict.x), question.detectable_gradient()
    assert shift is not None  # `FEWEST` seeds are there
    parts = [f"an effect of more than {shift:.4f} kernel sizes on x would have been, at this scatter"]
    if seen is not None:
        parts.append(f"and one of a planted gradient of {seen:g} on each soft size was{multiple(question, seen)}")
    elif question.planted:
        parts.append(f"planted gradients up to {question.planted[-1]:g} were not either")
    return ", ".join(parts)


def multiple(question: Question, size: float) -> str:
    class_rms = class_gradient(question)
    return f" ({words.ratio(size / class_rms)} times the rms of the class gradient)" if class_rms else ""


def class_gradient(question: Question) -> float:
    """The rms of the recorded class gradient over all runs with true labels; 0 where there is none."""
    found = [gradient_ratio(record.history) for record in question.runs("true").values()]
    values = [ratio.class_rms for ratio in found if ratio is not None]
    return rms(values) if values else 0.0


def by_seed(question: Question, verdict: Verdict) -> str:
    whole, true, rows = question.verdict(whole=True), question.runs("true"), []
    for index, seed in enumerate(verdict.seeds):
        ratio = gradient_ratio(true[seed].history)
        gradients = [words.NOTHING] * 2 if ratio is None else [f"{ratio.batch:.2g}", f"{ratio.lasting:.2g}"]
        rows.append([str(seed), *distances(verdict, index), *distances(whole, index), *gradients])
    return grid(HEADERS, rows)


def distances(verdict: Verdict, index: int) -> list[str]:
    return [f"{verdict.to_true[index]:.4f}", f"{verdict.to_reshuffled[index]:.4f}", f"{verdict.x[index]:+.4f}"]


def tests(question: Question) -> str:
    headers = ["sizes", "mean x", "p (exact, one-sided)", "seed spread", "least mean x that would have been detected"]
    rows = []
    for title, whole in (("soft (the test)", False), ("integer (beside it)", True)):
        verdict, spread = question.verdict(whole=whole), question.seed_spread(whole=whole)
        rows.append([title, *outcome(verdict), number(spread), number(detectable_shift(verdict.x))])
    return grid(headers, rows)


def by_layer(question: Question, verdict: Verdict) -> str:
    """Where true labels move the soft sizes, and which way: a description, made after the test was fixed."""
    threes, names = question.threes("true", 0.0), question.records[0].sizes or {}
    vectors = [[vector(run, whole=False) for run in threes[seed]] for seed in verdict.seeds]
    rows = []
    for index, name in enumerate(names):
        to_true = [true[index] - first[index] for true, first, _ in vectors]
        to_reshuffled = [second[index] - first[index] for _, first, second in vectors]
        each = " ".join(map(signed, to_true))
        rows.append([name, signed(mean(to_true)), each, f"{mean(list(map(abs, to_reshuffled))):.2f}"])
    headers = ["layer", "T - S, mean", "by seed", "S' - S, mean size"]
    return "By layer, soft sizes; looked at after the test, and deciding nothing:\n\n" + grid(headers, rows)


def signed(value: float) -> str:
    """`+0.12`; `0` for what rounds to it, which has no sign."""
    text = f"{value:+.2f}"
    return text if text[1:] != "0.00" else "0"


def outcome(verdict: Verdict) -> list[str]:
    return [f"{mean(verdict.x):+.4f}", number(verdict.p, 3)]


def number(value: float | None, places: int = 4) -> str:
    return words.NOTHING if value is None else f"{value:.{places}f}"


def planted(question: Question) -> str:
    """What the test says of known gradients beside that of the true labels."""
    class_rms, rows = class_gradient(question), []
    for size in question.planted:
        verdict = question.verdict("planted", size)
        if verdict.seeds:
            share = words.ratio(size / class_rms) if class_rms else words.NOTHING
            seeds = words.number_list(verdict.seeds)
            said = words.NOTHING if verdict.p is None else "yes" if verdict.detected else "no"
            rows.append([f"{size:g}", share, seeds, *outcome(verdict), said])
    headers = ["planted gradient on v, its sign changing from layer to layer", "times the class gradient's rms",
               "seeds", "mean x", "p", f"detected (p <= {LEVEL:g})"]  # fmt: skip
    return grid(headers, rows)


def sizes(question: Question) -> str:
    """The integer sizes of every record, in forward order."""
    arms: list[tuple[Arm, float]] = [(arm, 0.0) for arm in ARMS]
    rows = []
    for arm, planted in arms + [("planted", size) for size in question.planted]:
        for seed, record in question.runs(arm, planted).items():
            labels = f"{arm} {planted:g}" if planted else arm
            rows.append([labels, str(seed), " ".join(map(str, (record.sizes or {}).values()))])
    return grid(["labels", "seed", "sizes in forward order"], rows)


def against_budget(own: Sequence[Question]) -> list[str]:
    """Figure 3 (c) by size learning alone: mean integer sizes with true labels, of questions that differ in budget."""
    alike: dict[str, list[Question]] = {}
    for question in own:
        if question.runs("true"):
            alike.setdefault(but_for_budget(question), []).append(question)
    rows = []
    for several in alike.values():
        for question in sorted(several, key=budget) if len(several) > 1 else []:
            runs = question.runs("true")
            layers = zip(*(vector(record, whole=True) for record in runs.values()), strict=True)
            means = " ".join(f"{mean(layer):.1f}" for layer in layers)
            rows.append([name_of(question), f"{question.spec.steps:,}", words.number_list(list(runs)), means])
    if not rows:
        return []
    headers = ["row", "steps", "seeds", "mean size of each layer over the seeds, in forward order"]
    return ["## Sizes against the budget, true labels", grid(headers, rows)]


def budget(question: Question) -> int:
    return question.spec.size_learning.budget


def but_for_budget(question: Question) -> str:
    """What two questions must share to be set side by side."""
    learning = question.spec.size_learning.model_copy(update={"budget": 0})
    return f"{question.version} {question.spec.model_copy(update={'size_learning': learning}).model_dump_json()}"


def plain(results: Path, dataset: str) -> list[dict[str, Any]]:
    """The same as plain values, one entry for each question."""
    found = []
    for question in questions(SizeStore(results).records()):
        if question.spec.data.name == dataset:
            verdict = question.verdict()
            found.append({
                "spec": question.spec.model_dump(mode="json"),
                "protocol_version": question.version,
                "train_images": question.records[0].data.train_images,
                "seeds": list(verdict.seeds),
                "finding": finding(question) if verdict.seeds else "",
                "tests": [as_json(question, *one, whole) for one in tested(question) for whole in (False, True)],
                "seed_spread": question.seed_spread(),
                "class_gradient_rms": class_gradient(question),
                "detectable_gradient": question.detectable_gradient(),
            })  # fmt: skip
    return found


def as_json(question: Question, arm: Arm, size: float, whole: bool) -> dict[str, Any]:
    verdict = question.verdict(arm, size, whole=whole)
    shift = detectable_shift(verdict.x) if verdict.x else None
    return {"arm": arm, "planted": size, "sizes": "integer" if whole else "soft", "seeds": list(verdict.seeds),
            "x": list(verdict.x), "p": verdict.p, "detectable_shift": shift}  # fmt: skip
