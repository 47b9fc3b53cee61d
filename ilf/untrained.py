"""An inner loop with fresh weights: what ILF costs and how fast it is, before anything has been trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights

from harness.config.methods import MethodTable
from harness.config.spec import TrainingSpec
from harness.cost.plan import Backbone, Plan
from harness.results import UpfrontCost
from harness.sampling.pipeline import Pipeline
from ilf.forms import settings_for
from ilf.method import attach_module
from ilf.module import FeedbackModule
from ilf.schedule import Schedule
from ilf.train import module_for


@dataclass(frozen=True)
class UntrainedIlf:
    """ILF with an untrained module: blocks, seconds and memory as with a trained one; its images mean nothing.

    The defaults are the paper's setting: 332 block evaluations where the full 20 steps cost 560, on both guidance branches.
    ``form``: ``paper``, ``ours`` or ``adapter``. ``first`` and ``last``: the looped blocks, 1-based. ``feedback`` and
    ``folded`` choose steps as those of :class:`ilf.method.Ilf`.
    """

    steps: int = 10
    feedback: str = "paper-4"
    folded: str = "none"
    first: int | None = None
    last: int | None = None
    form: str = "paper"

    def __post_init__(self) -> None:
        self.training()

    @property
    def label(self) -> str:
        """For example ``untrained ilf(10 steps, feedback=paper-4)``."""
        folded = f", folded={self.folded}" if self.folded != "none" else ""
        blocks = f", blocks={self.first or ''}-{self.last or ''}" if self.first or self.last else ""
        form = f", {self.form}" if self.form != "paper" else ""
        return f"untrained ilf({self.steps} steps, feedback={self.feedback}{folded}{blocks}{form})"

    @property
    def why_unscored(self) -> str:
        """Always."""
        return "NOT-MEASURED: the feedback module is untrained; only its speed, cost and memory mean anything"

    def training(self, depth: int = 28) -> TrainingSpec:
        """The training that would make the module."""
        loop = (self.first or 1, self.last or depth) if self.first or self.last else None
        return TrainingSpec.model_validate(
            {"form": self.form, "loop": loop, "folded": self.folded, "grids": (self.steps,), "steps": self.steps}
        )

    def plan(self, plan: Plan) -> Plan:
        """As of a trained module."""
        settings = settings_for(self.training(plan.backbone.depth), plan.backbone.depth, 1)
        form = vars(settings) | {"first": settings.loop[0], "last": settings.loop[1]}
        schedule = self.schedule(form)
        return plan.scheduled(schedule.plan(form, plan), "dpm++", schedule.timesteps, loops=bool(schedule.feedback))

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """Nothing was trained; the parameters are those of the module that would be."""
        with init_empty_weights(include_buffers=False):
            module = self.module(backbone.config, backbone.depth, 1.0)
        return UpfrontCost(0.0, sum(parameter.numel() for parameter in module.parameters()))

    def schedule(self, form: Mapping[str, Any]) -> Schedule:
        """The method's own; ``form`` is a module's config, or settings."""
        return Schedule.of(form, self.steps, self.feedback, self.folded)

    def module(self, config: Mapping[str, Any], depth: int, guidance: float) -> FeedbackModule:
        """A fresh module for a transformer with this config."""
        return module_for(config, guidance, settings_for(self.training(depth), depth, 1))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """As a trained module is attached; equal weights every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.module(pipeline.plan().backbone.config, len(pipeline.blocks), pipeline.guidance)
        module = module.to(pipeline.device, next(pipeline.transformer.parameters()).dtype).requires_grad_(False)
        schedule = self.schedule(module.config)
        with (
            pipeline.sampling(timesteps=schedule.timesteps, solver=module.config.solver),
            attach_module(pipeline, module, schedule),
        ):
            yield


UNTRAINED_METHODS: MethodTable = {"ilf-untrained": UntrainedIlf}
