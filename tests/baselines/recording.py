"""What references are compared on: what enters the blocks, what leaves them, and a block written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from harness.contracts import Method
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS

Part = Callable[[str, Callable[[], torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """One call of the transformer: hidden states [rows, tokens, width] before and after the blocks, and what they were told."""

    entered: torch.Tensor
    left: torch.Tensor
    told: dict[str, Any] = field(hash=False)


def record(pipeline: Pipeline, method: Method | None = None, indices: tuple[int, ...] = (0, 1, 2, 3, 4)) -> list[Step]:
    """The steps of one call under ``method``, or under whatever is on the pipeline."""
    entered: list[tuple[torch.Tensor, dict[str, Any]]] = []
    left: list[torch.Tensor] = []
    with method.attach(pipeline) if method else nullcontext():  # a calibration made here is not recorded
        hooks = [
            pipeline.blocks[0].register_forward_pre_hook(lambda m, a, k: entered.append((a[0], k)), with_kwargs=True),
            pipeline.blocks[-1].register_forward_hook(lambda m, a, output: left.append(output)),
        ]
        pipeline.generate([PROMPTS[i] for i in indices], 0, indices)
        for hook in hooks:
            hook.remove()
    return [Step(before, after, told) for (before, told), after in zip(entered, left, strict=True)]


def block_by_hand(block: nn.Module, h: torch.Tensor, told: dict[str, Any], part: Part) -> torch.Tensor:
    """A DiT or PixArt block; ``part(name, compute)`` returns the output of attn1, attn2 or ff before its gate."""
    b: Any = block
    if b.norm_type == "ada_norm_zero":
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            b.norm1.linear(torch.nn.functional.silu(b.norm1.emb(told["timestep"], told["class_labels"]))).unsqueeze(1).chunk(6, 2)
        )
        before, middle = b.norm1.norm, b.norm3
    else:
        table = b.scale_shift_table + told["timestep"].view(len(h), 6, -1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = table.chunk(6, 1)
        before, middle = b.norm1, b.norm2
    h = h + gate * part("attn1", lambda: b.attn1(before(h) * (1 + scale) + shift))
    if b.attn2 is not None:
        text, mask = told["encoder_hidden_states"], told["encoder_attention_mask"]
        h = h + part("attn2", lambda: b.attn2(h, encoder_hidden_states=text, attention_mask=mask))
    return h + gate_mlp * part("ff", lambda: b.ff(middle(h) * (1 + scale_mlp) + shift_mlp))


def run_parts(
    pipeline: Pipeline, step: Step, part: Callable[[int, str, Callable[[], torch.Tensor]], torch.Tensor]
) -> torch.Tensor:
    """All blocks by hand; ``part(block number, name, compute)``."""
    h = step.entered
    with torch.inference_mode():
        for number, block in enumerate(pipeline.blocks):
            h = block_by_hand(block, h, step.told, lambda name, compute, n=number: part(n, name, compute))  # type: ignore[misc]
    return h


def run_blocks(blocks: list[nn.Module], h: torch.Tensor, told: dict[str, Any]) -> torch.Tensor:
    """Plain blocks in a row."""
    with torch.inference_mode():
        for block in blocks:
            h = block(h, **told)
    return h
