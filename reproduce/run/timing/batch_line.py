"""Steps of a batch that had to be cut, drawn out to the row's own batch by a line through two batch sizes."""

from __future__ import annotations

import statistics

from reproduce.run.timing.stage_clock import steps_in_epoch
from reproduce.run.timing.stopwatch import scaled
from reproduce.specs import Recipe
from reproduce.timings import BatchLine, StageTiming


def along_line(more: StageTiming, fewer: StageTiming, training: Recipe) -> StageTiming:
    """The stage at the row's own batch, from steps of two smaller ones; `more` itself if the line falls below zero.

    `more.batch_size` > `fewer.batch_size`. Batch size, steps and samples of the result are those of `more`.
    """
    line = line_through(more, fewer, training.batch_size)
    if not line.used:
        return more.model_copy(update={"batch_line": line})
    steps = steps_in_epoch(more.images, line.own, drop_last=training.drop_last)
    seconds = steps * (line.fixed + line.each * line.own)
    parts = parts_along(more, fewer, training)
    parts = scaled(parts, seconds / sum(parts.values()))
    return more.model_copy(update={"seconds": seconds, "parts": parts, "batch_line": line})


def line_through(more: StageTiming, fewer: StageTiming, own: int) -> BatchLine:
    """Exactly through the median steps of the two."""
    high, low = statistics.median(more.samples), statistics.median(fewer.samples)
    each = (high - low) / (more.batch_size - fewer.batch_size)
    fixed = high - each * more.batch_size
    return BatchLine(
        images=[more.batch_size, fewer.batch_size],
        seconds=[high, low],
        own=own,
        fixed=fixed,
        each=each,
        used=fixed >= 0 and each >= 0,
        samples=fewer.samples,
    )


def parts_along(more: StageTiming, fewer: StageTiming, training: Recipe) -> dict[str, float]:
    """The parts of a step of the row's own batch, each along a line of its own; noise makes none negative."""
    high, low = (
        scaled(one.parts, 1 / steps_in_epoch(one.images, one.batch_size, drop_last=training.drop_last))
        for one in (more, fewer)
    )
    far = (training.batch_size - more.batch_size) / (more.batch_size - fewer.batch_size)
    return {part: max(0.0, spent + far * (spent - low.get(part, 0.0))) for part, spent in high.items()}
