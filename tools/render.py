"""Writes RESULTS/rendered anew from the records, or says with --check what of it differs from them (exit code 1)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reproduce.report.rendered import stale, write_all
from reproduce.store import Store


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the records [results]")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything is stale or unreadable")
    options = parser.parse_args()
    store, rendered = Store(options.results), options.results / "rendered"
    if options.check:
        lines = [*stale(store, rendered), *store.problems]
        for line in lines:
            print(line, file=sys.stderr)
        print("stale" if lines else f"{rendered} says what the records say")
        return 1 if lines else 0
    for path in write_all(store, rendered):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
