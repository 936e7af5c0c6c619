"""`python -m reproduce` is the same as `reproduce`."""

from __future__ import annotations

from reproduce.cli import main

if __name__ == "__main__":
    main()
