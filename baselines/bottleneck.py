"""Bottleneck Sampling (Tian et al. 2025, arXiv 2503.18940): high resolution first, low in the middle, high at the end.

At a switch the predicted clean latent is resized and noised again to the next step's level, and the solver forgets its
history. Fresh noise comes from each sample's own generator. The paper's shifted timesteps of the low stage are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from harness.cost.plan import Backbone, Plan
from harness.errors import NotMeasured, UsageError
from harness.models.families.base import ModelCall
from harness.models.families.table import families
from harness.sampling.patching import patched
from harness.sampling.schedulers.solver_table import LEARNED
from harness.sampling.sites import Predict, model_changed
from harness.sampling.transfer import to_device

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

LEAVE = "leave bottleneck out"


@dataclass(frozen=True)
class Bottleneck:
    """The first and the last share (0..1) of the steps at full resolution, those between at half of it.

    Only where latents are a grid and the position embedding is made for any size. The bundled tiny-pixart takes the lower
    resolution, but has never seen it in training. A step at half resolution is counted by its multiply-accumulates.
    Name it after a solver, not before.
    """

    first: float = 0.1
    last: float = 0.4

    def __post_init__(self) -> None:
        if not (0 <= self.first <= 1 and 0 < self.last <= 1):
            raise UsageError(
                expected="shares from 0 to 1, the last above 0", got=f"{self.first}, {self.last}", remedy="for example bottleneck"
            )

    @property
    def label(self) -> str:
        """For example ``bottleneck(first=0.1, last=0.4)``."""
        return f"bottleneck(first={self.first:g}, last={self.last:g})"

    def low(self, steps: int) -> range:
        """The 0-based steps at half resolution. The noise that a run starts from is of full size, so its first step is, too."""
        start = max(1, round(self.first * steps))
        return range(start, max(start, steps - max(1, round(self.last * steps))))

    def plan(self, plan: Plan) -> Plan:
        """The steps between cost their share of the tokens and more than that of the attention."""
        family = families()[plan.backbone.family]
        if not family.any_size:
            raise NotMeasured(expected="a model of any size", got=f"a {family.title}, which has one resolution", remedy=LEAVE)
        if not family.patches(plan.backbone.config)[0]:
            raise NotMeasured(expected="latents on a grid", got=f"those of a {family.title}, which are packed", remedy=LEAVE)
        if plan.solver == LEARNED:
            raise NotMeasured(
                expected="a DPM-Solver++ scheduler", got="a learned solver, of ilf or bespoke", remedy="leave one of the two out"
            )
        worth, low = _worth(plan.backbone), self.low(len(plan.steps))
        steps = tuple(replace(cost, blocks=cost.blocks * worth) if i in low else cost for i, cost in enumerate(plan.steps))
        return plan.costing(steps)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Resize between steps inside the context."""
        from diffusers import DPMSolverMultistepScheduler

        self.plan(pipeline.plan())
        sides, (patch, _) = pipeline.latent_shape[1:], pipeline.family.patches(pipeline.described.transformer)
        scheduler = pipeline.pipe.scheduler
        if any(side % (2 * patch) for side in sides):
            raise NotMeasured(expected=f"a latent size divisible by {2 * patch}", got=str(sides), remedy=LEAVE)
        if not isinstance(scheduler, DPMSolverMultistepScheduler):
            raise NotMeasured(
                expected="a DPM-Solver++ scheduler", got=type(scheduler).__name__, remedy="name solver:dpm++ before it"
            )
        switch = _Switch(pipeline, scheduler, self.low(pipeline.steps))
        with patched(scheduler, "step", switch.step), _weighed(pipeline):
            yield


def _worth(backbone: Backbone) -> float:
    """What the mean block costs at half of the resolution, in mean blocks."""
    half = backbone.like(scale=0.5)
    return sum(map(backbone.geometry.worth, half.blocks)) / half.depth


class _Switch:
    """The scheduler's step, which leads to another size where the next step has one."""

    def __init__(self, pipeline: Pipeline, scheduler: Any, low: range) -> None:
        self.pipeline, self.scheduler, self.low = pipeline, scheduler, low
        self._step = scheduler.step

    def step(self, output: torch.Tensor, t: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The scheduler's own, and the switch."""
        result = self._step(output, t, sample, *args, **kwargs)
        now, scheduler = self.pipeline.clock.step, self.scheduler
        if (now in self.low) == (now + 1 in self.low) or now + 1 >= len(scheduler.timesteps):
            return result
        height, width = self.pipeline.latent_shape[1:]
        size = (height // 2, width // 2) if now + 1 in self.low else (height, width)
        moved = _renoised(self.pipeline, scheduler, output, t, sample, size)
        scheduler.model_outputs, scheduler.lower_order_nums = [None] * scheduler.config.solver_order, 0
        return (moved, *result[1:]) if isinstance(result, tuple) else type(result)(prev_sample=moved)


def _renoised(
    pipeline: Pipeline, scheduler: Any, output: torch.Tensor, t: Any, sample: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """The clean latent that the step saw, at another size and the next step's noise level."""
    from diffusers.utils.torch_utils import randn_tensor

    process, following = pipeline.process, scheduler.timesteps[scheduler.step_index]
    (signal, noise), (next_signal, next_noise) = (
        (x[0] for x in process.coefficients(torch.tensor([float(time)]))) for time in (t, following)
    )
    clean, _ = process.split(output, sample, signal, noise)
    resized = F.interpolate(clean.float(), size=size, mode="bilinear", antialias=True).to(sample.dtype)
    fresh = randn_tensor(resized.shape, generator=pipeline.generators, dtype=sample.dtype)
    moved: torch.Tensor = next_signal * resized + next_noise * to_device(fresh, sample.device)
    return moved


def _weighed(pipeline: Pipeline) -> AbstractContextManager[None]:
    """The counted blocks are worth less on a small latent inside the context."""
    worth, size = _worth(pipeline.backbone), pipeline.latent_shape[-1]

    def change(predict: Predict, call: ModelCall) -> torch.Tensor:
        counter = pipeline.counter
        before = counter.rows if counter else 0.0
        output = predict(call)
        if counter and call.sample.shape[-1] < size:
            counter.rows = before + worth * (counter.rows - before)
        return output

    return model_changed(pipeline.transformer, pipeline.family, change)
