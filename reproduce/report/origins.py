"""Which rows of the paper a record answers, and the command that makes it. Pure functions."""

from __future__ import annotations

from functools import cache

from reproduce import experiments, paper
from reproduce.experiments import EXPERIMENTS, Row
from reproduce.records import RunRecord
from reproduce.report.onepage.commands import command
from reproduce.report.shelf import Way, question
from reproduce.specs import Protocol


def rows_of_record(record: RunRecord) -> list[Row]:
    """The rows that ask for this run, whatever its images and however it was computed; in the paper's order."""
    here = (name for name in EXPERIMENTS if experiments.dataset_of(name) == record.spec.data.name)
    asked = question(record.spec)
    return [row for name in here for row in _by_question(name, record.spec.protocol).get(asked, [])]


@cache
def _by_question(experiment: str, protocol: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    try:
        rows = experiments.rows(experiment, Protocol.parse(protocol))
    except ValueError:  # a protocol of a newer version
        return {}
    for row in rows:
        found.setdefault(question(row.spec), []).append(row)
    return found


def where(row: Row) -> str:
    """`Table 2: EffConv-20 0.66M`."""
    return f"{paper.tables()[row.experiment].title.split(':')[0]}: {row.name}"


def command_of(record: RunRecord, row: Row) -> str:
    """The command line that makes this record. DIR stands for the folder of images that are not the canonical files."""
    spec = record.spec
    return command(
        row.experiment,
        Protocol.parse(spec.protocol),
        names=[row.name],
        seeds=str(record.seed),
        way=Way.of(spec),
        source=spec.data.source,
    )


def command_lines(record: RunRecord, row: Row, width: int = 78) -> list[str]:
    """The same in lines that a shell takes as one."""
    first, *options = command_of(record, row).split(" --")
    lines = [first]
    for option in options:
        fits = len(lines[-1]) + len(option) + 5 <= width
        lines[-1:] = [f"{lines[-1]} --{option}"] if fits else [f"{lines[-1]} \\", f"  --{option}"]
    return lines
