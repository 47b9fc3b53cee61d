"""The inner loop, put around a backbone's blocks without copying its forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from harness.patching import patched
from ilf.module import FeedbackModule


class InnerLoop:
    """Runs blocks ``first`` to ``last`` a second time, each input increased by ``scale * feedback``.

    ``jump`` holds the timesteps (t, t_next), float [B] each, of a step that carries feedback, or None for a plain step:

        h = f_in;  u = module(f_out);  for block j of the loop: h = block(h + scales[j] * u)
    """

    def __init__(self, transformer: nn.Module, module: FeedbackModule) -> None:
        self.blocks: Any = transformer.transformer_blocks
        self.module = module
        self.jump: tuple[torch.Tensor, torch.Tensor] | None = None
        self._entered: tuple[torch.Tensor, dict[str, Any]] | None = None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Replace the ``forward`` of the first and last looped block inside the context."""
        config = self.module.config
        blocks = list(self.blocks)[config.first - 1 : config.last]
        forwards = [block.forward for block in blocks]
        with ExitStack() as stack:
            stack.enter_context(patched(blocks[0], "forward", self._remember(blocks[0].forward)))
            stack.enter_context(patched(blocks[-1], "forward", self._loop(blocks[-1].forward, forwards)))
            yield

    def _remember(self, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            self._entered = (hidden_states, kwargs)
            return forward(hidden_states, **kwargs)

        return call

    def _loop(
        self, forward: Callable[..., torch.Tensor], forwards: list[Callable[..., torch.Tensor]]
    ) -> Callable[..., torch.Tensor]:
        def call(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            left = forward(hidden_states, **kwargs)
            if self.jump is None:
                return left
            assert self._entered is not None, "the first looped block runs before the last"
            hidden_states, conditioning = self._entered
            self._entered = None
            feedback = self.module(left, *self.jump, **conditioning)
            for scale, block in zip(self.module.scales, forwards, strict=True):
                hidden_states = block(hidden_states + (scale * feedback).to(hidden_states.dtype), **conditioning)
            return hidden_states

        return call
