"""An inner loop with fresh weights: what ILF costs and how fast it is, before anything has been trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.config.methods import MethodTable
from harness.cost.plan import Backbone, Plan
from harness.results import UpfrontCost
from ilf.schedule import Schedule
from ilf.settings import IlfSettings

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline
    from ilf.module import FeedbackModule


@dataclass(frozen=True)
class UntrainedIlf:
    """ILF with an untrained module: blocks, seconds and memory as with a trained one; its images are meaningless.

    The defaults are the paper's setting: 332 block evaluations where the full 20 steps cost 560, on both guidance branches.
    ``form``: ``paper``, ``ours`` or ``adapter``. ``first`` and ``last``: the looped blocks, 1-based. ``feedback`` and
    ``guidance_distilled`` choose steps as those of :class:`ilf.method.Ilf`.
    """

    steps: int = 10
    feedback: str = "paper-4"
    guidance_distilled: str = "none"
    first: int | None = None
    last: int | None = None
    form: str = "paper"

    def __post_init__(self) -> None:
        self._settings(28)

    @property
    def label(self) -> str:
        """For example ``untrained ilf(10 steps, feedback=paper-4)``."""
        distilled = f", guidance_distilled={self.guidance_distilled}" if self.guidance_distilled != "none" else ""
        blocks = f", blocks={self.first or ''}-{self.last or ''}" if self.first or self.last else ""
        form = f", {self.form}" if self.form != "paper" else ""
        return f"untrained ilf({self.steps} steps, feedback={self.feedback}{distilled}{blocks}{form})"

    @property
    def why_unscored(self) -> str:
        """Always."""
        return "NOT-MEASURED: the feedback module is untrained; only its speed, cost and memory are meaningful"

    def settings(self, depth: int, shift: float | None = None) -> IlfSettings:
        """Those of the module on a backbone of ``depth`` blocks and with a ``shift`` of its flow-matching timesteps.

        Raises :class:`UsageError` on a loop outside them.
        """
        return self._settings(depth).resolved(depth, shift=shift)

    def _settings(self, depth: int) -> IlfSettings:
        chosen = {"form": self.form, "guidance_distilled": self.guidance_distilled, "grids": (self.steps,), "steps": self.steps}
        if self.first or self.last:
            chosen["loop"] = (self.first or 1, self.last or depth)
        return IlfSettings.of(chosen)

    def plan(self, plan: Plan) -> Plan:
        """As of a trained module."""
        settings = self.settings(plan.backbone.depth, plan.backbone.shift)
        schedule = self.schedule(settings)
        return plan.scheduled(schedule.plan(settings, plan), settings.solver, schedule.timesteps, loops=bool(schedule.feedback))

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """Nothing was trained; the parameters are those of the module that would be."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            module = self.module(backbone, 1.0)
        return UpfrontCost(0.0, sum(parameter.numel() for parameter in module.parameters()))

    def schedule(self, settings: IlfSettings) -> Schedule:
        """Which steps carry feedback, as the method's options say."""
        return Schedule.of(settings, None, self.steps, self.feedback, self.guidance_distilled)

    def module(self, backbone: Backbone, guidance: float) -> FeedbackModule:
        """A fresh module for this backbone."""
        from ilf.train import module_for

        return module_for(backbone, guidance, self.settings(backbone.depth, backbone.shift))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """As a trained module is attached; equal weights every time."""
        from ilf.attach import attach_module

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.module(pipeline.backbone, pipeline.guidance.scale)
        module = module.to(pipeline.device, next(pipeline.transformer.parameters()).dtype).requires_grad_(False)
        schedule = self.schedule(module.settings)
        with (
            pipeline.sampling(timesteps=schedule.timesteps, solver=module.settings.solver),
            attach_module(pipeline, module, schedule),
        ):
            yield


UNTRAINED_METHODS: MethodTable = {"ilf-untrained": UntrainedIlf}
