"""What calibrations watch: how the residual of a range of blocks changes from each step to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from harness.sampling.pipeline import Pipeline


def each_step(
    pipeline: Pipeline,
    sample: Callable[[], None],
    first: int,
    last: int,
    compare: Callable[[torch.Tensor, torch.Tensor], float],
    at_start: float,
) -> list[float]:
    """``compare(residual, residual one step before)`` of blocks ``first`` to ``last`` (1-based), at each step, over all chunks.

    A residual is what a range adds to its input, [rows, tokens, width]. The first step, which has none before, is ``at_start``.
    """
    values: list[list[float]] = [[] for _ in range(pipeline.steps)]
    held: dict[str, torch.Tensor] = {}

    def entering(module: nn.Module, args: tuple[Any, ...]) -> None:
        held["in"] = args[0]

    def leaving(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        step, residual = pipeline.clock.step, output - held["in"]
        values[step].append(compare(residual, held["before"]) if step else at_start)
        held["before"] = residual

    hooks = [
        pipeline.blocks[first - 1].register_forward_pre_hook(entering),
        pipeline.blocks[last - 1].register_forward_hook(leaving),
    ]
    try:
        sample()
    finally:
        for hook in hooks:
            hook.remove()
    return [sum(step) / len(step) for step in values]
