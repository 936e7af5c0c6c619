"""What Linux tells, in files under /sys, of how fast a CPU may run. Where a file is missing nothing is told."""

from __future__ import annotations

from pathlib import Path

POWER = Path("/sys/class/power_supply")
CPUS = Path("/sys/devices/system/cpu")


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


def read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
