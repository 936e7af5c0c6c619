"""`reproduce diff`: two records or machines side by side, what each difference can do, and what came of it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from reproduce.findings import clean, labelled
from reproduce.lookup import Found
from reproduce.records import RunRecord
from reproduce.report import inference, words
from reproduce.report.cells import layer_sizes
from reproduce.report.effects import TITLES, Difference, differences, machine_differences
from reproduce.report.parting import bits, different_parts, parting, same_images
from reproduce.store import slug

COLUMN = 30  # the names of fields
NAMED, LISTED = 4, 15  # fields in a sentence, and under one heading


def compared(a: Found, b: Found) -> dict[str, Any]:
    """Everything that `text` says, as plain values. Two machines, or two records."""
    if a.record is None or b.record is None:
        found = machine_differences(a.machine, b.machine)
    else:
        # As parsed: a field that an older record lacks has its default.
        one, other = (record.model_dump(mode="json") for record in (a.record, b.record))
        found = differences(one, other, a.machine, b.machine)
    entry: dict[str, Any] = {
        "a": title(a),
        "b": title(b),
        "differences": [one.as_json() for one in found],
        "conclusion": conclusion(a, b, found),
    }
    if a.run is not None and b.run is not None:
        entry["result"] = results(a.run, b.run)
    return entry


def title(found: Found) -> str:
    """What a file is, in a line."""
    if found.record is None:
        return f"{found.name}: {words.machine_title(found.content, '')}"
    run = found.run
    if run is None:
        return f"{found.name}: {found.content.get('kind')}"
    return f"{found.name}: {run.spec.data.name}, {slug(run.spec)}, {run.spec.protocol}, seed {run.seed}"


def results(a: RunRecord, b: RunRecord) -> dict[str, Any]:
    """What came out of two runs beside each other."""
    place = parting(a, b)
    entry: dict[str, Any] = {
        "equal_to_the_bit": place is None,
        "differs_in": different_parts(a, b),
        "top1": [None if one.metrics is None else one.metrics.last.top1 for one in (a, b)],
        "sizes": sizes(a, b),
    }
    if same_images(a, b):
        first, second, p = inference.mcnemar(bits(a), bits(b))
        entry["images"] = {"only_a_right": first, "only_b_right": second, "of": a.data.test_images, "p": p}
    # Runs of different specs or seeds part at their first step, which says nothing.
    if place is not None and (a.spec, a.seed) == (b.spec, b.seed):
        entry["parts_at"] = str(place)
    return entry


def sizes(a: RunRecord, b: RunRecord) -> str | None:
    """`differ in 7 of 18 layers, by at most 1`; None where they cannot be compared."""
    one, other = layer_sizes(a), layer_sizes(b)
    if not one or list(one) != list(other):
        return None
    apart = [abs(one[layer] - other[layer]) for layer in one if one[layer] != other[layer]]
    return f"differ in {len(apart)} of {len(one)} layers, by at most {max(apart)}" if apart else "equal in every layer"


def conclusion(a: Found, b: Found, found: list[Difference]) -> str:
    """One sentence: what the differences can do, and whether the results agree with that."""
    effects = {one.effect for one in found}
    if a.record is None or b.record is None:
        if "bits" in effects:
            return "Runs of one spec and seed may differ between these machines in the last bits."
        return "Runs of one spec and seed are to be equal to the bit on these machines."
    if "results" in effects:
        fields = [one.field for one in found if one.effect == "results"]
        names = ", ".join(fields[:NAMED]) + (f" and {len(fields) - NAMED} more" if len(fields) > NAMED else "")
        return f"These runs answer different questions or drew different seeds ({names}), so results may differ."
    if "outcome" not in effects:
        return "What came out is equal to the bit."
    if "bits" in effects:
        return "The same spec and seed on machines or settings that may differ in the last bits."
    return (
        "The same spec and seed on the same kind of machine, and yet other results: the code changed without a new "
        "protocol version, or a record was altered."
    )


def text(entry: dict[str, Any]) -> str:
    """`compared` in 80 columns."""
    lines = [*labelled("A", entry["a"], indent=4), *labelled("B", entry["b"], indent=4)]
    shown = [one for one in entry["differences"] if "result" not in entry or one["effect"] != "outcome"]
    for effect, some in groupby(shown, key=lambda one: one["effect"]):
        lines += ["", TITLES[effect], *_listed(list(some))]
    if "result" in entry:
        lines += ["", TITLES["outcome"], *_results(entry["result"])]
    elif not shown:
        lines += ["", "no difference"]
    return "\n".join([*lines, "", *labelled("", entry["conclusion"], indent=2)])


def _listed(some: list[dict[str, str]]) -> list[str]:
    """A line for each field; a reason that several in a row share stands behind the first of them."""
    lines: list[str] = []
    before = ""
    for one in some[:LISTED]:
        field = clean(one["field"])
        why = "" if one["why"] in ("", before) else f" ({one['why']})"
        before = one["why"]
        lines += labelled(f"  {field}", f"{one['a']} | {one['b']}{why}", indent=max(COLUMN, len(field) + 4))
    more = len(some) - LISTED
    return lines + ([f"  and {more} more (all with --json)"] if more > 0 else [])


def _results(found: dict[str, Any]) -> list[str]:
    if found["equal_to_the_bit"]:
        lines = labelled("  equal", "to the bit, but for times, machine and provenance")
    else:
        lines = labelled("  differs in", ", ".join(found["differs_in"]))
    a, b = found["top1"]
    if a is not None and b is not None:
        lines += labelled("  top-1", f"{a:.2f} | {b:.2f} % (B - A = {b - a:+.2f})")
    if found["sizes"] is not None:
        lines += labelled("  sizes", found["sizes"])
    if "images" in found:
        one = found["images"]
        p = "" if found["equal_to_the_bit"] else f"; McNemar's exact p = {one['p']:.2g}, of these two networks alone"
        counts = f"{one['only_a_right']:,} right in A alone, {one['only_b_right']:,} in B alone"
        lines += labelled("  images", f"{counts}, of {one['of']:,}{p}")
    if "parts_at" in found:
        lines += labelled("  they part", f"{found['parts_at']} (first point recorded)")
    return lines
