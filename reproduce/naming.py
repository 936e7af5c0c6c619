"""Names and ranges that a user types: rows by glob, seeds, depths and budgets. Pure functions, no imports of weight."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from reproduce.errors import UsageError

CONTROL = "control:"
DEPTH_STEP = 6  # CIFAR ResNets have 6n + 2 layers
BUDGET_STEP = 100_000
MOST_SEEDS = 1000


def is_control(name: str) -> bool:
    """Rows of ours that stand below a table, such as `control: ResNet-20`."""
    return name.startswith(CONTROL)


def millions(budget: int) -> str:
    """A number of weights as the paper's row names write it: 660000 -> `0.66M`, 100000 -> `0.10M`."""
    places = 2 if budget % 10_000 == 0 else 6
    text = f"{budget / 1e6:.{places}f}"
    return (text if places == 2 else text.rstrip("0")) + "M"


def select(names: Sequence[str], globs: str | None, *, noun: str = "row") -> list[str]:
    """The names that match comma-separated shell globs, in the order of `names`.

    A glob reaches the controls only when it starts with `control:`. None selects the paper's rows, like `*`.
    A name may hold commas, as `EffConv-20 0.66M, STL-10`: an entry that matches nothing takes the next one along.
    Raises `UsageError` for a glob that matches nothing; `noun` says in it what the names are of.
    """
    chosen: set[str] = set()
    entries = list(_parts("*" if globs is None else globs, "--rows"))
    while entries:
        joined = [", ".join(entries[: end + 1]) for end in range(len(entries))]
        whole = next((glob for glob in reversed(joined) if glob in names), None)
        glob = whole or next((glob for glob in joined if _hits(names, glob)), None)
        if glob is None:
            raise UsageError(f"no {noun} matches {entries[0]!r}; --list prints the names")
        chosen.update(_hits(names, glob))
        del entries[: joined.index(glob) + 1]
    return [name for name in names if name in chosen]


def _hits(names: Sequence[str], glob: str) -> list[str]:
    return [name for name in names if is_control(name) == is_control(glob) and _matches(name, glob)]


def _matches(name: str, glob: str) -> bool:
    # A name that holds glob characters of its own still matches itself.
    return name == glob or fnmatchcase(name, glob)


def parse_seeds(text: str) -> list[int]:
    """`0`, `0,2` or `0..2` -> seeds, each once, in the order given. Raises `UsageError`."""
    seeds: list[int] = []
    for part in _parts(text, "--seeds"):
        match = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part, re.ASCII)
        if match is None:
            raise UsageError(f"--seeds: {part!r} is no seed; write for example 0, 0,2 or 0..2")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise UsageError(f"--seeds: the range {part} is empty; write {last}..{first}")
        if last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds: {part} asks for more than {MOST_SEEDS} seeds; ask for fewer")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


def parse_depths(text: str) -> list[int]:
    """`20..56` (in steps of 6) or `20,32` -> depths of CIFAR ResNets. Raises `UsageError` unless each is 6n + 2."""
    depths: list[int] = []
    for part in _parts(text, "--depths"):
        match = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", part, re.ASCII)
        if match is None:
            raise UsageError(f"--depths: {part!r} is no depth; write for example 20..56 or 20,32")
        first = _depth(int(match[1]))
        last = _depth(int(match[2] or first))
        if last < first:
            raise UsageError(f"--depths: the range {part} is empty; write {last}..{first}")
        depths.extend(range(first, last + 1, DEPTH_STEP))
    return list(dict.fromkeys(depths))


def _depth(depth: int) -> int:
    if depth >= 8 and depth % DEPTH_STEP == 2:
        return depth
    below = (depth - 2) // DEPTH_STEP * DEPTH_STEP + 2
    nearest = "8" if below < 8 else f"{below} and {below + DEPTH_STEP}"
    raise UsageError(f"--depths: no ResNet has depth {depth} (a depth is 6n + 2); the nearest are {nearest}")


def parse_budgets(text: str) -> list[int]:
    """`0.1..0.5` (in steps of 0.1) or `0.1,0.66`, in millions -> numbers of weights. Raises `UsageError`."""
    budgets: list[int] = []
    for part in _parts(text, "--budgets"):
        match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)M?(?:\.\.(\d{1,3}(?:\.\d{1,6})?)M?)?", part, re.ASCII)
        if match is None or float(match[1]) == 0.0:
            raise UsageError(f"--budgets: {part!r} is no budget in millions; write for example 0.1..0.5 or 0.1,0.66")
        first = round(float(match[1]) * 1e6)
        last = round(float(match[2] or match[1]) * 1e6)
        if last < first:
            raise UsageError(f"--budgets: the range {part} is empty; write the smaller number first")
        budgets.extend(range(first, last + 1, BUDGET_STEP))
    return list(dict.fromkeys(budgets))


def parse_span(text: str, option: str = "--time-budget") -> float:
    """`90s`, `9m`, `1.5h`, or a plain number of seconds -> seconds. Raises `UsageError`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smh]?)", text.strip(), re.ASCII)
    if match is None or float(match[1]) == 0.0:
        raise UsageError(f"{option}: {text!r} is no length of time; write for example 90s, 9m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def span(seconds: float) -> str:
    """The inverse, for people: 540 -> "9 min", 5400 -> "1.5 h", 100 -> "100 s"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and round(seconds / size, 1) == seconds / size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def clock_time(seconds: float) -> str:
    """To the second, as a clock shows it: `0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _parts(text: str, option: str) -> Iterable[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option}: an entry of {text!r} is empty; separate the entries by single commas")
    return parts
