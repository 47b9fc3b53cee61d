"""Functions that several families share."""

from __future__ import annotations

from typing import Any

import torch

from harness.cost.guidance import Guidance
from harness.models.families.base import Conditioning, Configs, State


def adaln_single(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """Blocks get the six modulations of the time, and add a table of their own (PixArt-alpha, arXiv 2310.00426)."""
    hidden = state[0]
    table = block.scale_shift_table[None] + conditioning["timestep"].reshape(len(hidden), 6, -1)
    output: torch.Tensor = block.norm1(hidden) * (1 + table[:, 1:2]) + table[:, :1]
    return output


def null_first(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """The batch is [null, conditional]."""
    return Guidance(scale, "null first")


def joined(state: State) -> State:
    """One stream of two, the caption before the image."""
    image, caption = state
    return (torch.cat([caption, image], dim=1),)


def behind_captions(tokens: int, all_tokens: int) -> slice:
    """Where the image stands in such a stream."""
    return slice(all_tokens - tokens, all_tokens)
