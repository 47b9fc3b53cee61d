"""What `auto` means on this machine: the device, and the numeric precision."""

from __future__ import annotations

import torch

from harness.errors import UsageError


def cpu_has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices natively (AMX tiles or AVX-512 BF16)."""
    flags = set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = set(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return False
    return bool(flags & {"amx_bf16", "avx512_bf16"})


def resolve_device(device: str) -> str:
    """``auto`` is the first GPU, else the CPU. Raises :class:`UsageError` where the named device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(expected="a device that torch can use", got=f"{device!r}: {error}", remedy="--device cpu") from error
    return device


def resolve(precision: str, device: str) -> str:
    """``auto`` becomes ``bf16`` where the device multiplies it natively and ``fp32`` elsewhere."""
    if precision != "auto":
        return precision
    on_gpu = device.startswith("cuda")  # older GPUs emulate bfloat16, slowly
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_has_fast_bfloat16()
    return "bf16" if fast else "fp32"


def exact_float32() -> None:
    """Let float32 be float32 in this process: torch's own default computes convolutions in TF32, of 10 bits, on a GPU."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def autocast(precision: str = "auto", device: str = "cpu") -> torch.autocast:
    """An autocast context for ``fp32`` (disabled), ``bf16``, ``fp16`` or ``auto``."""
    name = resolve(precision, device)
    dtype = torch.float16 if name == "fp16" else torch.bfloat16
    kind = "cpu" if device == "meta" else device.split(":")[0]
    return torch.autocast(kind, dtype, enabled=name != "fp32")
