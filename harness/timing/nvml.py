"""What a GPU does while it is timed: clocks, temperature, power, throttling and who else is on it, through NVML.

Needs the package nvidia-ml-py (extra ``gpu``) and a driver. Without either nothing fails: the facts are then unknown, and a
run's record says why. A single reading that a GPU does not support is None.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import torch

from harness.errors import NotMeasured

T = TypeVar("T")
# Why a GPU may run slower than its clocks say. Idling and clocks that somebody has set are no throttling.
REASONS = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown", "SyncBoost")
WORTH_MENTIONING = 0.01  # of a call: the counters also grow by the nanosecond
POLICIES = ("POWER", "THERMAL", "SYNC_BOOST", "BOARD_LIMIT", "RELIABILITY")


@dataclass(frozen=True)
class DeviceState:
    """One reading. ``throttled`` names the reasons, joined by commas; it is empty where the clock was free. ``energy_j`` is what
    the GPU took since the reading before.
    """

    clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttled: str = ""
    energy_j: float | None = None


@dataclass(frozen=True)
class Counters:
    """What only grows: the time, nanoseconds for which each policy held the clock down, and the energy taken."""

    at_s: float
    violations: dict[str, int]
    energy_j: float | None


@dataclass(frozen=True)
class DeviceFacts:
    """What does not change during a run. ``cotenants`` counts other processes that compute on the GPU at the beginning."""

    driver: str
    power_limit_w: float | None
    max_clock_mhz: int | None
    cotenants: int | None


class Nvml:
    """One GPU as NVML sees it, found by the UUID that torch reports (so that CUDA_VISIBLE_DEVICES cannot mislead)."""

    def __init__(self, device: str) -> None:
        """Raises :class:`NotMeasured` where NVML cannot be asked."""
        try:
            self.library: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise NotMeasured(
                expected="the package nvidia-ml-py", got="not installed", remedy="pip install 'ilf-bench[gpu]'"
            ) from error
        try:
            self.library.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self.handle = self.library.nvmlDeviceGetHandleByUUID(uuid)
        except self.library.NVMLError as error:
            raise NotMeasured(expected=f"NVML to know {device}", got=str(error), remedy="check the driver: nvidia-smi") from error

    def _ask(self, read: Callable[[], T]) -> T | None:
        """A reading, or None where this GPU or driver has none."""
        try:
            return read()
        except self.library.NVMLError:
            return None

    def facts(self) -> DeviceFacts:
        """Driver, limits and co-tenants."""
        lib, gpu = self.library, self.handle
        others = self._ask(lambda: [p for p in lib.nvmlDeviceGetComputeRunningProcesses(gpu) if p.pid != os.getpid()])
        limit = self._ask(lambda: lib.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000)
        clock = self._ask(lambda: int(lib.nvmlDeviceGetMaxClockInfo(gpu, lib.NVML_CLOCK_SM)))
        driver = self._ask(lib.nvmlSystemGetDriverVersion)
        return DeviceFacts(str(driver or "unknown"), limit, clock, None if others is None else len(others))

    def violations(self) -> dict[str, int]:
        """Nanoseconds, since the driver was loaded, for which each policy has held the clock down."""
        lib = self.library
        found = {
            name: self._ask(
                lambda name=name: int(  # type: ignore[misc]
                    lib.nvmlDeviceGetViolationStatus(self.handle, getattr(lib, f"NVML_PERF_POLICY_{name}")).violationTime
                )
            )
            for name in POLICIES
        }
        return {name: value for name, value in found.items() if value is not None}

    def energy_j(self) -> float | None:
        """What the GPU has taken since the driver was loaded."""
        return self._ask(lambda: self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000)

    def counters(self) -> Counters:
        """The counters now."""
        return Counters(perf_counter(), self.violations(), self.energy_j())

    def state(self, before: Counters | None = None) -> DeviceState:
        """The reading now.

        Throttled where a reason holds now, or where a policy has held the clock down since ``before`` for a part of that time
        that is worth mentioning.
        """
        now = self.counters()
        before = before or now
        lib, gpu = self.library, self.handle
        bits = self._ask(lambda: int(lib.nvmlDeviceGetCurrentClocksEventReasons(gpu))) or 0
        reasons = [name for name in REASONS if bits & getattr(lib, f"nvmlClocksEventReason{name}")]
        least = WORTH_MENTIONING * (now.at_s - before.at_s) * 1e9
        held = {name: value - before.violations.get(name, value) for name, value in now.violations.items()}
        reasons += [f"{name} policy" for name, ns in held.items() if ns > least]
        return DeviceState(
            clock_mhz=self._ask(lambda: int(lib.nvmlDeviceGetClockInfo(gpu, lib.NVML_CLOCK_SM))),
            temperature_c=self._ask(lambda: int(lib.nvmlDeviceGetTemperature(gpu, lib.NVML_TEMPERATURE_GPU))),
            power_w=self._ask(lambda: lib.nvmlDeviceGetPowerUsage(gpu) / 1000),
            throttled=",".join(reasons),
            energy_j=None if now.energy_j is None or before.energy_j is None else now.energy_j - before.energy_j,
        )


class Monitor:
    """Watches the device of a pipeline from call to call; on a CPU, and where NVML cannot be asked, it sees nothing."""

    def __init__(self, device: str) -> None:
        self.nvml, self.why_not = None, ""
        self._before: Counters | None = None
        if device.startswith("cuda"):
            try:
                self.nvml = Nvml(device)
            except NotMeasured as error:
                self.why_not = str(error)

    def begin(self) -> None:
        """Right before a timed call."""
        self._before = self.nvml.counters() if self.nvml else None

    def end(self) -> DeviceState:
        """Right after it."""
        return self.nvml.state(self._before) if self.nvml else DeviceState()
