"""Watches the device and the machine while a clock runs, and says whether its seconds can be believed."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from reproduce.run import machine
from reproduce.run.timing import linux, nvml
from reproduce.timings import Certificate

PERIOD = 1.0  # seconds between two looks at a GPU
SLACK = 0.5  # load average beyond the own threads that still counts as an idle machine
OTHERS = 0.1  # cores of other processes that still do
SHORT = 1.0  # seconds in which hundredths of a second, as Linux counts them, say nothing of others


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at a GPU. None: not told."""

    sm_mhz: float | None
    memory_mhz: float | None
    power_watt: float | None
    temperature_celsius: float | None
    reasons: list[str] | None
    others: int | None


class Watch:
    """`with Watch(device, threads) as watch: ...`, and then `watch.certificate()`.

    On CUDA a thread looks at the GPU about once a second, on the CPU nothing runs beside. `ceilings`: measured ones,
    which only go into the certificate. `open_gpu` finds the GPU that NVML knows.
    """

    def __init__(
        self,
        device: torch.device,
        threads: int,
        ceilings: dict[str, float] | None = None,
        *,
        open_gpu: Callable[[torch.device], nvml.Gpu | None] = nvml.open_gpu,
    ) -> None:
        self.device, self.threads, self.ceilings = device, threads, dict(ceilings or {})
        self.open_gpu = open_gpu
        self.gpu: nvml.Gpu | None = None
        self.samples: list[Sample] = []
        self.load_before: float | None = None
        self.load_after: float | None = None
        self.others_before: float | None = None
        self.others_cores: float | None = None
        self.huge_pages: int | None = None
        self.battery = self.slow_governor = self.hot = False
        self.events: int | None = None
        self.seconds: float | None = None
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.ended.clear()
        self.began = time.monotonic()
        self.load_before, self.others_before = load_average(), others_seconds()
        self.battery, self.slow_governor = linux.on_battery(), linux.slow_governor()
        self.events = linux.throttle_events()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # so that this process is among those that NVML lists
            self.gpu = self.open_gpu(self.device)
        if self.gpu is not None:
            self.samples.append(look(self.gpu))
            self.thread = threading.Thread(target=self._sample, args=(self.gpu,), daemon=True)
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = round(time.monotonic() - self.began, 2)
        others = others_seconds()
        if self.others_before is not None and others is not None and self.seconds >= SHORT:
            self.others_cores = max(0.0, round((others - self.others_before) / self.seconds, 3))
        self.huge_pages = linux.in_huge_pages()
        self.ended.set()
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.gpu is not None:
            self.samples.append(look(self.gpu))
            self.gpu.close()
            self.gpu = None
        self.load_after = load_average()
        self.battery = self.battery or linux.on_battery()
        events = linux.throttle_events()
        self.hot = self.events is not None and events is not None and events > self.events

    def _sample(self, gpu: nvml.Gpu) -> None:
        while not self.ended.wait(PERIOD):
            self.samples.append(look(gpu))

    def certificate(self) -> Certificate:
        """Of what was seen so far; complete once the watch has ended."""
        samples = list(self.samples)
        others = [sample.others for sample in samples if sample.others is not None]
        powers = [sample.power_watt for sample in samples if sample.power_watt is not None]
        degrees = [sample.temperature_celsius for sample in samples if sample.temperature_celsius is not None]
        on_cuda = self.device.type == "cuda"
        return Certificate(
            device=torch.cuda.get_device_name(self.device) if on_cuda else machine.cpu_name(),
            threads=self.threads,
            seconds=self.seconds,
            load_before=self.load_before,
            load_after=self.load_after,
            others_cores=self.others_cores,
            huge_pages_mib=None if self.huge_pages is None else self.huge_pages / 2**20,
            others_on_device=max(others, default=None),
            clocks_mhz=least_clocks(samples),
            power_watt=round(sum(powers) / len(powers), 1) if powers else None,
            temperature_celsius=max(degrees, default=None),
            throttled=self._throttled(samples),
            ceilings=self.ceilings,
            versions=versions(self.device),
            warnings=self._warnings(samples),
            invalid=invalid(max(others, default=0)),
        )

    def _throttled(self, samples: list[Sample]) -> list[str]:
        return slowed_by(samples) + ["on battery"] * self.battery + ["the CPU too hot"] * self.hot

    def _warnings(self, samples: list[Sample]) -> list[str]:
        """One sentence each, for people."""
        found = []
        if reasons := slowed_by(samples):
            found.append(f"The GPU was slowed down: {', '.join(reasons)}.")
        if self.battery:
            found.append("The machine ran on battery.")
        if self.hot:
            found.append("The CPU was slowed down because it was too hot.")
        if self.slow_governor:
            found.append("The CPU's frequency governor is 'powersave', which keeps its clock low.")
        load = max((load for load in (self.load_before, self.load_after) if load is not None), default=0.0)
        if self.others_cores is not None:  # a load average also remembers what this process did the minute before
            if self.others_cores > OTHERS:
                found.append(f"Other work ran beside: it kept {self.others_cores:.2g} cores busy.")
        elif load > self.threads + SLACK:
            found.append(f"Other work ran beside: the load average was {load:.1f} with {self.threads} own thread(s).")
        return found


def look(gpu: nvml.Gpu) -> Sample:
    return Sample(
        sm_mhz=gpu.clock_mhz(nvml.CLOCK_SM),
        memory_mhz=gpu.clock_mhz(nvml.CLOCK_MEMORY),
        power_watt=gpu.power_watt(),
        temperature_celsius=gpu.temperature_celsius(),
        reasons=gpu.throttle_reasons(),
        others=gpu.other_processes(),
    )


def slowed_by(samples: list[Sample]) -> list[str]:
    """What held the GPU's clocks down, in the order in which it was first seen."""
    return list(dict.fromkeys(reason for sample in samples for reason in sample.reasons or []))


def least_clocks(samples: list[Sample]) -> dict[str, float]:
    """The lowest clocks seen, in MHz: "sm" and "memory", as far as told.

    The first and last look stand just outside the clock, where the GPU may idle; they count only if there is no other.
    """
    inside = samples[1:-1] or samples
    sm = [sample.sm_mhz for sample in inside if sample.sm_mhz is not None]
    memory = [sample.memory_mhz for sample in inside if sample.memory_mhz is not None]
    return {name: min(seen) for name, seen in (("sm", sm), ("memory", memory)) if seen}


def invalid(others: int) -> str:
    """Why the seconds are no timing, or nothing."""
    if not others:
        return ""
    return "another process was on the GPU" if others == 1 else f"{others} other processes were on the GPU"


def others_seconds() -> float | None:
    """Core seconds of all processes but this one, since some time before; None where the system does not tell."""
    busy = linux.busy_seconds()
    return None if busy is None else busy - time.process_time()


def load_average() -> float | None:
    """Over one minute; None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions(device: torch.device) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return found
