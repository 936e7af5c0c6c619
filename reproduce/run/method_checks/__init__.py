"""`reproduce check-method`: does a method that learns kernel sizes keep what it declares?

`methods`: the methods by name, built in or plugged in, and what each declares. `trials`: the small data and how a
method is run on it. `learner_checks` and `network_checks`: what is tested of the two kinds of methods.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from reproduce.run import machine
from reproduce.run.method_checks import learner_checks, network_checks
from reproduce.run.method_checks.methods import Method, find
from reproduce.run.method_checks.trials import SETTING, Check

__all__ = ["Finding", "Method", "as_json", "check", "find", "told"]

Status = Literal["pass", "fail", "not declared"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found, with the number that it measured."""

    check: str
    status: Status
    text: str


def check(method: Method) -> Iterator[Finding]:
    """All checks of a method, one after the other, on one CPU thread. What the method raises is a failure."""
    checks = learner_checks.checks(method) if method.kind == "size learner" else network_checks.checks(method)
    for one in checks:
        if one.needs is not None and one.needs not in method.declared:
            yield Finding(check=one.name, status="not declared", text=f"it does not declare {one.needs} = True")
        else:
            yield _done(one)


def _done(one: Check) -> Finding:
    try:
        with machine.settings(1):
            passed, text = one.run()
    except Exception as error:
        passed, text = False, f"raised {type(error).__name__}: {error}"
    return Finding(check=one.name, status="pass" if passed else "fail", text=" ".join(text.split()))


def told(method: Method, *, echo: Callable[[str], object] | None) -> list[Finding]:
    """The findings, each told in a line as soon as it is there, after one on what is tried; None: no line."""
    echo = echo or (lambda line: None)
    echo(f"{method.name}, a {method.kind}; declares {', '.join(method.declared) or 'nothing'}. {SETTING}")
    found = []
    for one in check(method):
        echo(f"{one.status:<12}  {one.check:<24}  {one.text}")
        found.append(one)
    return found


def as_json(method: Method, findings: Sequence[Finding]) -> str:
    """`--json`."""
    about = {"method": method.name, "kind": method.kind, "declared": method.declared, "setting": SETTING}
    return json.dumps(about | {"checks": [asdict(one) for one in findings]}, indent=1)
