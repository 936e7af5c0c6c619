"""What `reproduce time` prints: seconds per epoch by row, what stands apart, the ladder's ratios and the warnings."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from reproduce.floors import floor_seconds
from reproduce.report import words
from reproduce.report.ratios import headlines, is_off, title
from reproduce.report.times import cut
from reproduce.report.words import NOTHING
from reproduce.specs import DATASETS
from reproduce.timing_store import counts
from reproduce.timings import LEVELS, PairTiming, RowTiming, StageTiming, epoch_seconds, stages

WIDTH = 80
LEGEND = (
    "T1: size learning; T2: training; seconds for all training images once, ~ from some steps. weighted: by the epochs "
    "of the two; plain: their mean. x floor: weighted, over what the device's ceilings allow."
)

SHARED = (
    "per seed, N share the device: networks of N seeds are trained side by side; wall time of an epoch of all of them, "
    "divided by N. It is no time of a network alone, and stands in no table of results."
)


def text(
    rows: Sequence[RowTiming], pairs: Sequence[PairTiming], machine: Mapping[str, Any], device: str
) -> str:
    """Everything, in lines of at most 80 columns."""
    blocks = [[f"{words.machine_title(machine, device)}; random images"]]
    for dataset in dict.fromkeys(row.spec.data.name for row in rows):
        some = [row for row in rows if row.spec.data.name == dataset]
        alone = [row for row in some if row.together == 1]
        blocks += [seconds_table(dataset, alone), apart_table(alone)]
        for together in sorted({row.together for row in some} - {1}):
            blocks.append(shared_table(dataset, together, [row for row in some if row.together == together]))
    if any(row.together > 1 for row in rows):
        blocks.append(textwrap.wrap(SHARED, WIDTH))
    if rows:
        blocks.append([*textwrap.wrap(LEGEND, WIDTH), *sizes_lines(rows), *cut_lines(rows)])
    for claim in dict.fromkeys(pair.claim for pair in pairs):
        blocks.append(pairs_table(claim, [pair for pair in pairs if pair.claim == claim]))
    if pairs:
        blocks.append([line for level, said in LEVELS.items() for line in wrapped(f"{level}: {said}")])
    blocks.append(warnings([*rows, *pairs]))
    return "\n\n".join("\n".join(block) for block in blocks if block)


CEILINGS = {
    "copy_tb_s": "copy, read and written, TB/s",
    "matmul_tflop_s": "matrix product (bf16; on a CPU float32), TFLOP/s",
    "matmul_float32_tflop_s": "matrix product in float32, TFLOP/s",
    "matmul_tf32_tflop_s": "matrix product in tf32, TFLOP/s",
    "kernel_us_eager": "smallest operation, microseconds",
    "kernel_us_graph": "smallest operation in a CUDA graph, microseconds",
}


def ceilings_text(found: Mapping[str, float], machine: Mapping[str, Any], device: str, threads: int) -> str:
    """What a device can do at best."""
    where = words.machine_title(machine, device) + (f"; {threads} threads" if device == "cpu" and threads > 1 else "")
    rows = [[CEILINGS.get(key, key), f"{value:.3g}"] for key, value in found.items()]
    return "\n".join([where, "", *table(["ceiling", "measured"], rows)])


def plain(rows: Sequence[RowTiming], pairs: Sequence[PairTiming]) -> dict[str, Any]:
    """The same for machines: the records, and what follows from them."""
    return {
        "rows": [row.model_dump(mode="json") | averages(row) for row in rows],
        "pairs": [pair.model_dump(mode="json") for pair in pairs],
        "headlines": [
            {
                "pair": one.title,
                "kernel_size": one.kernel_size,
                "ratio": one.chosen.ratio if one.chosen else None,
                "level": one.chosen.level if one.chosen else None,
                "level_i": one.plain.ratio if one.plain else None,
                "level_i_full_grid": one.plain_full.ratio if one.plain_full else None,
                "claim": claim,
            }
            for claim in dict.fromkeys(pair.claim for pair in pairs)
            for one in headlines(pair for pair in pairs if pair.claim == claim)
        ],
        "warnings": warnings([*rows, *pairs]),
    }


def averages(row: RowTiming) -> dict[str, float | None]:
    found = epoch_seconds(row) if counts(row) else None
    return {
        "weighted": found[0] if found else None,
        "mean_of_stages": found[1] if found else None,
        "times_floor": times_floor(row),
    }


def times_floor(row: RowTiming) -> float | None:
    """All epochs of both stages, in floors."""
    floors, spent = 0.0, 0.0
    for name, stage in stages(row).items():
        least = floor_seconds(row, name)
        if not least:
            return None
        floors += stage.epochs * least
        spent += stage.epochs * stage.seconds
    return spent / floors if floors and counts(row) else None


def seconds_table(dataset: str, rows: Sequence[RowTiming]) -> list[str]:
    headers = [DATASETS[dataset].title, "T1", "T2", "weighted", "plain", "x floor"]
    return table(headers, [_seconds_row(row) for row in rows])


def _seconds_row(row: RowTiming) -> list[str]:
    if not counts(row):
        return [row.name, *[NOTHING] * 2, "invalid" if row.certificate.invalid else "failed", *[NOTHING] * 2]
    found, floors = epoch_seconds(row), times_floor(row)
    both = [NOTHING, NOTHING] if found is None else [words.seconds(value) for value in found]
    each = [_stage(row.size_learning), _stage(row.training)]
    return [row.name, *each, *both, NOTHING if floors is None else f"{floors:.3g}"]


def shared_table(dataset: str, together: int, rows: Sequence[RowTiming]) -> list[str]:
    """Training of several networks at once; never in one column with seconds of one alone."""
    marked = f"{DATASETS[dataset].title}: per seed, {together} share the device"
    return table([marked, "T2", "x floor", "once, all"], [_shared_row(row) for row in rows])


def _shared_row(row: RowTiming) -> list[str]:
    if not counts(row) or row.training is None:
        return [row.name, "invalid" if row.certificate.invalid else "failed", *[NOTHING] * 2]
    floors, once = times_floor(row), sum(row.training.one_off.values())
    return [row.name, _stage(row.training), NOTHING if floors is None else f"{floors:.3g}", words.seconds(once)]


def _stage(stage: StageTiming | None) -> str:
    return NOTHING if stage is None else "~" * (stage.how == "steps") + words.seconds(stage.seconds)


def apart_table(rows: Sequence[RowTiming]) -> list[str]:
    """What is in no epoch's seconds."""
    headers = ["apart, in seconds", "evaluation", "once, T1", "once, T2"]
    return table(headers, [_apart_row(row) for row in rows if stages(row)])


def _apart_row(row: RowTiming) -> list[str]:
    both, last = (row.size_learning, row.training), row.training
    once = [NOTHING if one is None else words.seconds(sum(one.one_off.values())) for one in both]
    if last is None or last.evaluation_seconds is None:
        return [row.name, NOTHING, *once]
    return [row.name, "~" * (last.evaluation_how == "steps") + words.seconds(last.evaluation_seconds), *once]


def sizes_lines(rows: Iterable[RowTiming]) -> list[str]:
    """Where the sizes come from, of rows that have any."""
    told = {row.sizes_from: None for row in rows if row.sizes_from}
    by_origin = {one: dict.fromkeys(row.name for row in rows if row.sizes_from == one) for one in told}
    return [line for origin, names in by_origin.items() for line in wrapped(f"Sizes of {', '.join(names)}: {origin}.")]


def cut_lines(rows: Iterable[RowTiming]) -> list[str]:
    """Which rows were timed with fewer images a step than their own."""
    return [line for row in rows if (said := cut(row)) for line in wrapped(f"{row.name}: {said.strip()}")]


def pairs_table(claim: str, pairs: Sequence[PairTiming]) -> list[str]:
    """The ratios of one claim, and its headlines."""
    first = table(
        ["level", "pair", "size", "ratio", "interval", "pairs", "A/A", "batch"], [_pair_row(pair) for pair in pairs]
    )
    second = [line for one in headlines(pairs) if one.chosen for line in wrapped(_headline(one))]
    named = {short(pair): title(pair) for pair in pairs}
    return [f"{claim}: seconds of a step, first over second", *(f"{a}: {b}" for a, b in named.items()), *first, *second]


def short(pair: PairTiming) -> str:
    """A name for a narrow column."""
    return "stages" if pair.a.name == pair.b.name else "networks"


def _headline(one: Any) -> str:
    grid = "" if one.plain_full is None else f" ({words.ratio(one.plain_full.ratio)} with the full grid)"
    eager = "" if one.plain is None else f"; level i {words.ratio(one.plain.ratio)}{grid}"
    flags = "".join(f"; {flag}" for flag in one.flags)
    at = "" if one.kernel_size is None else f" at {one.kernel_size} x {one.kernel_size}"
    return f"{one.title}{at}: {words.ratio(one.chosen.ratio)} times (level {one.chosen.level}){eager}{flags}"


def _pair_row(pair: PairTiming) -> list[str]:
    size = NOTHING if pair.a.kernel_size is None else f"{pair.a.kernel_size}{' full' if pair.a.full_grid else ''}"
    if not counts(pair):
        return [pair.level, short(pair), size, "invalid", *[NOTHING] * 4]
    return [
        pair.level,
        short(pair),
        size,
        words.ratio(pair.ratio),
        f"{words.ratio(pair.low)}..{words.ratio(pair.high)}",
        str(len(pair.ratios)),
        f"{pair.control_ratio:.3f}{' !' if is_off(pair) else ''}",
        f"{pair.batch_size}{' cut' if pair.batch_cut else ''}",
    ]


def warnings(records: Iterable[RowTiming | PairTiming]) -> list[str]:
    """What the certificates say, and what failed; of lines that differ in numbers alone, the first and how many."""
    alike: dict[str, list[str]] = {}
    for record in records:
        lines = [f"warning: {line}" for line in record.certificate.warnings]
        lines += [f"no timing: {record.certificate.invalid}"] if record.certificate.invalid else []
        if isinstance(record, RowTiming) and record.outcome == "failed":
            lines.append(f"failed: {record.name}: {words.one_line(record.reason)}")
        for line in lines:
            alike.setdefault(re.sub(r"[\d.]+", "0", line), []).append(line)
    said = [some[0] + ("" if len(some) == 1 else f" ({len(some)} records)") for some in alike.values()]
    return [part for line in said for part in wrapped(line)]


def wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ")


def table(headers: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    aligned = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=aligned).splitlines()
