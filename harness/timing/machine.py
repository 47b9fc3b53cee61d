"""What makes two machines one for the comparison of times, the facts behind an environment record's ``machine_key``; and who else
is on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

FACTS = {  # of an environment record, with the words of a reader
    "platform": "system",
    "device_name": "device",
    "device": "device number",
    "cpu_count": "CPU cores",
    "cpu_capability": "CPU instructions",
    "threads": "threads",
    "precision": "precision",
    "torch": "torch",
    "driver": "GPU driver",
    "cuda": "CUDA",
    "tf32": "TF32",
    "power_limit_w": "power limit in W",
    "max_clock_mhz": "clock limit in MHz",
    "offload": "offload",
}
UNSAID = {"offload": "none"}  # what a record means that lacks the key


def differing_facts(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two environment records, for example ``threads: 2 -> 1``; empty where the keys agree."""
    keys = [str(record.get("machine_key")) for record in (then, now)]
    if keys[0] == keys[1]:
        return ""
    before, after = ({name: record.get(name, UNSAID.get(name)) for name in FACTS} for record in (then, now))
    shown = [f"{FACTS[name]}: {_value(before[name])} -> {_value(after[name])}" for name in FACTS if before[name] != after[name]]
    return ", ".join(shown) or f"machine key: {keys[0]} -> {keys[1]}"


def busy_reasons(other_gpu_processes: int | None = None) -> list[str]:
    """Why times measured now are disturbed, for example ``load 9.3 on 2 cores``; empty on a quiet machine.

    ``other_gpu_processes``: how many other processes compute on the GPU; None where nobody knows.
    """
    found, load, cores = [], load_average(), os.cpu_count() or 1
    if load is not None and load > cores:
        found.append(f"load {load:.1f} on {cores} cores")
    if other_gpu_processes:
        many = other_gpu_processes > 1
        found.append(f"{other_gpu_processes} other process{'es compute' if many else ' computes'} on the GPU")
    return found


def load_average() -> float | None:
    """How many processes ran or waited for a processor, averaged over the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # as in Windows
        return None


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "unknown" if value is None else str(value)
