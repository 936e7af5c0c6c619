"""How much loading CIFAR-10 raises the peak of resident memory: the first time, and from the cache.

Each load runs in a process of its own, which notes its peak after the imports and again after the load. Without
--data-root the files are random images in CIFAR-10's own format, made in a temporary folder.

    python -m benchmarks.memory --data-root data
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.side_by_side import table, verdict

TARGET = 400.0  # MB, of 10^6 bytes; the images themselves are 184 MB
LOAD = """
import resource, sys
from pathlib import Path
from reproduce.run.datasets import identify, load
from reproduce.specs import DataSpec
root, cache = Path(sys.argv[1]), Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spec = DataSpec(name="cifar10", source=identify("cifar10", root, cache=cache))
loaded = load(spec, data_root=root, cache=cache)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before, after, len(loaded.train), len(loaded.test))
"""


def random_cifar(folder: Path) -> None:
    """60,000 random images as CIFAR-10's batch files in `folder`."""
    target = folder / "cifar-10-batches-py"
    target.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        images = rng.integers(0, 256, (10_000, 3072), dtype=np.uint8)
        batch = {b"data": images, b"labels": [index % 10 for index in range(10_000)]}
        (target / name).write_bytes(pickle.dumps(batch, protocol=2))


def rise(root: Path, cache: Path) -> tuple[float, int]:
    """Megabytes that the peak rose by while loading, and how many images there were."""
    command = [sys.executable, "-c", LOAD, str(root), str(cache)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    before, after, train, test = map(int, done.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    return (after - before) * unit / 1e6, train + test


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10 in any accepted form [random images]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.data_root or Path(temporary, "data")
        if options.data_root is None:
            random_cifar(root)
        rows: list[list[object]] = []
        for name in ("first load", "from the cache"):
            megabytes, images = rise(root, Path(temporary, "cache"))
            rows.append([name, images, megabytes, verdict(megabytes, at_most=TARGET)])
    table("Peak resident memory while loading CIFAR-10", ["load", "images", "rise (MB)", "target"], rows)


if __name__ == "__main__":
    main()
