"""What calibrations watch: how the residual of a range of blocks changes from each step to the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from harness.models.families.base import Conditioning, State
from harness.sampling.sites import Run, Site

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


class Residuals:
    """Tells ``seen`` what the blocks from number ``first`` (1-based) to the last add to the image's stream, [rows, tokens,
    width], at each call of the model."""

    def __init__(self, pipeline: Pipeline, first: int, seen: Callable[[torch.Tensor], None]) -> None:
        self.sites, self.seen = pipeline.sites[first - 1 :], seen
        self._entered: State = ()

    def attached(self) -> ExitStack:
        """Watch inside the context."""
        with ExitStack() as stack:
            for i, site in enumerate(self.sites):
                joins = i > 0 and site.segment is not self.sites[i - 1].segment
                if i == 0 or joins or i == len(self.sites) - 1:
                    stack.enter_context(site.changed(self._watching(site, i == 0, joins, i == len(self.sites) - 1)))
            return stack.pop_all()

    def _watching(self, site: Site, is_first: bool, joins: bool, is_last: bool) -> Callable[[Run, State, Conditioning], State]:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            if is_first:
                self._entered = state
            elif joins:
                self._entered = site.segment.enter(self._entered)
            output = run(state, conditioning)
            if is_last:
                self.seen(output[0] - self._entered[0])
            return output

        return call


def each_step(
    pipeline: Pipeline,
    sample: Callable[[], None],
    first: int,
    compare: Callable[[torch.Tensor, torch.Tensor], float],
    at_start: float,
) -> list[float]:
    """``compare(residual, residual one step before)`` of blocks ``first`` (1-based) to the last, at each step, over all calls.

    The first step, which has none before, is ``at_start``.
    """
    values: list[list[float]] = [[] for _ in range(pipeline.steps)]
    before: dict[int, torch.Tensor] = {}

    def seen(residual: torch.Tensor) -> None:
        step, branch = pipeline.clock.step, pipeline.clock.call
        values[step].append(compare(residual, before[branch]) if step else at_start)
        before[branch] = residual

    with Residuals(pipeline, first, seen).attached():
        sample()
    return [sum(step) / len(step) for step in values]
