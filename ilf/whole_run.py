"""End-to-end training: a module, and a solver for each step count, by gradient through whole runs of few steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.attention import explicit_attention
from harness.clock import StepClock
from harness.learned_solver import LearnedSolver, mean_error, whole_run
from harness.pipeline import Pipeline
from harness.training import TrainRecord, TrainSettings, fit, share
from harness.trajectories import Trajectories
from ilf.attach import feedback_attached
from ilf.module import FeedbackModule
from ilf.schedule import Schedule
from ilf.train import IlfSettings, checkpointed, train_module


class WholeRuns(nn.Module):
    """The module and one :class:`LearnedSolver` a step count: what is trained together."""

    def __init__(self, pipeline: Pipeline, module: FeedbackModule, grids: Sequence[int]) -> None:
        super().__init__()
        power, alphas = module.config.power, pipeline.pipe.scheduler.alphas_cumprod
        self.pipeline, self.module = pipeline, module
        self.solvers = nn.ModuleDict({str(n): LearnedSolver(n, power, alphas) for n in grids})

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
            return whole_run(solver, pipeline, data, rows, clock)


def whole_plan(steps: int) -> TrainSettings:
    """How ``steps`` of this training go."""
    return TrainSettings(steps, lr=2e-4, warmup=min(20, steps // 10), ema=0.98, checkpoint_every=25)


def train_whole_runs(
    pipeline: Pipeline, module: FeedbackModule, data: Trajectories, settings: IlfSettings, training: TrainSettings,
    checkpoint: Path,
) -> TrainRecord:  # fmt: skip
    """Go on training ``module`` so that whole runs end where the teacher's do, with solvers of their own, kept in its config.

    Each step takes one step count of ``settings.whole_counts`` and ``settings.whole_batch`` trajectories. The loss is their
    :func:`mean_error`.
    """
    grids = settings.whole_counts
    runs = WholeRuns(pipeline, module.requires_grad_(True), grids).to(pipeline.device)
    pipeline.transformer.requires_grad_(False)

    def loss(generator: torch.Generator) -> torch.Tensor:
        steps = grids[int(torch.randint(len(grids), (), generator=generator))]
        rows = share(torch.randint(len(data.states), (settings.whole_batch,), generator=generator))
        return mean_error(runs.ends(steps, data, rows), data, rows)

    lean = checkpointed(pipeline.transformer) if settings.gradient_checkpointing else nullcontext()
    with explicit_attention(pipeline.transformer, module), lean:
        record = fit(runs, loss, training, checkpoint, "whole runs")
    tables: dict[str, Any] = {str(n): runs.solver(n).table().content() for n in grids}
    module.register_to_config(solvers=tables)
    return record


def train_all(
    pipeline: Pipeline, data: Trajectories, prompts: Sequence[str], seed: int, settings: IlfSettings, training: TrainSettings,
    checkpoint: Path,
) -> tuple[FeedbackModule, TrainRecord]:  # fmt: skip
    """:func:`train_module`, and :func:`train_whole_runs` after it where the settings ask for it; resumes in either."""
    module, record = train_module(pipeline, data, prompts, seed, settings, training, checkpoint)
    if settings.whole_runs:
        store, plan = checkpoint.with_suffix(".whole.pt"), whole_plan(settings.whole_runs)
        record = record.followed_by(train_whole_runs(pipeline, module, data, settings, plan, store))
    return module, record
