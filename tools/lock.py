"""Writes requirements.txt from this environment: every version pinned, with the checksum of its wheel, and no address.

pip tells the checksums from the index's metadata, for the platform and Python that this runs on; nothing is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

OWN = "effconv-reproduction"
LEFT_OUT = {OWN, "pip"}
CHUNK = 20  # packages a call of pip
HEADER = """\
# For an exact reinstall on x86-64 Linux with Python 3.11: the versions that this suite was last tested with, and the
# checksums of their wheels. pyproject.toml holds the ranges; this file is for those who want the very same versions:
#     python3.11 -m venv .venv
#     .venv/bin/pip install --require-hashes -r requirements.txt
#     .venv/bin/pip install --no-deps -e .
# Made by `make lock` from the environment of `make install`.
"""


def installed() -> dict[str, str]:
    """Name -> version of everything in this environment, without the suite itself and the installers."""
    found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name not in LEFT_OUT}


def checksums(pins: list[str]) -> dict[str, str]:
    """pins: "name==version" each -> by name, the SHA-256 of the wheel that pip would install. Fails if one has none."""
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--quiet", "--report=-"]
    command = [sys.executable, "-m", "pip", "install", *options, *pins]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    entries = json.loads(told.stdout)["install"]
    return {
        entry["metadata"]["name"].lower().replace("_", "-"): entry["download_info"]["archive_info"]["hashes"]["sha256"]
        for entry in entries
    }


def main() -> None:
    versions = installed()
    names = list(versions)
    hashes: dict[str, str] = {}
    for start in range(0, len(names), CHUNK):
        hashes |= checksums([f"{name}=={versions[name]}" for name in names[start : start + CHUNK]])
        print(f"{len(hashes)} of {len(names)}", file=sys.stderr)
    lines = [f"{name}=={versions[name]} --hash=sha256:{hashes[name]}\n" for name in names]
    Path("requirements.txt").write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
