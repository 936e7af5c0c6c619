"""Whether what is published is whole: records as they were written, their code, what is rendered, what explains it."""

from __future__ import annotations

from reproduce.lookup import unreadable
from reproduce.report import rendered
from reproduce.report.checks import repository
from reproduce.report.checks.evidence import Evidence, Lines, line, person

FILES = ("LICENSE", "CITATION.cff", "README.md", "REPRODUCING.md", "requirements.txt", "pyproject.toml")
NO_GIT = "look in a checkout"


def artifacts(evidence: Evidence) -> Lines:
    bad = unreadable(evidence.results)
    text = f"{len(bad)} records cannot be read or do not match their digest"
    yield line("artifacts", not bad, text, "restore them from git", bad)
    yield from history(evidence)
    yield from code(evidence)
    stale = rendered.stale(evidence.store, evidence.results / "rendered")
    text = f"{len(stale)} rendered files differ from the records"
    yield line("artifacts", not stale, text, "`make render`", [one.split(":")[0] for one in stale])
    missing = [name for name in FILES if not (evidence.root / name).is_file()]
    text = f"{len(FILES) - len(missing)} of {len(FILES)} are here: licence, citation, instructions, versions"
    yield line("artifacts", not missing, text, "add these", missing)
    yield person("artifacts", "whether a stranger gets there with REPRODUCING.md alone", "let one try")


def history(evidence: Evidence) -> Lines:
    """Whether records are as they were first committed."""
    changed = repository.changed_records(evidence.root, evidence.results)
    unknown = repository.uncommitted_records(evidence.root, evidence.results)
    if changed is None or unknown is None:
        yield person("artifacts", "whether records were changed since: there is no git history here", NO_GIT)
        return
    text = f"{len(changed)} records differ from what was first committed"
    yield line("artifacts", not changed, text, "say why, or restore them", changed)
    text = f"{len(unknown)} records are not committed"
    yield line("artifacts", not unknown, text, "commit them", unknown)


def code(evidence: Evidence) -> Lines:
    """Which code made the records."""
    commits = {str(record.code.get("commit")) for record in evidence.records}
    strange = repository.unknown_commits(evidence.root, commits)
    if strange is None:
        yield person("artifacts", "whether the commits of the runs exist: there is no git history here", NO_GIT)
    else:
        text = f"{len(commits) - len(strange)} of {len(commits)} commits that made runs are in this repository"
        yield line("artifacts", not strange, text, "fetch these", strange)
    dirty = [record.run_id for record in evidence.records if record.code.get("dirty") is not False]
    text = f"{len(evidence.records) - len(dirty)} of {len(evidence.records)} runs were made by committed code"
    yield line("artifacts", not dirty, text, "run these again from a commit", dirty)
