"""What tests tell of the faults that they tried: a JSON line each in the file that FAULT_REPORT names, if it names one.

`python -m tools.fault_report` runs those tests and makes results/faults.md of the lines.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FULL = os.environ.get("FAULTS") == "full"  # every count of the promise, else fewer of those that take minutes
FOREIGN_INPUTS = int(os.environ.get("FOREIGN_INPUTS", 500))  # of test_foreign_bytes.py, for each reader

# By name, in the order of the report: what the suite promises.
PROMISES = {
    "`kill -9` of a worker": "the same command again: records equal to an uninterrupted run's, but for clock, machine "
    "and lineage",
    "`kill -9` of the head": "the same command again: no run is done twice, none is lost",
    "power loss": "what is damaged is found by its checksum and put aside, the run goes on from the state before; "
    "never a wrong number",
    "disk full, folder read-only": "one clear line, nothing corrupted; goes on after space is made",
    "two heads on one store": "each run is done once",
    "a run that diverges, lacks memory or hangs": "recorded as such with its reason; the others go on; the table "
    "shows it",
    "clock jumps, records of a newer version": "durations stay right; a clear line, nothing overwritten",
    "hostile input": "refused with one line, or rendered harmless",
}

HOSTILE, POWER, KILLED = "hostile input", "power loss", "`kill -9` of a worker"
CLOCKS = "clock jumps, records of a newer version"
# Tests elsewhere that count: file and name, fault, case, tries for each of its parameters.
COUNTED = [
    ("reproduce/test_foreign_bytes.py::test_much_damage_is_harmless_or_refused", HOSTILE,
     "damaged bytes to each of the 16 readers", FOREIGN_INPUTS),
    ("reproduce/test_foreign_bytes.py::test_hostile_batches", HOSTILE, "pickled code and claims in image batches", 1),
    ("reproduce/test_foreign_bytes.py::test_bombs_in_tarballs", HOSTILE, "compressed bombs and absurd sizes", 1),
    ("reproduce/test_foreign_bytes.py::test_a_gzip_bomb", HOSTILE, "compressed bombs and absurd sizes", 1),
    ("reproduce/test_foreign_bytes.py::test_a_png_that_claims_memory", HOSTILE, "compressed bombs and absurd sizes", 1),
    ("reproduce/test_foreign_bytes.py::test_an_array_that_claims_memory", HOSTILE,
     "compressed bombs and absurd sizes", 1),
    ("reproduce/test_foreign_bytes.py::test_deep_and_endless_json", HOSTILE, "compressed bombs and absurd sizes", 1),
    ("reproduce/test_foreign_bytes.py::test_hostile_checkpoints", HOSTILE,
     "checkpoints with code, bombs or absurd sizes", 4),
    ("reproduce/test_foreign_bytes.py::test_hostile_state_dicts", HOSTILE,
     "checkpoints with code, bombs or absurd sizes", 2),
    ("reproduce/test_foreign_bytes.py::test_hostile_archives", HOSTILE, "archives with bombs or odd names", 10),
    ("reproduce/test_archive.py::test_a_path_out_of_the_folder_is_refused_whole", HOSTILE,
     "archives and records that reach out of the folder", 1),
    ("reproduce/test_archive.py::test_a_record_cannot_choose_a_place_outside", HOSTILE,
     "archives and records that reach out of the folder", 1),
    ("reproduce/test_foreign_bytes.py::test_records_that_name_no_place", HOSTILE,
     "archives and records that reach out of the folder", 1),
    ("reproduce/test_onepage.py::test_text_of_records_stays_text", HOSTILE, "HTML and markdown in a record's text", 1),
    ("reproduce/test_onepage.py::test_markdown_of_other_pages_brings_no_html_link_or_image", HOSTILE,
     "HTML and markdown in a record's text", 1),
    ("reproduce/test_archive.py::test_a_damaged_archive_is_one_line_and_changes_nothing", POWER,
     "an archive that is cut or altered", 1),
    ("reproduce/test_resume.py::test_stopped_once", KILLED, "one process, asked to stop at a step", 1),
    ("reproduce/test_resume.py::test_killed", KILLED, "one process, within or after a save", 1),
    ("reproduce/test_store.py::test_a_bad_file_costs_one_line_and_nothing_else", CLOCKS,
     "files that are no records, among them one of a newer version", 1),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one test says of one case. fault: a key of `PROMISES`, or empty if the test failed or was skipped."""

    test: str
    fault: str
    case: str
    tries: int
    lost: int
    note: str = ""


def write(line: Line) -> None:
    target = os.environ.get("FAULT_REPORT")
    if target:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")


class Recorder:
    """For one test: `tried(...)` writes the line, then fails if anything was lost."""

    def __init__(self, test: str) -> None:
        self.test = test

    def tried(self, fault: str, case: str, tries: int, lost: Sequence[object] = (), note: str = "") -> None:
        """lost: what was lost or wrong, one entry each."""
        assert fault in PROMISES
        write(Line(test=self.test, fault=fault, case=case, tries=tries, lost=len(lost), note=note))
        assert tries and not lost, f"{case}: {len(lost)} of {tries} lost: {list(lost)[:5]}"


def heard(test: str, outcome: str, reason: str = "") -> None:
    """Of every test that has ended: notes those that count, and what failed or was skipped of them and this folder."""
    name = re.sub(r"\[.*", "", test).removeprefix("tests/")
    counted = [(fault, case, tries) for one, fault, case, tries in COUNTED if one == name]
    for fault, case, tries in counted:
        if outcome != "skipped":
            write(Line(test=test, fault=fault, case=case, tries=tries, lost=tries if outcome == "failed" else 0))
    if (counted or name.startswith("faults/")) and outcome != "passed":
        write(Line(test=test, fault="", case=outcome, tries=1, lost=int(outcome == "failed"), note=reason))
