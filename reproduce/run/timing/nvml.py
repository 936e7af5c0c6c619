"""What a GPU tells of itself through NVML, the library of `nvidia-smi`, by ctypes: no package is needed.

Reference: NVIDIA's NVML API manual, "Device Queries". Whatever cannot be asked or is not answered is None, never an
exception: a missing driver, an old one, a GPU or a virtual machine that does not support a query.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"
SUCCESS, INSUFFICIENT_SIZE = 0, 7  # nvmlReturn_t
CLOCK_SM, CLOCK_MEMORY = 1, 2  # nvmlClockType_t
TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t
# Bits of nvmlDeviceGetCurrentClocksEventReasons. 0x1, an idle GPU, is no reason to worry and left out.
REASONS = {
    0x2: "clocks set by hand",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "clocks kept in step with another GPU",
    0x20: "too hot, by software",
    0x40: "too hot, by hardware",
    0x80: "power brake",
    0x100: "clocks set for a display",
}


class Process(ctypes.Structure):
    """nvmlProcessInfo_t, as the second and third version of the query for processes fill it."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class Gpu:
    """One GPU. `library` and `handle` are of an NVML that was initialised; `close` shuts it down."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def clock_mhz(self, kind: int) -> float | None:
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))

    def power_watt(self) -> float | None:
        milliwatt = self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if milliwatt is None else milliwatt / 1000

    def temperature_celsius(self) -> float | None:
        return self._number("nvmlDeviceGetTemperature", ctypes.c_uint(), ctypes.c_uint(TEMPERATURE_GPU))

    def throttle_reasons(self) -> list[str] | None:
        """Why the clocks are lower than they could be, in words; none while the GPU idles."""
        bits = self._number("nvmlDeviceGetCurrentClocksEventReasons", ctypes.c_ulonglong())
        if bits is None:  # the name in drivers before 535
            bits = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return None if bits is None else [word for bit, word in REASONS.items() if int(bits) & bit]

    def other_processes(self) -> int | None:
        """Processes with a compute context here, but for this one, which must have one.

        Inside a container NVML may number this process as the host does, so one is taken off instead of looking for
        its number; where not even that one is listed, the list tells nothing.
        """
        for name in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            found = (Process * 64)()
            count = ctypes.c_uint(len(found))
            result = call(self.library, name, self.handle, ctypes.byref(count), found)
            if result in (SUCCESS, INSUFFICIENT_SIZE):
                listed = count.value if result == INSUFFICIENT_SIZE else len({one.pid for one in found[: count.value]})
                return listed - 1 if listed else None
        return None

    def close(self) -> None:
        call(self.library, "nvmlShutdown")

    def _number(self, name: str, out: ctypes.c_uint | ctypes.c_ulonglong, *arguments: ctypes.c_uint) -> float | None:
        """What a query writes to its last argument."""
        done = call(self.library, name, self.handle, *arguments, ctypes.byref(out)) == SUCCESS
        return float(out.value) if done else None


def call(library: Any, name: str, *arguments: Any) -> int | None:
    """nvmlReturn_t of one call; None if the library has no such function."""
    try:
        return int(getattr(library, name)(*arguments))
    except (AttributeError, ctypes.ArgumentError, OSError):
        return None


def open_gpu(device: torch.device) -> Gpu | None:
    """The GPU that torch calls `device`, whatever the order in which either counts; None where NVML is of no use."""
    try:
        library = ctypes.CDLL(LIBRARY)
        properties = torch.cuda.get_device_properties(device)
    except (OSError, RuntimeError, AssertionError):
        return None
    return find(library, names(properties))


def names(properties: Any) -> list[tuple[str, str]]:
    """(query, name) pairs by which NVML may know a device of torch's: its UUID, then its place on the bus."""
    uuid, bus = getattr(properties, "uuid", None), getattr(properties, "pci_bus_id", None)
    found = [] if uuid is None else [("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}")]
    if bus is not None:
        domain, place = getattr(properties, "pci_domain_id", 0), getattr(properties, "pci_device_id", 0)
        found.append(("nvmlDeviceGetHandleByPciBusId_v2", f"{domain:08x}:{bus:02x}:{place:02x}.0"))
    return found


def find(library: Any, candidates: Sequence[tuple[str, str]]) -> Gpu | None:
    """Initialises the library and asks for the first of the names that it knows."""
    if call(library, "nvmlInit_v2") != SUCCESS:
        return None
    for query, name in candidates:
        handle = ctypes.c_void_p()
        if call(library, query, ctypes.c_char_p(name.encode()), ctypes.byref(handle)) == SUCCESS:
            return Gpu(library, handle)
    call(library, "nvmlShutdown")
    return None
