"""Counting block evaluations where they happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from harness.patching import patched


class BlockCounter:
    """Rows of hidden states that went through any counted block; divide by images for evaluations an image."""

    def __init__(self) -> None:
        self.rows = 0

    @contextmanager
    def counting(self, *blocks: nn.Module) -> Iterator[None]:
        """Count calls of ``blocks`` inside the context."""
        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(patched(block, "forward", self._counted(block.forward)))
            yield

    def _counted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.rows += hidden_states.shape[0]
            return forward(hidden_states, *args, **kwargs)

        return call
