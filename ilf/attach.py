"""A feedback module around a pipeline's transformer: which rows loop at which step, and what the module is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from harness.cost.guidance import Guidance
from harness.errors import UsageError
from harness.models.families.base import Family, ModelCall
from harness.sampling.branches import CarriedGuidance
from harness.sampling.pipeline import Pipeline, without_variances
from harness.sampling.sites import Predict, model_changed, rows_of_call
from ilf.loop import InnerLoop, Passage
from ilf.module import FeedbackModule, Transition
from ilf.partial import PartialSteps
from ilf.schedule import Schedule

NO_STEP_BEFORE = 1000.0
Seen = Callable[[Transition, Passage, torch.Tensor], None]


class FeedbackForward:
    """The transformer with feedback. ``clock`` has ``step``, ``call``, ``t`` and ``t_next``; ``schedule`` is asked at each step.

    ``seen`` is called after each step with what the module was told and what the looped blocks saw, and the null
    branch's prediction [B, ...] (the conditional one's on guidance-distilled steps): training records it.
    """

    def __init__(
        self,
        loop: InnerLoop,
        schedule: Callable[[], Schedule],
        clock: Any,
        guidance: Guidance,
        seen: Seen | None = None,
    ) -> None:
        self.loop, self.schedule, self.clock, self.guidance, self.seen = loop, schedule, clock, guidance, seen
        self._previous: tuple[float, torch.Tensor] | None = None
        self._loops = False
        self._carried = CarriedGuidance()
        self._first: tuple[torch.Tensor, Transition, Passage | None] | None = None  # of the conditional call, until the null one

    def change(self, predict: Predict, call: ModelCall) -> torch.Tensor:
        """The prediction of a call. On a guidance-distilled step both branches get the answer, so that guidance keeps it.

        Where guidance is carried, the null branch's is what the difference of the last step with both makes it.
        """
        step, guidance = self.clock.step, self.guidance
        if step == 0 and self.clock.call == 0:
            self._previous, self._carried = None, CarriedGuidance()
        self._loops = step in self.schedule().feedback
        distilled = guidance.on and step in self.schedule().distilled
        carried = guidance.on and step in self.schedule().carried
        if guidance.on and guidance.layout == "calls":
            return self._of_two_calls(predict, call, distilled, carried)
        rows, shared = len(call.sample), self.loop.family.call.shared
        looping = guidance.chosen(rows)
        sample = call.sample[looping]
        told = self._transition(sample, distilled or carried)
        if distilled or carried:
            answer = self._run(predict, rows_of_call(call, looping, shared), told, None, None)
            prediction = torch.cat(guidance.ordered(answer, answer if distilled else self._carried.null(answer)))
        elif guidance.on and self.loop.module.settings.branches == "conditional":
            prediction = self._run(predict, call, told, looping, guidance.chosen(rows, conditional=False))
        else:
            prediction = self._run(predict, call, self._transition(call.sample, False), None, None)
        if guidance.on and not (distilled or carried):
            self._carried.keep(*guidance.halves(prediction))
        conditional, null = guidance.halves(without_variances(prediction, sample))
        self._finish(told, self.loop.passage, conditional, null)
        return prediction

    def _of_two_calls(self, predict: Predict, call: ModelCall, distilled: bool, carried: bool) -> torch.Tensor:
        told = self._transition(call.sample, distilled or carried)
        if self.clock.call == 0:
            answer = self._run(predict, call, told, None, None)
            self._first = answer, told, self.loop.passage
            return answer
        assert self._first is not None
        conditional, first_told, passage = self._first
        if distilled:
            null = conditional
        elif carried:
            null = self._carried.null(conditional)
        else:
            both = self.loop.module.settings.branches == "both"
            null = self._run(predict, call, told if both else None, None, None)
            self._carried.keep(conditional, null)
        self._first = None
        self._finish(first_told, passage, *(without_variances(x, call.sample) for x in (conditional, null)))
        return null

    def _finish(self, told: Transition, passage: Passage | None, conditional: torch.Tensor, null: torch.Tensor) -> None:
        self._previous = (self.clock.t, self.guidance.combined(conditional, null))
        if self.seen is not None and passage is not None:
            self.seen(told, passage, null)

    def _run(
        self, predict: Predict, call: ModelCall, told: Transition | None, rows: slice | None, null: slice | None
    ) -> torch.Tensor:
        loop = self.loop
        loop.rows, loop.null, loop.call = rows, null, call
        loop.transition = told if self._loops else None
        try:
            return predict(call)
        finally:
            loop.transition = None

    def _transition(self, sample: torch.Tensor, alone: bool) -> Transition:
        before, previous = self._previous or (NO_STEP_BEFORE, sample)
        if previous.shape[0] != sample.shape[0]:  # both branches loop, from the same guided history
            previous = torch.cat([previous, previous])
        times = self.clock.t, self.clock.t_next, before
        return Transition.same(times, sample, previous, self.guidance.scale, alone=alone)


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
    family: Family,
    module: FeedbackModule,
    schedule: Callable[[], Schedule],
    clock: Any,
    guidance: Guidance,
    seen: Seen | None = None,
) -> Iterator[None]:
    """Attach a module that is in memory; timesteps and solver stay as they are."""
    check_guidance(module, guidance.scale)
    if module.settings.partial:
        with PartialSteps(transformer, family, module, schedule, clock, guidance).attached():
            yield
        return
    loop = InnerLoop(transformer, family, module, seen is not None, clock)
    forward = FeedbackForward(loop, schedule, clock, guidance, seen)
    with ExitStack() as stack:
        stack.enter_context(loop.hooked())
        stack.enter_context(model_changed(transformer, family, forward.change))
        yield


@contextmanager
def running(pipeline: Pipeline, module: FeedbackModule, schedule: Schedule) -> Iterator[None]:
    """A module in memory attached, on its schedule's timesteps and its solver."""
    with ExitStack() as stack:
        if schedule.table is None:
            stack.enter_context(pipeline.sampling(timesteps=schedule.timesteps, solver=module.settings.solver))
        stack.enter_context(attach_module(pipeline, module, schedule))
        if schedule.table is not None:
            stack.enter_context(pipeline.sampling(table=schedule.table))
        yield


@contextmanager
def attach_module(pipeline: Pipeline, module: FeedbackModule, schedule: Schedule, seen: Seen | None = None) -> Iterator[None]:
    """Attach a module that is already in memory; the pipeline's timesteps and solver stay as they are."""
    last = pipeline.sites[module.settings.blocks[1] - 1]
    own = [replace(last, block=block) for block in module.blocks]
    count = pipeline.counter.counting(own) if pipeline.counter else nullcontext()
    attached = feedback_attached(
        pipeline.transformer, pipeline.family, module, lambda: schedule, pipeline.clock, pipeline.guidance, seen
    )
    with pipeline.compiling(*module.blocks), count, attached:
        yield
