"""What Linux tells, in files, of how fast a CPU may run, who uses it, and of memory. A missing file tells nothing."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

POWER = Path("/sys/class/power_supply")
CPUS = Path("/sys/devices/system/cpu")
PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
LIMIT_1 = "memory.limit_in_bytes"  # of a control group of version 1


def on_battery() -> bool:
    """Whether a battery of the machine itself, not of a mouse, is being emptied."""
    supplies = list(POWER.glob("*"))
    if any(read(supply / "online") == "1" and read(supply / "type") == "Mains" for supply in supplies):
        return False
    own = (supply for supply in supplies if read(supply / "scope") != "Device")
    return any(read(supply / "type") == "Battery" and read(supply / "status") == "Discharging" for supply in own)


def throttle_events() -> int | None:
    """How often a core was slowed down for its heat since the machine started, over all cores."""
    counts = [read(file) for file in CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    told = [int(count) for count in counts if count is not None and count.isdigit()]
    return sum(told) if told else None


def slow_governor() -> bool:
    """Whether the first core is held at its lowest frequency. With a `pstate` driver "powersave" does not mean that."""
    folder = CPUS / "cpu0" / "cpufreq"
    driver = read(folder / "scaling_driver") or ""
    return read(folder / "scaling_governor") == "powersave" and "pstate" not in driver


def busy_seconds() -> float | None:
    """Seconds that all cores together were at work since the machine started, or were taken from it by its host."""
    found = re.match(r"cpu +(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+) (\d+)", read(PROC / "stat") or "")
    return sum(map(int, found.groups())) / os.sysconf("SC_CLK_TCK") if found else None


def in_huge_pages() -> int | None:
    """Bytes of this process's own memory that lie in huge pages."""
    return kilobytes(PROC / "self" / "smaps_rollup", "AnonHugePages")


def memory_peak() -> int | None:
    """Bytes that this process held at most since `restart_peak`."""
    return kilobytes(PROC / "self" / "status", "VmHWM")


def restart_peak() -> None:
    """From here on `memory_peak` counts anew."""
    with suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5", encoding="ascii")


def memory_room() -> int | None:
    """Bytes that this process may hold in all: by what the machine has left, its group's limit, and `ulimit -v`."""
    status = PROC / "self" / "status"
    held, mapped = kilobytes(status, "VmRSS"), kilobytes(status, "VmSize")
    left = kilobytes(PROC / "meminfo", "MemAvailable")
    if held is None or mapped is None or left is None:
        return None
    limits = [int(text) for file in group_limits() if (text := read(file)) is not None and text.isdigit()]
    found = re.search(r"^Max address space +(\d+)", read(PROC / "self" / "limits") or "", re.MULTILINE)
    if found:
        limits.append(int(found[1]) - (mapped - held))  # of what is mapped some is never touched
    return min([held + left, *limits])


def group_limits() -> list[Path]:
    """Files with the memory limit of this process's control group, of version 2 and 1; in a container at the root."""
    lines = [line.split(":", 2) for line in (read(PROC / "self" / "cgroup") or "").splitlines()]
    own = [parts[2].lstrip("/") for parts in lines if len(parts) == 3 and parts[1] in ("", "memory")]
    version_1 = GROUPS / "memory"
    files = [file for path in own for file in (GROUPS / path / "memory.max", version_1 / path / LIMIT_1)]
    return [GROUPS / "memory.max", version_1 / LIMIT_1, *files]


def kilobytes(file: Path, name: str) -> int | None:
    """The value of a line such as `VmRSS:   1948 kB`, in bytes."""
    found = re.search(rf"^{name}:\s*(\d+) kB", read(file) or "", re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
