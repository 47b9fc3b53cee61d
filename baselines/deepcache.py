"""DeepCache-style block caching for diffusion transformers (Ma et al. 2024, arXiv 2312.00858, carried over to DiTs)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.contracts import Plan
from harness.errors import UsageError
from harness.patching import patched
from harness.pipeline import Pipeline


def default_range(depth: int) -> tuple[int, int]:
    """The middle 18 of 28 blocks, in proportion: 1-based first and last (6 and 23 of 28)."""
    inner = round(depth * 18 / 28)
    first = (depth - inner) // 2 + 1
    return first, first + inner - 1


@dataclass(frozen=True)
class DeepCache:
    """Run all blocks every ``interval`` steps; between, skip blocks ``first`` to ``last`` and add their cached residual.

    The U-Net original re-uses a deep feature beside a fresh skip connection. A DiT has no long skips, so what is kept is
    the residual (output minus input of the skipped range), which leaves the fresh input in the sum. Block numbers are
    1-based and inclusive; left out, the middle 18/28 of the blocks are skipped, as in the ILF paper's table.
    """

    interval: int = 3
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise UsageError(
                expected="an interval of at least 1", got=str(self.interval), remedy="for example deepcache:interval=3"
            )

    @property
    def label(self) -> str:
        """For example ``deepcache(interval=3, blocks=3-10)``."""
        blocks = f", blocks={self.first or ''}-{self.last or ''}" if self.first or self.last else ""
        return f"deepcache(interval={self.interval}{blocks})"

    def block_range(self, depth: int) -> tuple[int, int]:
        """The skipped blocks, 1-based and inclusive, checked against the model's depth."""
        default = default_range(depth)
        first, last = self.first or default[0], self.last or default[1]
        if not 1 <= first <= last <= depth:
            raise UsageError(
                expected=f"1 <= first <= last <= {depth}", got=f"first={first}, last={last}", remedy="edit the method"
            )
        return first, last

    def plan(self, plan: Plan) -> Plan:
        """Every step but each ``interval``-th loses the skipped blocks."""
        first, last = self.block_range(plan.backbone.depth)
        steps = tuple(
            cost if i % self.interval == 0 else replace(cost, blocks=cost.blocks - (last - first + 1))
            for i, cost in enumerate(plan.steps)
        )
        return replace(plan, steps=steps)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Skip by replacing the blocks' ``forward``; the cache lives and dies with the context."""
        first, last = self.block_range(len(pipeline.blocks))
        cache = _ResidualCache(lambda: pipeline.clock.step % self.interval == 0)
        skipped = pipeline.blocks[first - 1 : last]
        with ExitStack() as stack:
            for i, block in enumerate(skipped):
                wrapped = cache.wrap(block.forward, is_first=i == 0, is_last=i == len(skipped) - 1)
                stack.enter_context(patched(block, "forward", wrapped))
            yield


class _ResidualCache:
    """The input of the range at a key step and the residual it led to."""

    def __init__(self, is_key_step: Callable[[], bool]) -> None:
        self.is_key_step = is_key_step
        self.entered: torch.Tensor | None = None
        self.residual: torch.Tensor | None = None

    def wrap(self, forward: Callable[..., torch.Tensor], *, is_first: bool, is_last: bool) -> Callable[..., torch.Tensor]:
        def call(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not self.is_key_step():
                assert self.residual is not None, "the first step of every call is a key step"
                return hidden_states + self.residual if is_last else hidden_states
            if is_first:
                self.entered = hidden_states
            output = forward(hidden_states, *args, **kwargs)
            if is_last:
                assert self.entered is not None
                self.residual = output - self.entered
            return output

        return call
