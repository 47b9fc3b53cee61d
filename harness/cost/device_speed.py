"""How fast a device really is: short probes with the shapes of one transformer block, and published peaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from harness.cost.flops import FLOPS_PER_MAC, Geometry
from harness.sampling.precision import autocast

PROBE_S = 0.3
PROBE_MACS = {"cuda": 1e11, "cpu": 4e9}  # in one call: enough to fill a GPU, and no long wait on a CPU
MOST_IMAGES = 64  # in one call: a batch of a training
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


@dataclass(frozen=True)
class Speed:
    """Sustained FLOP/s of a device, and where the number comes from."""

    flops_per_s: float
    source: str


def published_peak(device_name: str) -> Speed | None:
    """The data sheet's dense 16-bit peak of a GPU, or None where this table does not know it."""
    words = f" {device_name.replace('-', ' ')} "  # whole words: an L40 is no L4
    name = next((name for name in PUBLISHED_PEAKS if f" {name} " in words), None)
    return None if name is None else Speed(PUBLISHED_PEAKS[name], f"{name}'s published dense 16-bit peak")


def measured_speed(geometry: Geometry, device: str, dtype: torch.dtype) -> Speed:
    """Sustained FLOP/s of the matrix products of one block (attention and feed-forward), as a transformer would get them."""
    heads, batch, width = _shapes(geometry, device)
    x = torch.randn(batch, geometry.tokens, width, device=device, dtype=dtype)
    wide = [torch.randn(width, width * k, device=device, dtype=dtype) * width**-0.5 for k in (3, 1, 4)]
    back = torch.randn(4 * width, width, device=device, dtype=dtype) * (4 * width) ** -0.5

    @torch.inference_mode()
    def block() -> None:
        q, k, v = (x @ wide[0]).view(batch, geometry.tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        functional.gelu((mixed @ wide[1]) @ wide[2]) @ back

    return _probed(block, batch * _block_macs(geometry.tokens, width), device, "with one block's products")


def training_speed(geometry: Geometry, device: str, precision: str) -> Speed:
    """Sustained FLOP/s of a training: one block forward, and backward to its input, with float32 weights under autocast.

    Norms, modulation and casts take time too and count as none, which on a small model is most of the time. Attention is
    explicit on a CPU and fused elsewhere, as :func:`harness.training.attention.explicit_attention` has it.
    """
    heads, batch, width = _shapes(geometry, device)
    x = torch.randn(batch, geometry.tokens, width, device=device, requires_grad=True)
    sizes = ((3, 1), (1, 1), (4, 1), (1, 4))
    weights = [torch.randn(n * width, k * width, device=device) * (k * width) ** -0.5 for n, k in sizes]
    shift, scale, gate = (torch.randn(batch, 1, width, device=device) for _ in range(3))

    def modulated(hidden: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(hidden, (width,)) * (1 + scale) + shift

    def block() -> None:
        with autocast(precision, device):
            qkv = functional.linear(modulated(x), weights[0]).view(batch, geometry.tokens, 3, heads, width // heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            if device == "cpu":
                attention = torch.softmax(q @ k.transpose(-1, -2) * (width // heads) ** -0.5, dim=-1) @ v
            else:
                attention = functional.scaled_dot_product_attention(q, k, v)
            hidden = x + gate * functional.linear(attention.transpose(1, 2).reshape(x.shape), weights[1])
            wide = functional.gelu(functional.linear(modulated(hidden), weights[2]), approximate="tanh")
            hidden = hidden + gate * functional.linear(wide, weights[3])
        torch.autograd.grad(hidden.float().mean(), x)

    forward, products = _block_macs(geometry.tokens, width), 2 * geometry.tokens**2 * width
    return _probed(block, batch * (2 * forward + products), device, "with one block's forward and backward pass")


def _shapes(geometry: Geometry, device: str) -> tuple[int, int, int]:
    """Heads of about 64 channels, batch size and width of a probe."""
    heads = max(1, geometry.width // 64)
    width = geometry.width // heads * heads
    macs = PROBE_MACS.get(device.split(":")[0], PROBE_MACS["cpu"])
    return heads, min(MOST_IMAGES, max(1, int(macs / _block_macs(geometry.tokens, width)))), width


def _block_macs(tokens: int, width: int) -> int:
    return 12 * tokens * width**2 + 2 * tokens**2 * width


def _probed(work: Callable[[], None], macs: int, device: str, how: str) -> Speed:
    calls, seconds = _repeat(work, device)
    speed = FLOPS_PER_MAC * macs * calls / seconds
    amount = f"{speed / 1e12:.3g} TFLOP/s" if speed >= 1e12 else f"{speed / 1e9:.3g} GFLOP/s"
    return Speed(speed, f"{amount}, measured on {device} {how}")


def _repeat(work: Callable[[], None], device: str) -> tuple[int, float]:
    """How often ``work`` was called in at least half of :data:`PROBE_S`, and the seconds; one call before that warms up."""
    work()
    calls = 1
    while True:
        _synchronise(device)
        start = time.perf_counter()
        for _ in range(calls):
            work()
        _synchronise(device)
        seconds = time.perf_counter() - start
        if seconds >= PROBE_S / 2:
            return calls, seconds
        calls *= 2


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
