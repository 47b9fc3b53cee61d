"""What machine, packages and commit a run was made with."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness.revision import revision
from harness.timing.machine import busy_reasons
from harness.timing.nvml import Monitor

GPU_KEY = ("driver", "power_limit_w", "max_clock_mhz", "cuda", "tf32")  # timings under others do not compare
PACKAGES = ("ilf-bench", "torch", "diffusers", "transformers", "torchmetrics", "numpy")


def package_version(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()


def gpu_facts(device: str) -> dict[str, Any]:
    """Of a GPU: memory, CUDA, whether float32 is computed in TF32, driver, limits and co-tenants; nothing for a CPU.

    Where NVML could not be asked, ``nvml`` says why.
    """
    if not device.startswith("cuda"):
        return {}
    memory = torch.cuda.get_device_properties(device).total_memory
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    known = {"gpu_memory_bytes": memory, "cuda": torch.version.cuda, "tf32": tf32}
    monitor = Monitor(device)
    return known | (asdict(monitor.nvml.facts()) if monitor.nvml else {"nvml": monitor.why_not})


def describe(device: str, precision: str, offload: str = "none") -> dict[str, Any]:
    """The environment record of a run on ``device``. ``machine_key`` agrees where timings may be compared.

    ``busy``: who else was on the machine when the run began.
    """
    gpu = gpu_facts(device)
    facts = {
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": precision,
        "torch": torch.__version__,
        "platform": platform.system(),
        **{key: gpu[key] for key in GPU_KEY if key in gpu},
        **({"offload": offload} if offload != "none" else {}),
    }
    key = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:12]
    return facts | {
        "machine_key": key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **gpu,
        "busy": busy_reasons(gpu.get("cotenants")),
        **revision()._asdict(),
        **{package: package_version(package) for package in PACKAGES},
    }
