"""What a pipeline tells its transformer on each guidance branch: one branch alone, what it was told, captions of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

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


class CarriedGuidance:
    """The difference of both branches at the last step that ran both, which stands in for the null branch on steps without it."""

    def __init__(self) -> None:
        self._difference: torch.Tensor | None = None

    def keep(self, conditional: torch.Tensor, null: torch.Tensor) -> None:
        """Both predictions [B, ...] of a step that ran both."""
        self._difference = conditional - null

    def null(self, conditional: torch.Tensor) -> torch.Tensor:
        """The null branch's prediction [B, ...] beside a conditional one."""
        assert self._difference is not None, "the first step runs both branches"
        return conditional - self._difference


@contextmanager
def guidance_reused(pipeline: Pipeline, where: Callable[[int], bool]) -> Iterator[None]:
    """Only the conditional branch runs at steps where ``where(step)`` says so, never at the first: the null branch's prediction
    is then the conditional one minus the difference of both at the last step that ran both. Nothing changes without guidance."""
    guidance, clock, shared = pipeline.guidance, pipeline.clock, pipeline.family.call.shared
    first: list[torch.Tensor] = []  # the conditional call's answer, until the null call's
    carried = CarriedGuidance()

    def of_two_calls(predict: Predict, call: ModelCall) -> torch.Tensor:
        if clock.call == 0:
            first[:] = [predict(call)]
            return first[0]
        if where(clock.step):
            return carried.null(first[0])
        null = predict(call)
        carried.keep(first[0], null)
        return null

    def change(predict: Predict, call: ModelCall) -> torch.Tensor:
        if not guidance.on:
            return predict(call)
        if guidance.layout == "calls":
            return of_two_calls(predict, call)
        if where(clock.step):
            conditional = predict(rows_of_call(call, guidance.chosen(len(call.sample)), shared))
            return torch.cat(guidance.ordered(conditional, carried.null(conditional)))
        prediction = predict(call)
        carried.keep(*guidance.split(prediction))
        return prediction

    with model_changed(pipeline.transformer, pipeline.family, change):
        yield


@contextmanager
def captions_filled(pipeline: Pipeline) -> Iterator[None]:
    """Captions are as long as they can be inside the context, and not as the longest of their batch: filled with zeros, which the
    model's mask leaves out. So what is kept of several batches can be joined. Enter it after whatever else changes the model.
    Nothing changes where a family's captions always have one length, or where it keeps each as a tensor of its own."""
    masks, tokens = pipeline.family.call.masks, pipeline.caption_tokens

    def change(predict: Predict, call: ModelCall) -> torch.Tensor:
        told = dict(call.conditioning)
        for name, mask in masks.items():
            caption = told[name]
            real = caption.new_ones(caption.shape[:2]) if told.get(mask) is None else told[mask]
            missing = tokens - caption.shape[1]
            told |= {name: F.pad(caption, (0, 0, 0, missing)), mask: F.pad(real, (0, missing))}
        return predict(replace(call, conditioning=told))

    if not masks:
        yield
        return
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
