"""A SLURM for the tests: the one that SLURM_CONF names, or one of one node that is started here."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "slurm"
NOT_HERE = 3  # exit code of tools/slurm/start


@pytest.fixture(scope="session")
def cluster(worker_id: str) -> Iterator[str]:
    """Its configuration. Skips where none can be started, with the reason; one that was promised has to answer."""
    if "SLURM_CONF" in os.environ:
        subprocess.run(["sinfo"], check=True, capture_output=True, timeout=60)
        yield os.environ["SLURM_CONF"]
        return
    number = int(worker_id.removeprefix("gw")) + 1 if worker_id.startswith("gw") else 0
    # Not pytest's own folder: munged wants one that everybody may enter, and a socket's path has room for 100 letters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        home = {"SLURM_HOME": folder, "SLURM_PORT": str(46827 + 10 * number)}
        begun = subprocess.run([TOOLS / "start"], env=os.environ | home, capture_output=True, text=True, timeout=300)
        if begun.returncode == NOT_HERE:
            pytest.skip(begun.stderr.strip())
        assert begun.returncode == 0, begun.stderr
        os.environ["SLURM_CONF"] = begun.stdout.strip().partition("=")[2]
        yield os.environ["SLURM_CONF"]
        del os.environ["SLURM_CONF"]
        subprocess.run([TOOLS / "stop"], env=os.environ | home, check=True, timeout=120)
