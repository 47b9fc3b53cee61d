"""Running the conditional branch alone, and giving its answer to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from harness.models.families.base import Conditioning, ModelCall
from harness.sampling.rows import copied, map_tensors, select_rows
from harness.sampling.sites import Predict, model_changed, rows_of_call

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@contextmanager
def conditional_only(pipeline: Pipeline, where: Callable[[int], bool]) -> Iterator[None]:
    """Only the conditional branch runs at steps where ``where(step)`` says so: both get its answer, so that what the pipeline
    makes of the two is exactly it. Nothing changes without guidance."""
    guidance, clock, shared = pipeline.guidance, pipeline.clock, pipeline.family.call.shared
    kept: list[torch.Tensor] = []

    def change(predict: Predict, call: ModelCall) -> torch.Tensor:
        if not (guidance.on and where(clock.step)):
            return predict(call)
        if guidance.layout == "calls":
            if clock.call == 0:
                kept[:] = [predict(call)]
            return kept[0]
        answer = predict(rows_of_call(call, guidance.chosen(len(call.sample)), shared))
        return torch.cat([answer, answer])

    with model_changed(pipeline.transformer, pipeline.family, change):
        yield


class Told:
    """What a pipeline tells its transformer in its first step, beside sample and time, on each branch.

    ``branches``: the conditional one's, and the null one's where there is guidance; tensors [images, ...]. ``common``: what
    has no row for each image.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.branches: list[Conditioning] = []
        self.common: Conditioning = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen inside the context."""
        with model_changed(self.pipeline.transformer, self.pipeline.family, self._heard):
            yield

    def _heard(self, predict: Predict, call: ModelCall) -> torch.Tensor:
        if self.pipeline.clock.step == 0:
            self._keep(call)
        return predict(call)

    def _keep(self, call: ModelCall) -> None:
        guidance, rows, shared = self.pipeline.guidance, len(call.sample), self.pipeline.family.call.shared
        told = {key: value for key, value in call.conditioning.items() if key not in shared}
        self.common = self.common or {key: copied(call.conditioning[key]) for key in shared & call.conditioning.keys()}
        halves = [guidance.chosen(rows), guidance.chosen(rows, conditional=False)][: guidance.rows]
        self.branches += [map_tensors(select_rows(told, rows, half), copied) for half in halves]
