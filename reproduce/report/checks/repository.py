"""What git and the source tree say: tags of deviations, records changed after their commit, commits of records."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("effconv", "baselines", "reproduce")
TAG = re.compile(r"\bR-\d\d\b")
RECORDS = ("runs", "timings", "sizes", "known_answer", "machines")


def git(root: Path, *arguments: str) -> list[str] | None:
    """Lines of a git command's output in this folder; None where there is no git or no checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def tags(root: Path) -> dict[str, set[str]]:
    """By file below the packages, the deviations' tags that it carries."""
    files = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    found = ((path, set(TAG.findall(path.read_text(encoding="utf-8")))) for path in files)
    return {path.relative_to(root).as_posix(): some for path, some in found if some}


def changed_records(root: Path, results: Path) -> list[str] | None:
    """Records that differ from what was first committed, in the history since or on the disk; None without git.

    A record is written once, so its file has one version. Timings may be measured again, so they are left out.
    """
    folders = [str((results / name).absolute()) for name in RECORDS if name != "timings" and (results / name).is_dir()]
    if not folders:
        return []
    later = git(root, "log", "--diff-filter=MT", "--name-only", "--format=", "--", *folders)
    now = git(root, "diff", "HEAD", "--diff-filter=MDT", "--name-only", "--", *folders)
    if later is None or now is None:
        return None
    return sorted(path for path in {*later, *now} if path and not says_the_same(root, path))


def says_the_same(root: Path, path: str) -> bool:
    """Whether a file holds the very values that it was first committed with, however they are laid out."""
    first = (git(root, "log", "--diff-filter=A", "--format=%H", "--", path) or [""])[-1]
    try:
        before = json.loads("\n".join(git(root, "show", f"{first}:{path}") or []))
        return bool(before == json.loads((root / path).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def unknown_commits(root: Path, commits: Iterable[str]) -> list[str] | None:
    """Those that are no commits of this repository; None without git."""
    known = git(root, "rev-list", "--all")
    return None if known is None else sorted(set(commits) - set(known))


def uncommitted_records(root: Path, results: Path) -> list[str] | None:
    """Files below the records that git does not know; None without git."""
    folders = [str((results / name).absolute()) for name in RECORDS if (results / name).is_dir()]
    if not folders:
        return []
    return git(root, "ls-files", "--others", "--exclude-standard", "--", *folders)
