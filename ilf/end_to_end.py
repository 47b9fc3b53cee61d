"""End-to-end training: a module, and a solver for each step count, by gradient through full trajectories of few steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.models.reading import read_seconds
from harness.sampling.clock import StepClock
from harness.sampling.process import Process
from harness.sampling.schedulers.solver_table import SolverTable
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit, share
from harness.training.learned_solver import (
    Error,
    LearnedSolver,
    converged_trajectories,
    final_latents,
    image_error,
    latent_error,
    starting_as,
)
from harness.training.trajectories import Trajectories
from ilf.attach import feedback_attached
from ilf.checkpoint import find_checkpoint, read_settings
from ilf.module import FeedbackModule
from ilf.settings import IlfSettings
from ilf.train import checkpointed, seeded_module, train_module

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


class EndToEnd(nn.Module):
    """The module and one :class:`LearnedSolver` per step count, from what the module started from: what is trained together."""

    def __init__(self, pipeline: Pipeline, module: FeedbackModule, grids: Sequence[int]) -> None:
        super().__init__()
        self.pipeline, self.module = pipeline, module
        start = module.settings.start
        known = read_settings(find_checkpoint(start, pipeline.folder))[1] if start else {}
        process, terms = Process.of(pipeline.pipe.scheduler), pipeline.guidance.is_linear
        self.solvers = nn.ModuleDict()
        for n in grids:
            if str(n) in known:
                table = SolverTable.read(known[str(n)])
                self.solvers[str(n)] = LearnedSolver(process, table.timesteps, terms, table)
            else:
                self.solvers[str(n)] = starting_as(module.settings.initial_solver, pipeline, module.settings.timesteps(n))

    def solver(self, steps: int) -> LearnedSolver:
        """The one for a step count."""
        solver = self.solvers[str(steps)]
        assert isinstance(solver, LearnedSolver)
        return solver

    def ends(self, steps: int, data: Trajectories, rows: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, H, W] that ``steps`` steps reach from the noise of trajectories ``rows`` (int64 [B])."""
        pipeline, solver, clock = self.pipeline, self.solver(steps), StepClock()
        clock.timesteps = tuple(solver.timesteps().tolist())
        schedule = replace(self.module.schedule(steps), timesteps=tuple(int(t) for t in clock.timesteps))
        attached = feedback_attached(
            pipeline.transformer, pipeline.family, self.module, lambda: schedule, clock, pipeline.guidance
        )
        with attached:
            return final_latents(solver, pipeline, data, rows, clock)

    def keep_solvers(self) -> None:
        """Put what was learned into the module's configuration."""
        tables: dict[str, Any] = {count: self.solver(int(count)).table().content() for count in self.solvers}
        self.module.register_to_config(solvers=tables)


def train_end_to_end(
    student: EndToEnd, data: Trajectories, settings: IlfSettings, training: TrainSettings, checkpoint: Path, error: Error
) -> TrainRecord:
    """Train a module and its solvers further, so that their trajectories end where the teacher's do.

    Each optimiser step takes one step count of ``settings.end_to_end_counts`` and ``settings.end_to_end_batch`` trajectories.
    """
    pipeline, module, counts = student.pipeline, student.module, settings.end_to_end_counts
    pipeline.transformer.requires_grad_(False)

    def loss(generator: torch.Generator) -> torch.Tensor:
        steps = counts[int(torch.randint(len(counts), (), generator=generator))]
        rows = share(torch.randint(len(data.states), (settings.end_to_end_batch,), generator=generator))
        return error(student.ends(steps, data, rows), data.states[rows, -1].to(pipeline.device))

    lean = checkpointed(pipeline.blocks) if settings.gradient_checkpointing else nullcontext()
    with explicit_attention(pipeline.transformer, module), lean:
        return fit(student, loss, training, checkpoint, "end-to-end")


def recombined(prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` captions of two or three words, each drawn from all words of ``prompts``."""
    words = sorted({word for prompt in prompts for word in prompt.split()})
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.choice((2, 3)))) for _ in range(count)]


def end_to_end_optimisation(steps: int, settings: IlfSettings) -> TrainSettings:
    """The optimisation of ``steps`` steps of end-to-end training."""
    warmup = min(20, steps // 10)
    return TrainSettings(steps, settings.end_to_end_lr, warmup, ema=0.98, checkpoint_every=25, seed=settings.seed)


def train_all(
    pipeline: Pipeline,
    data: Trajectories,
    prompts: Sequence[str],
    settings: IlfSettings,
    checkpoint: Path,
    training: TrainSettings | None = None,
    sampled: int = 64,
) -> tuple[FeedbackModule, TrainRecord]:
    """:func:`train_module`, then the end-to-end training that the settings ask for: by final latents, then by decoded images.

    A stage of 0 steps is left out. Resumes in any of the three. Uses noise of ``settings.seed`` and the next seed. At most
    ``sampled`` images are sampled at once. The record of a training that started from a module has that one's seconds as well.
    """
    module, made = _train_stages(pipeline, data, prompts, settings, checkpoint, training, sampled)
    if settings.start is None:
        return module, made
    folder = find_checkpoint(settings.start, pipeline.folder)
    module.reschedule(start=folder.name)
    return module, replace(made, seconds=made.seconds + read_seconds(folder / "training.json"))


def _train_stages(
    pipeline: Pipeline,
    data: Trajectories,
    prompts: Sequence[str],
    settings: IlfSettings,
    checkpoint: Path,
    training: TrainSettings | None,
    sampled: int,
) -> tuple[FeedbackModule, TrainRecord]:
    by_images = image_error(pipeline) if settings.image_steps else latent_error  # raises before anything is trained
    stages = []
    if settings.optimiser_steps:
        module, made = train_module(pipeline, data, prompts, settings, checkpoint, training, sampled)
        stages.append(made)
    else:
        module = seeded_module(pipeline, settings, settings.seed)
    if not settings.end_to_end_steps and not settings.image_steps:
        return module, made
    student = EndToEnd(pipeline, module.requires_grad_(True), settings.end_to_end_counts).to(pipeline.device)
    if settings.end_to_end_steps:
        plan, store = end_to_end_optimisation(settings.end_to_end_steps, settings), checkpoint.with_suffix(".end-to-end.pt")
        made = train_end_to_end(student, data, settings, plan, store, latent_error)
        stages.append(made if stages else replace(made, seconds=made.seconds + data.seconds))
    if settings.image_steps:
        seed, plain = settings.seed + 1, settings.image_targets - settings.recombined
        texts = [*(prompts[i % len(prompts)] for i in range(plain)), *recombined(prompts, settings.recombined, seed)]
        fine = converged_trajectories(pipeline, texts, seed, checkpoint.with_suffix(".converged.pt"), sampled)
        plan, store = end_to_end_optimisation(settings.image_steps, settings), checkpoint.with_suffix(".images.pt")
        last = train_end_to_end(student, fine, settings, plan, store, by_images)
        stages.append(replace(last, seconds=last.seconds + fine.seconds))
    student.keep_solvers()
    return module, reduce(TrainRecord.followed_by, stages)
