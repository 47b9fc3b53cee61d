"""End-to-end training: a module, and a solver for each step count, by gradient through whole runs of few steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.sampling.clock import StepClock
from harness.sampling.pipeline import Pipeline
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit, share
from harness.training.learned_solver import Error, LearnedSolver, fine_runs, image_error, latent_error, whole_run
from harness.training.trajectories import Trajectories
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

    def keep_solvers(self) -> None:
        """Put what was learned into the module's configuration."""
        tables: dict[str, Any] = {count: self.solver(int(count)).table().content() for count in self.solvers}
        self.module.register_to_config(solvers=tables)


def train_whole_runs(
    runs: WholeRuns, data: Trajectories, settings: IlfSettings, training: TrainSettings, checkpoint: Path, error: Error
) -> TrainRecord:
    """Go on training a module, and solvers of its own, so that whole runs end where the teacher's do.

    Each step takes one step count of ``settings.whole_counts`` and ``settings.whole_batch`` trajectories.
    """
    pipeline, module, counts = runs.pipeline, runs.module, settings.whole_counts
    pipeline.transformer.requires_grad_(False)

    def loss(generator: torch.Generator) -> torch.Tensor:
        steps = counts[int(torch.randint(len(counts), (), generator=generator))]
        rows = share(torch.randint(len(data.states), (settings.whole_batch,), generator=generator))
        return error(runs.ends(steps, data, rows), data.states[rows, -1].to(pipeline.device))

    lean = checkpointed(pipeline.transformer) if settings.gradient_checkpointing else nullcontext()
    with explicit_attention(pipeline.transformer, module), lean:
        return fit(runs, loss, training, checkpoint, "whole runs")


def recombined(prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` captions of two or three words, each drawn from all words of ``prompts``."""
    words = sorted({word for prompt in prompts for word in prompt.split()})
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.choice((2, 3)))) for _ in range(count)]


def whole_plan(steps: int) -> TrainSettings:
    """How ``steps`` of this training go."""
    return TrainSettings(steps, lr=2e-4, warmup=min(20, steps // 10), ema=0.98, checkpoint_every=25)


def train_all(
    pipeline: Pipeline,
    data: Trajectories,
    prompts: Sequence[str],
    seed: int,
    settings: IlfSettings,
    training: TrainSettings,
    checkpoint: Path,
) -> tuple[FeedbackModule, TrainRecord]:
    """:func:`train_module`, and what the settings ask for after it: whole runs by their latents, then by their images.

    Resumes in any of the three. Noise of ``seed`` and ``seed + 1`` is used.
    """
    module, made = train_module(pipeline, data, prompts, seed, settings, training, checkpoint)
    if not settings.whole_runs and not settings.image_runs:
        return module, made
    runs = WholeRuns(pipeline, module.requires_grad_(True), settings.whole_counts).to(pipeline.device)
    if settings.whole_runs:
        plan, store = whole_plan(settings.whole_runs), checkpoint.with_suffix(".whole.pt")
        made = made.followed_by(train_whole_runs(runs, data, settings, plan, store, latent_error))
    if settings.image_runs:
        plain = settings.image_targets - settings.recombined
        texts = [*(prompts[i % len(prompts)] for i in range(plain)), *recombined(prompts, settings.recombined, seed + 1)]
        fine = fine_runs(pipeline, texts, seed + 1, checkpoint.with_suffix(".fine.pt"))
        plan, store = whole_plan(settings.image_runs), checkpoint.with_suffix(".images.pt")
        last = train_whole_runs(runs, fine, settings, plan, store, image_error(pipeline))
        made = made.followed_by(replace(last, seconds=last.seconds + fine.seconds))
    runs.keep_solvers()
    return module, made
