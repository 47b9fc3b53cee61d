"""A feedback module around a pipeline's transformer: which rows loop at which step, and what the module is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from harness.errors import UsageError
from harness.sampling.guidance import conditional_half, for_both_halves, halves
from harness.sampling.patching import patched
from ilf.loop import InnerLoop, Passage
from ilf.module import FeedbackModule, Transition
from ilf.schedule import Schedule

NO_STEP_BEFORE = 1000.0
Seen = Callable[[Transition, Passage, torch.Tensor], None]


class FeedbackForward:
    """The transformer's forward with feedback. ``clock`` has ``step``, ``t`` and ``t_next``; ``guidance`` is the scale;
    ``schedule`` is asked at each step.

    ``seen`` is called after each step with what the module was told and what the looped blocks saw, and the null
    branch's noise prediction [B, C, H, W] (the conditional one's on guidance-distilled steps): training records it.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        loop: InnerLoop,
        schedule: Callable[[], Schedule],
        clock: Any,
        guidance: float,
        first: bool,
        seen: Seen | None = None,
    ) -> None:
        self.forward, self.loop, self.schedule, self.clock = forward, loop, schedule, clock
        self.guidance, self.conditional_first, self.seen = guidance, first, seen
        self._previous: tuple[float, torch.Tensor] | None = None
        self._loops = False

    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        """As the transformer's own. On a guidance-distilled step both halves get the answer, so that guidance keeps it."""
        schedule, step = self.schedule(), self.clock.step
        if step == 0:
            self._previous = None
        guided = self.guidance > 1
        distilled = guided and step in schedule.distilled
        self._loops = step in schedule.feedback
        rows = hidden_states.shape[0]
        sample = conditional_half(hidden_states, rows, self.conditional_first) if guided else hidden_states
        told = self._transition(sample, distilled)
        if distilled:
            output = for_both_halves(self._run(sample, conditional_half(kwargs, rows, self.conditional_first), told, None, None))
        elif guided and self.loop.module.settings.branches == "conditional":
            half = rows // 2
            upper, lower = slice(0, half), slice(half, rows)
            looping, others = (upper, lower) if self.conditional_first else (lower, upper)
            output = self._run(hidden_states, kwargs, told, looping, others)
        else:
            output = self._run(hidden_states, kwargs, self._transition(hidden_states, False), None, None)
        conditional, null = self._halves(output, sample)
        self._previous = (self.clock.t, null + self.guidance * (conditional - null) if guided else conditional)
        if self.seen is not None and self.loop.passage is not None:
            self.seen(told, self.loop.passage, null)
        return output

    def _run(
        self, hidden_states: torch.Tensor, kwargs: dict[str, Any], told: Transition, rows: slice | None, null: slice | None
    ) -> Any:
        loop = self.loop
        loop.rows, loop.null, loop.sizes = rows, null, kwargs.get("added_cond_kwargs") or {}
        loop.transition = told if self._loops else None
        try:
            return self.forward(hidden_states, **kwargs)
        finally:
            loop.transition = None

    def _transition(self, sample: torch.Tensor, distilled: bool) -> Transition:
        def full(value: float) -> torch.Tensor:
            return torch.full((sample.shape[0],), float(value), device=sample.device)

        before, previous = self._previous or (NO_STEP_BEFORE, sample)
        if previous.shape[0] != sample.shape[0]:  # both branches loop, from the same guided history
            previous = torch.cat([previous, previous])
        return Transition(
            full(self.clock.t),
            full(self.clock.t_next),
            full(before),
            sample,
            previous,
            full(distilled).bool(),
            full(self.guidance),
        )

    def _halves(self, output: Any, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The noise predictions [B, C, H, W] of the conditional and the null branch, without learned variances."""
        eps: torch.Tensor = (output[0] if isinstance(output, tuple) else output.sample)[:, : sample.shape[1]]
        if self.guidance <= 1:
            return eps, eps
        return halves(eps, self.conditional_first)


def check_guidance(module: FeedbackModule, guidance: float) -> None:
    """Raise :class:`UsageError` where the module, or its solvers, were trained for another guidance scale than the pipeline's."""
    settings, trained = module.settings, module.config.guidance
    bound = (settings.guidance_distilled != "none" and not settings.guidance_input) or module.config.solvers
    if bound and guidance != trained:
        raise UsageError(
            expected=f"guidance {trained}, for which this module was trained",
            got=f"guidance {guidance}",
            remedy="set that guidance, or use a module that was trained for yours",
        )


@contextmanager
def feedback_attached(
    transformer: Any,
    module: FeedbackModule,
    schedule: Callable[[], Schedule],
    clock: Any,
    guidance: float,
    first: bool,
    seen: Seen | None = None,
) -> Iterator[InnerLoop]:
    """Attach a module that is in memory; timesteps and solver stay as they are."""
    check_guidance(module, guidance)
    loop = InnerLoop(transformer, module, seen is not None, clock)
    forward = FeedbackForward(transformer.forward, loop, schedule, clock, guidance, first, seen)
    with ExitStack() as stack:
        stack.enter_context(loop.hooked())
        stack.enter_context(patched(transformer, "forward", forward))
        yield loop
