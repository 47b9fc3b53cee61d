"""End-to-end training: a module, and a solver for each step count, by gradient through whole runs of few steps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.attention import explicit_attention
from harness.clock import StepClock
from harness.errors import UsageError
from harness.learned_solver import LearnedSolver, denoiser, whole_run_error
from harness.pipeline import Pipeline
from harness.training import TrainRecord, TrainSettings, fit, share
from harness.trajectories import Trajectories
from ilf.attach import feedback_attached
from ilf.module import FeedbackModule
from ilf.schedule import Schedule
from ilf.train import IlfSettings, checkpointed


class WholeRuns(nn.Module):
    """The module and one :class:`LearnedSolver` a step count: what is trained together."""

    def __init__(self, pipeline: Pipeline, module: FeedbackModule) -> None:
        super().__init__()
        config, alphas = module.config, pipeline.pipe.scheduler.alphas_cumprod
        self.pipeline, self.module = pipeline, module
        self.solvers = nn.ModuleDict({str(n): LearnedSolver(n, config.power, alphas) for n in config.grids})

    def solver(self, steps: int) -> LearnedSolver:
        """The one for a step count."""
        solver = self.solvers[str(steps)]
        assert isinstance(solver, LearnedSolver)
        return solver

    def ends(self, steps: int, data: Trajectories, rows: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, H, W] at the end of runs of ``steps`` from the noise of trajectories ``rows`` (int64 [B])."""
        pipeline, solver, clock = self.pipeline, self.solver(steps), StepClock()
        clock.timesteps = tuple(solver.timesteps().tolist())
        schedule = replace(Schedule.of(self.module.config, steps), timesteps=tuple(int(t) for t in clock.timesteps))
        attached = feedback_attached(
            pipeline.transformer, self.module, lambda: schedule, clock, pipeline.guidance, pipeline.conditional_first
        )
        with attached:
            ends: torch.Tensor = solver(denoiser(pipeline, data, rows, clock), data.states[rows, 0].to(pipeline.device))
        return ends


def whole_plan(steps: int) -> TrainSettings:
    """How ``steps`` of this training go."""
    return TrainSettings(steps, lr=5e-4, warmup=min(20, steps // 10), ema=0.98, checkpoint_every=25)


def train_whole_runs(
    pipeline: Pipeline, module: FeedbackModule, data: Trajectories, settings: IlfSettings, training: TrainSettings,
    checkpoint: Path,
) -> TrainRecord:  # fmt: skip
    """Go on training ``module`` so that whole runs end where the teacher's do, with solvers of their own, kept in its config.

    Each step takes one step count of ``settings.grids`` and ``settings.whole_batch`` trajectories; the error is
    :func:`whole_run_error`. A solver belongs to one guidance scale, so a module that is told the scale is refused.
    """
    if settings.guidance_input:
        raise UsageError(
            expected="one guidance scale with whole runs", got="guidance_input", remedy="set whole_runs or guidance_input"
        )
    runs = WholeRuns(pipeline, module.requires_grad_(True)).to(pipeline.device)
    pipeline.transformer.requires_grad_(False)

    def loss(generator: torch.Generator) -> torch.Tensor:
        steps = settings.grids[int(torch.randint(len(settings.grids), (), generator=generator))]
        rows = share(torch.randint(len(data.states), (settings.whole_batch,), generator=generator))
        return whole_run_error(runs.ends(steps, data, rows), data.states[rows, -1].to(pipeline.device)).mean()

    lean = checkpointed(pipeline.transformer) if settings.gradient_checkpointing else nullcontext()
    with explicit_attention(pipeline.transformer, module), lean:
        record = fit(runs, loss, training, checkpoint, "whole runs")
    tables: dict[str, Any] = {str(n): runs.solver(n).table().content() for n in settings.grids}
    module.register_to_config(solvers=tables)
    return record
