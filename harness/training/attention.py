"""Which attention a training uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import AttnProcessor
from torch import nn


@contextmanager
def explicit_attention(*models: nn.Module) -> Iterator[None]:
    """On a CPU: attention spelt out, whose bf16 backward is faster there than the fused one on short sequences.

    Elsewhere nothing changes: the scores of all heads, kept for the backward pass, take hundreds of GiB at 1,024 pixels.
    """
    here = [model for model in models if all(p.device.type == "cpu" for p in model.parameters())]
    layers: list[Any] = [m for model in here for m in model.modules() if hasattr(m, "set_processor")]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(AttnProcessor())
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)
