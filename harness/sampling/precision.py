"""Numeric precision by name: what `auto` means on this machine."""

from __future__ import annotations

import torch


def cpu_has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices natively (AMX tiles or AVX-512 BF16)."""
    flags = set()
    try:
        with open("/proc/cpuinfo") as file:
            flags = set(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return False
    return bool(flags & {"amx_bf16", "avx512_bf16"})


def resolve(precision: str, device: str) -> str:
    """``auto`` becomes ``bf16`` where the device multiplies it natively and ``fp32`` elsewhere."""
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else cpu_has_fast_bfloat16()
    return "bf16" if fast else "fp32"


def autocast(precision: str = "auto", device: str = "cpu") -> torch.autocast:
    """An autocast context for ``fp32`` (disabled), ``bf16``, ``fp16`` or ``auto``."""
    name = resolve(precision, device)
    dtype = torch.float16 if name == "fp16" else torch.bfloat16
    return torch.autocast(device.split(":")[0], dtype, enabled=name != "fp32")
