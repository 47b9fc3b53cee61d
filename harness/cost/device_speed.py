"""How fast a device really multiplies: a short probe with the shapes of one transformer block, and published peaks."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional

from harness.cost.flops import FLOPS_PER_MAC, Geometry
from harness.cost.training_cost import Speed

PROBE_S = 0.3
PROBE_ROWS = 4096  # tokens in one call, so that a GPU is filled
# Dense bf16/fp16 tensor-core FLOP/s with float32 accumulation, from NVIDIA's data sheets; the first name found counts.
PUBLISHED_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "A30": 165e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "V100": 125e12,
    "T4": 65e12,
}


def published_peak(device_name: str) -> Speed | None:
    """The data sheet's dense 16-bit peak of a GPU, or None where this table does not know it."""
    name = next((name for name in PUBLISHED_PEAKS if name in device_name), None)
    return None if name is None else Speed(PUBLISHED_PEAKS[name], f"{name}'s published dense 16-bit peak")


def measured_speed(geometry: Geometry, device: str, dtype: torch.dtype) -> Speed:
    """Sustained FLOP/s of the products of one block (attention and feed-forward), as a transformer would get them."""
    heads = max(1, geometry.width // 64)
    batch = max(1, PROBE_ROWS // geometry.tokens)
    head_width = geometry.width // heads
    width = heads * head_width
    x = torch.randn(batch, geometry.tokens, width, device=device, dtype=dtype)
    wide = [torch.randn(width, width * k, device=device, dtype=dtype) * width**-0.5 for k in (3, 1, 4)]
    back = torch.randn(4 * width, width, device=device, dtype=dtype) * (4 * width) ** -0.5

    def block() -> None:
        q, k, v = (x @ wide[0]).view(batch, geometry.tokens, 3, heads, head_width).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        functional.gelu((mixed @ wide[1]) @ wide[2]) @ back

    macs = batch * (12 * geometry.tokens * width**2 + 2 * geometry.tokens**2 * width)
    calls, seconds = _repeat(block, device)
    speed = FLOPS_PER_MAC * macs * calls / seconds
    return Speed(speed, f"{speed / 1e12:.3g} TFLOP/s, measured on {device} with one block's products")


def _repeat(work: Callable[[], None], device: str) -> tuple[int, float]:
    """How often ``work`` was called in at least half of :data:`PROBE_S`, and the seconds; the tries before that warm up."""
    calls = 2
    while True:
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(calls):
                work()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        if seconds >= PROBE_S / 2:
            return calls, seconds
        calls *= 2
