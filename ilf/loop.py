"""The inner loop, put around a backbone's blocks without copying its forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.errors import NotMeasured
from harness.sampling.clock import StepClock
from harness.sampling.guidance import select_rows
from harness.sampling.patching import patched
from ilf.module import FeedbackModule, Transition

Forward = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Passage:
    """What the looped blocks saw on the rows that loop: hidden states [B, tokens, width] that entered and left, the null
    branch's that left (or None), and the conditioning of the blocks."""

    entered: torch.Tensor
    left: torch.Tensor
    null: torch.Tensor | None
    conditioning: dict[str, Any]


class InnerLoop:
    """Runs the looped blocks a second time, each input increased by the module's feedback:

        h = f_in;  u = module(f_out);  for block j of the loop: h = block(h + u[j])

    Set :attr:`transition` before a feedback step and to None for a plain one. ``rows`` are those that loop (None: all), ``null``
    the null branch's. With :attr:`stored` set, the first pass is skipped and the loop starts from those hidden states: the
    backbone is frozen, so a training computes it once. :attr:`passage` keeps the latest first pass where ``keep`` is set.
    """

    def __init__(self, transformer: nn.Module, module: FeedbackModule, keep: bool = False, clock: Any = None) -> None:
        self.transformer: Any = transformer
        self.clock = clock or StepClock()
        self.module, self.keep = module, keep
        self.transition: Transition | None = None
        self.rows: slice | None = None
        self.null: slice | None = None
        self.sizes: dict[str, Any] = {}  # PixArt's resolution and aspect ratio, where its time embedding has them
        self.stored: Passage | None = None
        self.passage: Passage | None = None
        self._entered: torch.Tensor | None = None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Replace the ``forward`` of the blocks up to the last looped one inside the context."""
        first, last = self.module.settings.blocks
        blocks: list[nn.Module] = list(self.transformer.transformer_blocks)
        forwards: list[Forward] = [block.forward for block in blocks[first - 1 : last]]
        with ExitStack() as stack:
            for number, block in enumerate(blocks[:last], start=1):
                ends = number == last
                wrapped = self._skippable(block.forward, number == first)
                stack.enter_context(patched(block, "forward", self._loop(wrapped, forwards) if ends else wrapped))
            yield

    def _skippable(self, forward: Forward, enters: bool) -> Forward:
        def call(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if enters:
                self._entered = hidden_states
            return hidden_states if self.stored is not None else forward(hidden_states, *args, **kwargs)

        return call

    def _loop(self, forward: Forward, forwards: list[Forward]) -> Forward:
        def call(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            left = forward(hidden_states, **kwargs) if self.stored is None else self.stored.left
            if self.transition is None and not self.keep:
                return left
            passage = self._passage(left, kwargs)
            self.passage = passage if self.keep else None
            if self.transition is None:
                return left
            looped = self._second_pass(passage, self.transition, forwards)
            if self.rows is None:
                return looped
            first = self.rows.start in (None, 0)
            null = left[self.null]
            return torch.cat([looped, null] if first else [null, looped])

        return call

    def _passage(self, left: torch.Tensor, kwargs: dict[str, Any]) -> Passage:
        if self.stored is not None:
            return Passage(self.stored.entered, self.stored.left, self.stored.null, kwargs)
        if self._entered is None:
            raise NotMeasured(
                expected="looped blocks that all run or are all skipped",
                got="a first looped block that was skipped",
                remedy="cache all of the loop's blocks, or none",
            )
        rows = len(self.transition.sample) * (1 if self.rows is None else 2) if self.transition else len(left)
        if len(left) != rows:
            raise NotMeasured(
                expected="a cache that skips the same blocks for all images of a step",
                got=f"one that runs {len(left)} of {rows} rows of the batch",
                remedy="use another cache with ilf, or batch: 1",
            )
        entered, self._entered = self._entered, None
        if self.rows is None:
            return Passage(entered, left, None, kwargs)
        conditioning = select_rows(kwargs, len(left), self.rows)
        return Passage(entered[self.rows], left[self.rows], left[self.null], conditioning)

    def _second_pass(self, passage: Passage, transition: Transition, forwards: list[Forward]) -> torch.Tensor:
        feedback = self.module(passage.left, passage.null, transition, passage.conditioning)
        if not self.module.settings.inner_pass:
            added: torch.Tensor = feedback[0]
            return passage.left + added
        conditioning = self._at_inner_time(passage.conditioning, transition)
        hidden: torch.Tensor = passage.entered
        self.clock.is_second_pass = True
        try:
            for fed, block in zip(feedback, forwards, strict=True):
                hidden = block(hidden + fed, **conditioning)
        finally:
            self.clock.is_second_pass = False
        return hidden

    def _at_inner_time(self, conditioning: dict[str, Any], transition: Transition) -> dict[str, Any]:
        """The blocks' conditioning at the second pass's time. DiT's blocks embed the timestep, PixArt's get it embedded."""
        if self.module.settings.inner_time == "same":
            return conditioning
        t = transition.t_next if self.module.settings.inner_time == "next" else (transition.t + transition.t_next) / 2
        t = t.clamp(min=0)
        embedded: Any = t.to(conditioning["timestep"].dtype)
        if hasattr(self.transformer, "adaln_single"):
            embedded, _ = self.transformer.adaln_single(t, self.sizes, batch_size=len(t), hidden_dtype=transition.sample.dtype)
        return {**conditioning, "timestep": embedded}
