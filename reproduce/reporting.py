"""What `reproduce report` does: bring the rendered folder up to date, or write the report to another place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from reproduce.errors import UsageError, UserError
from reproduce.store import Store

Say = Callable[[str], None]


def command(results: Path, output: Path | None, *, out: Say, err: Say) -> int:
    """Write the report and print where it is; the exit code. Raises `UserError` where there is nothing to report."""
    from reproduce.report import onepage, rendered

    if output is not None and output.suffix not in onepage.WRITERS:
        raise UsageError(f"--output: {output.name} must end in .html or .md")
    store, folder = Store(results), results / "rendered"
    if output is None:
        names = {f"{onepage.NAME}{suffix}" for suffix in onepage.WRITERS}
        written = [path for path in rendered.write_all(store, folder) if path.name in names]
    else:
        written = [output] if _elsewhere(store, output) else []
    if not written:
        raise UserError(f"no records but smoke tests in {results}; name their folder with --results, or run a table")
    for problem in store.problems:
        err(f"warning: {problem}")
    out("\n".join(map(str, written)))
    return 0


def _elsewhere(store: Store, output: Path) -> bool:
    """Write one file; False without records. Its links lead to the results folder from where it stands."""
    from reproduce.report import onepage, rendered

    sources = rendered.sources(store)
    if sources.empty:
        return False
    results = store.results.resolve()
    base = Path(os.path.relpath(results, output.resolve().parent)).as_posix()
    content = onepage.WRITERS[output.suffix](onepage.report_of(sources), results / "rendered", base)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(content, encoding="utf-8")
    return True
