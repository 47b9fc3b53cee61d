"""Counting block evaluations where they happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from harness.cost.macs import PARTS, BlockMacs
from harness.sampling.patching import patched


class BlockCounter:
    """Rows of hidden states that went through any counted block; divide by images for evaluations per image.

    A block whose attention, cross-attention or MLP was not called counts for less: by that part's share of ``macs``, the
    block's multiply-accumulates. Without ``macs`` every call of a block counts whole. ``weight`` is the cost of a block in
    blocks of the pipeline's own kind, for blocks of another size.
    """

    def __init__(self, macs: BlockMacs | None = None) -> None:
        self.macs = macs
        self.rows = 0.0

    @contextmanager
    def counting(self, *blocks: nn.Module, weight: float = 1.0) -> Iterator[None]:
        """Count calls of ``blocks`` inside the context."""
        with ExitStack() as stack:
            for block in blocks:
                parts = {name: getattr(block, name) for name in PARTS if self.macs and getattr(block, name, None) is not None}
                ran: set[str] = set()
                for name, part in parts.items():
                    stack.enter_context(patched(part, "forward", _noted(part.forward, name, ran)))
                stack.enter_context(patched(block, "forward", self._counted(block.forward, weight, frozenset(parts), ran)))
            yield

    def _counted(self, forward: Callable[..., Any], weight: float, parts: frozenset[str], ran: set[str]) -> Callable[..., Any]:
        def call(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            ran.clear()
            output = forward(hidden_states, *args, **kwargs)
            skipped = sum(self.macs.share(name) for name in parts - ran) if self.macs else 0.0
            self.rows += weight * (1 - skipped) * hidden_states.shape[0]
            return output

        return call


def _noted(forward: Callable[..., Any], name: str, ran: set[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        ran.add(name)
        return forward(*args, **kwargs)

    return call
