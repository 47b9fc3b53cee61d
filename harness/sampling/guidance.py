"""Running a model on some rows of a batch, and its answer given to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput


def select_rows(value: Any, rows: int, chosen: slice | torch.Tensor) -> Any:
    """The ``chosen`` rows of every tensor whose leading dimension is the batch of ``rows``, inside dicts too."""
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == rows:
        return value[chosen]
    if isinstance(value, dict):
        return {key: select_rows(item, rows, chosen) for key, item in value.items()}
    return value


def conditional_half(value: Any, rows: int, first: bool) -> Any:
    """The conditional half of every tensor whose leading dimension is the guidance batch of ``rows``."""
    return select_rows(value, rows, slice(None, rows // 2) if first else slice(rows // 2, None))


def halves(batch: torch.Tensor, first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The conditional and the null half [B, ...] of a guidance batch [2 B, ...]; ``first``: the conditional one comes first."""
    one, other = batch.chunk(2)
    return (one, other) if first else (other, one)


def for_both_halves(output: Any) -> Any:
    """A transformer's conditional output for both halves of the guidance batch, so that u + g * (c - u) is exactly c."""
    if isinstance(output, tuple):
        return (torch.cat([output[0], output[0]]), *output[1:])
    return Transformer2DModelOutput(sample=torch.cat([output.sample, output.sample]))


def conditional_only(forward: Callable[..., Any], first: bool) -> Callable[..., Any]:
    """A transformer's ``forward`` on the conditional half of a guidance batch alone; see :attr:`Pipeline.conditional_first`."""

    def call(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        rows = len(hidden_states)
        half = conditional_half(hidden_states, rows, first)
        return for_both_halves(forward(half, **conditional_half(kwargs, rows, first)))

    return call
