"""A fixed piece of work, timed between the methods of each round: how fast the machine was at that moment.

A small diffusion transformer in plain torch: blocks of the bundled models' width with weights of their own, modulation, self
and cross attention and a perceptron, so that it feels a busy machine (caches, dispatch, arithmetic) much as the pipelines do.
On a GPU that work is bound by the host, which launches a thousand small kernels; a chain of large matrix products follows, which
is bound by the device. Two runs that were made at different times compare their methods relative to it. It must never change, or
old times lose their meaning; a change needs another label in harness/results.py.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from harness.results import REFERENCE, TimingSample
from harness.sampling.precision import autocast
from harness.timing.stopwatch import Stopwatch

WIDTH, HEADS, TOKENS, WORDS, BATCH, BLOCKS, SEED = 128, 4, 64, 8, 2, 16, 0
SIDE, PRODUCTS = 4096, 16  # of the chain on a GPU: 2.2 TFLOP in 16 bits
SHAPES = ((WIDTH, WIDTH),) * 4 + ((4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))  # query, key, value, out, up, down


class Workload:
    """About 20 ms of one CPU thread, and on a GPU 3 to 50 ms of its own. ``precision`` and ``device`` are the pipeline's."""

    def __init__(self, device: str, precision: str) -> None:
        random = torch.Generator().manual_seed(SEED)
        self.blocks = [
            [(torch.randn(shape, generator=random) / shape[1] ** 0.5).to(device) for shape in SHAPES] for _ in range(BLOCKS)
        ]
        self.table = torch.randn(6, WIDTH, generator=random).to(device)
        self.start = torch.randn(BATCH, TOKENS, WIDTH, generator=random).to(device)
        self.device, self.precision = device, precision

    def run(self) -> torch.Tensor:
        """float32 [BATCH, TOKENS, WIDTH]."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            hidden = self.start
            for weights in self.blocks:
                hidden = self._block(hidden, weights)
            return hidden.float()

    def _block(self, hidden: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
        *attention, up, down = weights
        modulation = self.table + hidden.mean(1, keepdim=True)
        shift, scale, gate, shift2, scale2, gate2 = modulation.chunk(6, dim=1)
        normed = functional.layer_norm(hidden, (WIDTH,)) * (1 + scale) + shift
        hidden = hidden + torch.sigmoid(gate) * _attend(normed, normed, attention) * 0.1
        hidden = hidden + _attend(hidden, self.start[:, :WORDS], attention) * 0.1
        normed = functional.layer_norm(hidden, (WIDTH,)) * (1 + scale2) + shift2
        lifted = functional.gelu(functional.linear(normed, up), approximate="tanh")
        return hidden + torch.sigmoid(gate2) * functional.linear(lifted, down) * 0.1

    def time_once(self, number: int, batch: int) -> TimingSample:
        """One timed pass in round ``number``, beside methods of that batch size; its own work is the same for all."""
        if self.device.startswith("cuda"):
            return self._time_gpu(number, batch)
        watch = Stopwatch(self.device)
        self.run()
        latency_s, cpu_s = watch.read()
        return TimingSample(REFERENCE, number, batch, latency_s, 0.0, latency_s, 0.0, 0, cpu_s=cpu_s)

    def _time_gpu(self, number: int, batch: int) -> TimingSample:
        """``denoise_s`` is the small transformer's part, ``decode_s`` the products'; their operands are gone afterwards."""
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        hidden, weight = (torch.randn(SIDE, SIDE, dtype=dtype, device=self.device) * SIDE**-0.5 for _ in range(2))
        watch = Stopwatch(self.device)
        self.run()
        host_s, _ = watch.read()
        for _ in range(PRODUCTS):
            hidden = hidden @ weight
        latency_s, _ = watch.read()
        return TimingSample(REFERENCE, number, batch, latency_s, 0.0, host_s, latency_s - host_s, 0)


def _attend(hidden: torch.Tensor, words: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """Attention of ``hidden`` [B, T, WIDTH] to ``words`` [B, S, WIDTH]."""
    *project, out = weights
    query, key, value = (
        functional.linear(source, weight).view(len(source), -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        for source, weight in zip((hidden, words, words), project, strict=True)
    )
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return functional.linear(mixed.transpose(1, 2).reshape(hidden.shape), out)
