"""A GPU that is a made-up library, folders that are made-up files, and loads as wished."""

from __future__ import annotations

import ctypes
import os
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reproduce.run.timing import certificate, linux, nvml
from reproduce.run.timing.certificate import Watch
from reproduce.timings import Certificate

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NAMES = [("nvmlDeviceGetHandleByUUID", "GPU-1"), ("nvmlDeviceGetHandleByPciBusId_v2", "00000000:1a:00.0")]
NOT_SUPPORTED, NOT_FOUND = 3, 6


class Library:
    """Answers as NVML does. `missing`: functions that this driver has not; `failing`: those that answer no."""

    def __init__(self, *, reasons: int = 0, pids: tuple[int, ...] = (), **answers: int) -> None:
        self.reasons, self.pids = reasons, pids
        self.missing: set[str] = set()
        self.failing: dict[str, int] = {}
        self.numbers = {"sm": 1980, "memory": 3201, "power": 412_500, "temperature": 61} | answers
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in self.missing:
            raise AttributeError(name)

        def answer(*arguments: Any) -> int:
            self.calls.append(name)
            return self.failing[name] if name in self.failing else self.give(name, arguments)

        return answer

    def give(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name == "nvmlDeviceGetClockInfo":
            arguments[-1]._obj.value = self.numbers[{1: "sm", 2: "memory"}[arguments[1].value]]
        elif name == "nvmlDeviceGetPowerUsage":
            arguments[-1]._obj.value = self.numbers["power"]
        elif name == "nvmlDeviceGetTemperature":
            assert arguments[1].value == 0
            arguments[-1]._obj.value = self.numbers["temperature"]
        elif name.startswith("nvmlDeviceGetCurrentClocks"):
            arguments[-1]._obj.value = self.reasons
        elif name.startswith("nvmlDeviceGetComputeRunningProcesses"):
            _, count, found = arguments
            if len(self.pids) > count._obj.value:
                count._obj.value = len(self.pids)
                return nvml.INSUFFICIENT_SIZE
            for place, pid in zip(found, self.pids, strict=False):
                place.pid = pid
            count._obj.value = len(self.pids)
        return nvml.SUCCESS


def gpu(library: Library) -> nvml.Gpu:
    found = nvml.find(library, NAMES)
    assert found is not None
    return found


def watched(
    monkeypatch: pytest.MonkeyPatch, library: Library | None, *, seconds: float = 0.0, device: torch.device = CUDA
) -> Certificate:
    """The certificate of a watch of a made-up GPU, on an idle machine on mains."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(certificate, "load_average", lambda: 0.5)
    found = None if library is None else gpu(library)
    with Watch(device, 1, {"copy_tb_s": 4.0}, open_gpu=lambda device: found) as watch:
        time.sleep(seconds)
    return watch.certificate()


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(linux, "POWER", tmp_path / "power")
    monkeypatch.setattr(linux, "CPUS", tmp_path / "cpus")
    monkeypatch.setattr(linux, "PROC", tmp_path / "proc")


def test_numbers_of_a_gpu() -> None:
    found = gpu(Library(reasons=0x1 | 0x4 | 0x40, pids=(17, 18, 18)))
    assert (found.clock_mhz(nvml.CLOCK_SM), found.clock_mhz(nvml.CLOCK_MEMORY)) == (1980.0, 3201.0)
    assert (found.power_watt(), found.temperature_celsius()) == (412.5, 61.0)
    assert found.throttle_reasons() == ["power cap", "too hot, by hardware"]
    assert found.other_processes() == 1


@pytest.mark.parametrize(
    ("pids", "others"), [((), None), ((17,), 0), ((17, 18, 19), 2), (tuple(range(100)), 99)]
)  # nothing listed, though this process has a context: the list tells nothing
def test_other_processes(pids: tuple[int, ...], others: int | None) -> None:
    assert gpu(Library(pids=pids)).other_processes() == others


def test_the_structure_of_a_process_is_that_of_the_header() -> None:
    assert ctypes.sizeof(nvml.Process) == 24 and nvml.Process.memory.offset == 8


@pytest.mark.parametrize("missing", [True, False])
def test_whatever_fails_is_not_told(missing: bool) -> None:
    library = Library(pids=(17,))
    found = gpu(library)
    queries = (
        "ClockInfo", "PowerUsage", "Temperature", "CurrentClocksEventReasons", "CurrentClocksThrottleReasons",
        "ComputeRunningProcesses_v3", "ComputeRunningProcesses_v2",
    )  # fmt: skip
    functions = ["nvmlShutdown", *(f"nvmlDeviceGet{query}" for query in queries)]
    if missing:
        library.missing.update(functions)
    else:
        library.failing.update(dict.fromkeys(functions, NOT_SUPPORTED))
    assert set(vars(certificate.look(found)).values()) == {None}
    found.close()


def test_older_drivers() -> None:
    library = Library(reasons=0x8, pids=(17, 18))
    library.missing = {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses_v3"}
    assert gpu(library).throttle_reasons() == ["hardware slowdown"] and gpu(library).other_processes() == 1


def test_a_gpu_is_found_by_its_uuid_or_by_its_place() -> None:
    library = Library()
    library.failing = {"nvmlDeviceGetHandleByUUID": NOT_FOUND}
    assert nvml.find(library, NAMES) is not None
    assert library.calls == ["nvmlInit_v2", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByPciBusId_v2"]
    library.failing["nvmlDeviceGetHandleByPciBusId_v2"] = NOT_FOUND
    assert nvml.find(library, NAMES) is None and library.calls[-1] == "nvmlShutdown"
    library.failing = {"nvmlInit_v2": 9}
    assert nvml.find(library, NAMES) is None


def test_names_of_a_device() -> None:
    properties = SimpleNamespace(uuid="ab-cd", pci_domain_id=0, pci_bus_id=26, pci_device_id=0)
    assert [name for _, name in nvml.names(properties)] == ["GPU-ab-cd", "00000000:1a:00.0"]
    assert nvml.names(SimpleNamespace()) == []


def test_without_a_driver_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libno-such-library.so.1")
    assert nvml.open_gpu(CUDA) is None


def test_certificate_of_a_quiet_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(reasons=0x1, pids=(17,))
    found = watched(monkeypatch, library)
    assert (found.device, found.threads, found.ceilings) == ("NVIDIA H200", 1, {"copy_tb_s": 4.0})
    assert (found.load_before, found.load_after) == (0.5, 0.5)
    assert found.clocks_mhz == {"sm": 1980.0, "memory": 3201.0}
    assert (found.power_watt, found.temperature_celsius, found.others_on_device) == (412.5, 61.0, 0)
    assert found.throttled == found.warnings == [] and found.invalid == ""
    assert found.versions["torch"] == torch.__version__ and set(found.versions) >= {"python", "cuda", "cudnn"}
    assert library.calls[-1] == "nvmlShutdown"


def test_certificate_of_a_gpu_that_is_slowed_down_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(monkeypatch, Library(reasons=0x4 | 0x20, pids=(17, 18, 19)))
    assert found.throttled == ["power cap", "too hot, by software"]
    assert found.warnings == ["The GPU was slowed down: power cap, too hot, by software."]
    assert found.others_on_device == 2 and found.invalid == "2 other processes were on the GPU"
    assert watched(monkeypatch, Library(pids=(17, 18))).invalid == "another process was on the GPU"


def test_a_gpu_is_looked_at_while_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of the looks just before and after do not count; the others' processes do, whenever they are seen."""
    monkeypatch.setattr(certificate, "PERIOD", 0.005)
    library, looks = Library(pids=(17,)), []

    def look(gpu: nvml.Gpu) -> certificate.Sample:
        looks.append(1)
        library.numbers["sm"] = 345 if len(looks) == 1 else 1980
        library.pids = (17, 18) if len(looks) == 2 else (17,)
        return certificate.Sample(
            sm_mhz=gpu.clock_mhz(1), memory_mhz=None, power_watt=100.0 * len(looks), temperature_celsius=None,
            reasons=None, others=gpu.other_processes(),
        )  # fmt: skip

    monkeypatch.setattr(certificate, "look", look)
    found = watched(monkeypatch, library, seconds=0.05)
    assert len(looks) >= 3 and found.clocks_mhz == {"sm": 1980.0}
    assert found.power_watt == pytest.approx(100 * (1 + len(looks)) / 2)
    assert found.others_on_device == 1 and found.invalid
    seen = len(looks)
    time.sleep(0.02)
    assert len(looks) == seen  # the thread has ended


def test_a_gpu_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(monkeypatch, None)
    assert found.clocks_mhz == {} and found.throttled == [] and found.invalid == ""
    assert (found.power_watt, found.temperature_celsius, found.others_on_device) == (None, None, None)


def test_certificate_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(monkeypatch, None, device=CPU)
    assert found.device and set(found.versions) == {"python", "torch"}
    assert found.warnings == [] and found.throttled == [] and found.others_on_device is None


@pytest.mark.parametrize(("loads", "warned"), [((1.5, 1.5), False), ((1.6, 0.2), True), ((0.2, 3.0), True)])
def test_other_work_beside(monkeypatch: pytest.MonkeyPatch, loads: tuple[float, float], warned: bool) -> None:
    given = iter(loads)
    monkeypatch.setattr(certificate, "load_average", lambda: next(given))
    with Watch(CPU, 1) as watch:
        pass
    found = watch.certificate()
    assert (found.load_before, found.load_after) == loads
    assert any("Other work ran beside" in line for line in found.warnings) is warned
    assert found.invalid == ""


@pytest.mark.parametrize(("ticks", "warned"), [(3, None), (25, "it kept 0.25 cores busy")])
def test_other_work_is_told_apart_from_the_own_work_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ticks: int, warned: str | None
) -> None:
    """Within 2 s this process has 1.5 s of the CPU, and others `ticks` hundredths of a second in each."""
    monkeypatch.setattr(certificate, "load_average", lambda: 5.0)  # as after work of several threads
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    now = {"monotonic": 10.0, "process_time": 4.0}
    clock = SimpleNamespace(**{name: partial(now.__getitem__, name) for name in now})
    monkeypatch.setattr(certificate, "time", clock)
    write(tmp_path / "proc", stat="cpu  1000 10 200 99999 888 3 4 5 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1")
    with Watch(CPU, 1) as watch:
        now |= {"monotonic": 12.0, "process_time": 5.5}
        user, stolen = 1000 + 150, 5 + 2 * ticks
        (tmp_path / "proc" / "stat").write_text(f"cpu  {user} 10 200 100020 999 3 4 {stolen} 7 0\n")
    found = watch.certificate()
    assert found.others_cores == ticks / 100
    assert found.warnings == ([] if warned is None else [f"Other work ran beside: {warned}."])


def test_of_a_moment_nothing_is_said_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(certificate, "load_average", lambda: 0.5)
    write(tmp_path / "proc", stat="cpu  1000 10 200 99999 888 3 4 5 7 0")
    with Watch(CPU, 1) as watch:
        (tmp_path / "proc" / "stat").write_text("cpu  9000 10 200 99999 888 3 4 5 7 0\n")
    assert watch.certificate().others_cores is None


def test_memory_in_huge_pages_is_told(tmp_path: Path) -> None:
    write(tmp_path / "proc" / "self", smaps_rollup="Rss:  9 kB\nAnonHugePages:  3072 kB\n")
    with Watch(CPU, 1) as watch:
        pass
    assert watch.certificate().huge_pages_mib == 3.0


def test_a_system_without_load_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    with Watch(CPU, 1) as watch:
        pass
    assert watch.certificate().load_before is None


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("supplies", "drained"),
    [
        ([{"type": "Battery", "status": "Discharging"}], True),
        ([{"type": "Battery", "status": "Discharging", "scope": "System"}, {"type": "Mains", "online": "0"}], True),
        ([{"type": "Battery", "status": "Discharging"}, {"type": "Mains", "online": "1"}], False),
        ([{"type": "Battery", "status": "Charging"}], False),
        ([{"type": "Battery", "status": "Discharging", "scope": "Device"}], False),  # a mouse
        ([], False),
    ],
)
def test_battery(monkeypatch: pytest.MonkeyPatch, supplies: list[dict[str, str]], drained: bool) -> None:
    for index, files in enumerate(supplies):
        write(linux.POWER / f"supply{index}", **files)
    found = watched(monkeypatch, None, device=CPU)
    assert found.throttled == ["on battery"] * drained
    assert found.warnings == ["The machine ran on battery."] * drained


def test_a_cpu_that_gets_too_hot(monkeypatch: pytest.MonkeyPatch) -> None:
    for core in (0, 1):
        write(linux.CPUS / f"cpu{core}" / "thermal_throttle", core_throttle_count="3")
    assert linux.throttle_events() == 6
    assert watched(monkeypatch, None, device=CPU).throttled == []
    with Watch(CPU, 1) as watch:
        (linux.CPUS / "cpu1" / "thermal_throttle" / "core_throttle_count").write_text("4\n")
    assert watch.certificate().throttled == ["the CPU too hot"]


@pytest.mark.parametrize(
    ("driver", "governor", "slow"),
    [
        ("acpi-cpufreq", "powersave", True),
        ("acpi-cpufreq", "schedutil", False),
        ("intel_pstate", "powersave", False),
        ("amd-pstate-epp", "powersave", False),
    ],
)
def test_governor(monkeypatch: pytest.MonkeyPatch, driver: str, governor: str, slow: bool) -> None:
    write(linux.CPUS / "cpu0" / "cpufreq", scaling_driver=driver, scaling_governor=governor)
    assert any("powersave" in line for line in watched(monkeypatch, None, device=CPU).warnings) is slow


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may be silent in a container, but what it tells is plausible."""
    monkeypatch.setattr(certificate, "PERIOD", 0.1)
    with Watch(CUDA, 1) as watch:
        x = torch.randn(4096, 4096, device="cuda")
        for _ in range(100):
            x = torch.tanh(x @ x)
        torch.cuda.synchronize()
    found = watch.certificate()
    assert found.device == torch.cuda.get_device_name()
    assert all(100 < clock < 20_000 for clock in found.clocks_mhz.values())
    assert found.power_watt is None or 5 < found.power_watt < 2000
    assert found.temperature_celsius is None or 5 < found.temperature_celsius < 120
