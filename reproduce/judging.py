"""What `reproduce claims` does: every claim with its verdict, or those that are asked for. It writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from reproduce import claims
from reproduce.errors import UsageError

CONTRADICTED = 3  # the exit code of `--strict`

Say = Callable[[str], None]


def claims_command(
    results: Path, *, only: Sequence[str] = (), as_json: bool = False, strict: bool = False, out: Say, err: Say
) -> int:
    """Print the claims with their verdicts; the exit code. Raises `UsageError` for an id that no claim has."""
    check(only)
    from reproduce.report import claims_text
    from reproduce.report.evidence import Evidence
    from reproduce.report.judged import contradicted, judge_all

    evidence = Evidence(results)
    every = judge_all(claims.load(), evidence)
    found = [one for one in every if not only or one.claim.id in only]
    if as_json:
        out(json.dumps(claims_text.plain(found), indent=1, ensure_ascii=False))
    else:
        out(claims_text.terminal(found))
    for problem in evidence.problems:
        err(f"warning: not used: {claims_text.clean(problem)}")
    against = contradicted(found)
    if strict and against:
        err(f"contradicted: {', '.join(one.claim.id for one in against)}")
        return CONTRADICTED
    return 0


def check(only: Sequence[str]) -> None:
    """Raises `UsageError` that names near ids."""
    known = [claim.id for claim in claims.load()]
    for name in only:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4) or [one for one in known if name in one][:3]
            hint = f"near ones: {', '.join(near)}" if near else "`reproduce claims` lists all"
            raise UsageError(f"--only: no claim is named {name!r}; {hint}")
