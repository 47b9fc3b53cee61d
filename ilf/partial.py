"""Partial steps: denoising steps that run only the last blocks, on what the module predicts from the last whole step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.cost.guidance import Guidance
from harness.errors import NotMeasured
from harness.models.families.base import Conditioning, Family, ModelCall, State
from harness.sampling.branches import CarriedGuidance
from harness.sampling.sites import Predict, Run, Site, bare_sites, model_changed, rows_of_call
from ilf.loop import added, rows_of
from ilf.module import FeedbackModule, Transition
from ilf.schedule import Schedule

Change = Callable[[Run, State, Conditioning], State]


@dataclass
class Whole:
    """What one call of the last whole step left behind, all of its rows: its time and noisy latents, the streams that entered the
    first block, and those that entered and left the loop."""

    t: float
    sample: torch.Tensor
    embedded: State = ()
    entered: State = ()
    left: State = ()


class PartialSteps:
    """The transformer with partial steps, on those that ``schedule`` gives feedback.

    A partial step embeds its own noisy latent at its own time, skips the blocks before the loop, and enters the loop with the
    streams that entered it in the last whole step, increased by how much the embedded latent has changed since then and by the
    module's feedback, which reads what left the loop in that step.
    With ``branches: conditional`` the null branch does not run: the difference of both predictions is the last whole step's.
    ``clock`` has ``step``, ``call``, ``t`` and ``t_next``.
    """

    def __init__(
        self,
        transformer: Any,
        family: Family,
        module: FeedbackModule,
        schedule: Callable[[], Schedule],
        clock: Any,
        guidance: Guidance,
    ) -> None:
        self.transformer, self.family, self.module = transformer, family, module
        self.schedule, self.clock, self.guidance = schedule, clock, guidance
        self._whole: dict[int, Whole] = {}
        self._carried = CarriedGuidance()
        self._first: torch.Tensor | None = None  # of the conditional call, until the null one
        self._recorded: Whole | None = None
        self._feedback: list[State] | None = None
        self._start: Callable[[State, Conditioning], State] | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Change blocks and transformer inside the context."""
        first, last = self.module.settings.blocks
        with ExitStack() as stack:
            for site in bare_sites(self.transformer, self.family)[:last]:
                stack.enter_context(site.changed(self._looped(site) if site.number >= first else self._before(site)))
            stack.enter_context(model_changed(self.transformer, self.family, self.change))
            yield

    def change(self, predict: Predict, call: ModelCall) -> torch.Tensor:
        """The prediction of a call."""
        clock, guidance = self.clock, self.guidance
        if clock.step == 0 and clock.call == 0:
            self._whole = {}
        separate = guidance.on and guidance.layout == "calls"
        if clock.step not in self.schedule().feedback:
            return self._whole_step(predict, call, separate)
        if not guidance.on or self.module.settings.branches == "both":
            return self._partial_step(predict, call, slice(None))
        if separate and clock.call:
            assert self._first is not None
            return self._carried.null(self._first)
        chosen = guidance.chosen(len(call.sample))
        self._first = answer = self._partial_step(predict, rows_of_call(call, chosen, self.family.call.shared), chosen)
        if separate:
            return answer
        return torch.cat(guidance.ordered(answer, self._carried.null(answer)))

    def _whole_step(self, predict: Predict, call: ModelCall, separate: bool) -> torch.Tensor:
        self._recorded = self._whole[self.clock.call] = Whole(self.clock.t, call.sample)
        try:
            prediction = predict(call)
        finally:
            self._recorded = None
        if not separate:
            self._carried.keep(*self.guidance.halves(prediction))
        elif self.clock.call:
            assert self._first is not None
            self._carried.keep(self._first, prediction)
        self._first = prediction
        return prediction

    def _partial_step(self, predict: Predict, call: ModelCall, rows: slice) -> torch.Tensor:
        whole = self._whole.get(self.clock.call)
        if whole is None or not whole.left:
            raise NotMeasured(
                expected="a whole step before a partial one",
                got=f"step {self.clock.step} without one, or whose blocks were skipped",
                remedy="let the first step be whole, and compose partial steps with no cache",
            )
        self._start = lambda state, conditioning: self._entering(whole, call.sample, rows, state, conditioning)
        try:
            return predict(call)
        finally:
            self._start = self._feedback = None

    def _entering(self, whole: Whole, sample: torch.Tensor, rows: slice, state: State, conditioning: Conditioning) -> State:
        """The streams that enter the loop, still without feedback; ``state`` are the embedded ones of this step."""
        entered, left, embedded = (rows_of(streams, rows) for streams in (whole.entered, whole.left, whole.embedded))
        ended = entered[len(left) :]  # the caption's stream, where the last block ends it
        told = self._transition(whole, sample, rows)
        self._feedback = self.module((*left, *ended), self._other(whole, rows), told, conditioning)
        return tuple(old + new - before for old, new, before in zip(entered, state, embedded, strict=True))

    def _other(self, whole: Whole, rows: slice) -> State | None:
        """What left the loop on the other guidance branch, in the last whole step."""
        if not self.guidance.on:
            return None
        if self.guidance.layout == "calls":
            return self._whole[1 - self.clock.call].left
        half = len(whole.sample) // 2
        return rows_of(tuple(torch.roll(stream, half, 0) for stream in whole.left), rows)

    def _transition(self, whole: Whole, sample: torch.Tensor, rows: slice) -> Transition:
        times = self.clock.t, self.clock.t_next, whole.t
        return Transition.same(times, sample, whole.sample[rows], self.guidance.scale)

    def _before(self, site: Site) -> Change:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            if self._start is not None:
                return state
            self._embed(site, state)
            return run(state, conditioning)

        return call

    def _looped(self, site: Site) -> Change:
        first, last = self.module.settings.blocks

        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            if self._start is not None:
                if site.number == first:
                    state = self._start(state, conditioning)
                assert self._feedback is not None
                return run(added(state, self._feedback[site.number - first]), conditioning)
            self._embed(site, state)
            left = run(state, conditioning)
            if self._recorded is not None and site.number == first:
                self._recorded.entered = state
            if self._recorded is not None and site.number == last:
                self._recorded.left = left
            return left

        return call

    def _embed(self, site: Site, state: State) -> None:
        """Keep what enters the first block, as the streams of every later list of blocks."""
        if self._recorded is None or site.number > self.module.settings.blocks[0]:
            return
        if site.number == 1:
            self._recorded.embedded = state
        elif site.place == 0:
            self._recorded.embedded = site.segment.enter(self._recorded.embedded)
