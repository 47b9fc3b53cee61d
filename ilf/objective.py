"""The loss of one batch of transitions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from harness.models.families.base import ModelCall, State
from harness.sampling.process import TRAINED, Process
from harness.sampling.rows import join_rows, map_tensors, repeated, select_rows
from harness.sampling.transfer import to_device
from harness.training.trajectories import Trajectories
from ilf.loop import InnerLoop, Passage
from ilf.losses import coefficients, fad_error, first_order, landing_error, per_row, second_order, teacher_steps
from ilf.transitions import Transitions

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


class Objective:
    """Predictions of the looped model from stored first passes, and the error that they cause.

    ``target``: ``first-order`` (a first-order step lands on the teacher's converged state), ``second-order`` (the solver's
    second-order step does), ``teacher-steps`` (on noised data, land where ``count`` steps of the teacher land) or ``fad`` (the
    paper's).
    """

    def __init__(self, pipeline: Pipeline, loop: InnerLoop, data: Trajectories, target: str, count: int = 2) -> None:
        self.pipeline, self.loop, self.data, self.target, self.count = pipeline, loop, data, target, count
        self.process = Process.of(pipeline.pipe.scheduler).to(pipeline.device)

    def __call__(self, transitions: Transitions, generator: torch.Generator) -> torch.Tensor:
        """The mean loss (scalar) of transitions that lie on the CPU."""
        transitions = transitions.to(self.pipeline.device)
        if self.target == "fad":
            return self._fad(transitions, generator).mean()
        if self.target == "teacher-steps":
            return self._teacher_steps(transitions, generator).mean()
        eps = self._noise(self.guided(transitions), transitions.sample, transitions.t)
        step = transitions.sample, eps, transitions.t, transitions.t_next, self.process
        if self.target == "second-order":
            landed = second_order(*step, transitions.t_before, transitions.clean_before)
        else:
            landed = first_order(*step)
        return landing_error(landed, transitions.target, transitions.t_next, self.process).mean()

    def _noise(self, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The noise that a prediction [B, ...] of the model stands for."""
        return self.process.split(output, sample, *coefficients(self.process, t, sample))[1]

    def guided(self, transitions: Transitions) -> torch.Tensor:
        """The guided prediction [B, C, H, W] of the pipeline, which a guidance-distilled step's output already is."""
        conditional = self.predict(transitions, self._conditioning(transitions), self._passage(transitions))
        if not self.data.null:
            return conditional
        scale = per_row(transitions.guidance, conditional)
        guided = self.pipeline.guidance.combined(conditional, transitions.null_eps, scale)
        return torch.where(per_row(transitions.distilled, conditional), conditional, guided)

    def _conditioning(self, transitions: Transitions) -> dict[str, Any]:
        return self._on_device(self.data.rows(transitions.row))

    def _on_device(self, tree: dict[str, Any]) -> dict[str, Any]:
        return map_tensors(tree, lambda x: to_device(x, self.pipeline.device))

    def _passage(self, transitions: Transitions) -> Passage:
        """The stored first pass. A guidance-distilled step sees its own hidden states for the null branch's, as in sampling."""
        null = None
        if self.data.null and self.pipeline.guidance.rows > 1:
            null = self._streams(torch.where(transitions.distilled[:, None, None], transitions.left, transitions.null).float())
        entered, left = (self._streams(x.float()) for x in (transitions.entered, transitions.left))
        return Passage(entered, left, null, ())

    def _streams(self, packed: torch.Tensor) -> State:
        """The streams that :meth:`ilf.loop.Passage.pieces` put into one tensor."""
        tokens = self.pipeline.geometry.tokens
        if len(self.loop.module.kind.inputs) == 1 or packed.shape[1] == tokens:
            return (packed,)
        return packed[:, :tokens], packed[:, tokens:]

    def predict(self, transitions: Transitions, conditioning: dict[str, Any], stored: Passage | None) -> torch.Tensor:
        """The looped branch's prediction [B, C, H, W]."""
        self.loop.stored, self.loop.rows = stored, None
        self.loop.transition = transitions.told()
        return self._call(transitions.sample, transitions.t, conditioning)

    def _call(self, sample: torch.Tensor, t: torch.Tensor, conditioning: dict[str, Any]) -> torch.Tensor:
        self.loop.call = ModelCall(sample, self.pipeline.family.call.time(t), conditioning)
        try:
            return self.pipeline.predict(sample, t, conditioning)
        finally:
            self.loop.transition = self.loop.stored = None

    def _fad(self, transitions: Transitions, generator: torch.Generator) -> torch.Tensor:
        """On noised data: the clean ends of the teacher's runs. Half of a guided batch is the null branch, which loops too."""
        clean, noise, sample = self._noised(transitions, generator)
        half, errors = transitions.t // 2, []
        a_half, s_half = coefficients(self.process, half, clean)
        halfway = a_half * clean + s_half * noise
        for part, conditioning in self._branches(transitions.row):
            with torch.no_grad():
                teacher = self._noise(self._call(halfway[part], half[part], conditioning), halfway[part], half[part])
            noised = replace(transitions.take(part), sample=sample[part])
            eps = self._noise(self.predict(noised, conditioning, None), noised.sample, noised.t)
            errors.append(fad_error(eps, teacher, noise[part]))
        return torch.cat(errors)

    def _branches(self, index: torch.Tensor) -> list[tuple[slice, dict[str, Any]]]:
        """Trajectories (int64 [B]), the first half of them on the null branch, each part with its conditioning: one call of the
        model, or two where the pipeline makes two, whose arguments may differ in shape."""
        data, half = self.data, len(index) // 2
        if not data.null:
            return [(slice(None), self._on_device(data.rows(index)))]
        if self.pipeline.guidance.layout != "calls":
            return [(slice(None), self._on_device(with_null_rows(data, index, half)))]
        null, conditional = (self._on_device(tree) for tree in (data.null_rows(half), data.rows(index[half:])))
        return [(slice(half), null), (slice(half, None), conditional)]

    def _noised(self, transitions: Transitions, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean ends of the teacher's runs, fresh noise, and both mixed at t."""
        clean = self.data.states[transitions.row, -1].to(transitions.sample)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        a_t, s_t = coefficients(self.process, transitions.t, clean)
        return clean, noise, a_t * clean + s_t * noise

    def _teacher_steps(self, transitions: Transitions, generator: torch.Generator) -> torch.Tensor:
        _, _, sample = self._noised(transitions, generator)
        conditioning, rows = self._conditioning(transitions), len(transitions)
        null = self._on_device(self.data.null_rows(rows)) if self.data.null else {}
        guidance, scale = self.pipeline.guidance, per_row(transitions.guidance, sample)

        def teacher(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            output = self._call(x, t, conditioning)
            return self._noise(guidance.combined(output, self._call(x, t, null), scale) if null else output, x, t)

        with torch.no_grad():
            target = teacher_steps(teacher, sample, transitions.t, transitions.t_next, self.process, self.count)
            without = self._call(sample, transitions.t, null) if null else None
        first = torch.full_like(transitions.t_before, TRAINED)
        noised = replace(transitions, sample=sample, previous=sample, t_before=first)
        output = self.predict(noised, conditioning, None)
        if without is not None:
            output = torch.where(per_row(transitions.distilled, output), output, guidance.combined(output, without, scale))
        eps = self._noise(output, sample, transitions.t)
        landed = first_order(sample, eps, transitions.t, transitions.t_next, self.process)
        return landing_error(landed, target, transitions.t_next, self.process)


def with_null_rows(data: Trajectories, index: torch.Tensor, rows: int) -> dict[str, Any]:
    """The conditioning of trajectories (int64 [B]), the first ``rows`` of them replaced by the null branch's."""
    conditional = select_rows(data.conditioning, len(data.states), index[rows:])
    return {**join_rows([repeated(data.null, rows), conditional]), **data.common}
