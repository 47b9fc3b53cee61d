"""Which attention a training uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def explicit_attention(*models: nn.Module) -> Iterator[None]:
    """On a CPU: attention spelt out, whose bf16 backward is faster there than the fused one on short sequences.

    Attention of other kinds than diffusers' plain one (of two streams, say) keeps its code, and torch spells out its products.
    Elsewhere nothing changes: the scores of all heads, kept for the backward pass, take hundreds of GiB at 1,024 pixels.
    """
    here = [model for model in models if all(p.device.type == "cpu" for p in model.parameters())]
    modules = [m for model in here for m in model.modules()]
    layers: list[Any] = [m for m in modules if isinstance(getattr(m, "processor", None), AttnProcessor2_0)]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(AttnProcessor())
        with sdpa_kernel(SDPBackend.MATH) if here else nullcontext():
            yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)
