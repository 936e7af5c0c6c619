"""Options that several commands share, their types and callbacks. See `cli`."""

from __future__ import annotations

from pathlib import Path

import click

from reproduce import naming

RESULTS = Path("results")
FOLDER = click.Path(file_okay=False, path_type=Path)
POSITIVE = click.IntRange(min=1)
RESULTS_OPTION = click.option(
    "--results", type=FOLDER, default=RESULTS, show_default=True, help="Folder of the records."
)
CACHE_OPTION = click.option("--cache", type=FOLDER, help="Folder of decoded images; may be deleted at any time.")
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def seconds(_ctx: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """The callback of an option that takes a length of time. Raises `UsageError`."""
    return None if text is None else naming.parse_span(text, option.opts[0])
