"""Learning the solvers of :class:`baselines.learned.bespoke.Bespoke`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from baselines.learned.bespoke import FILE, NAME
from harness.sampling.clock import StepClock
from harness.sampling.grids import whole_grid
from harness.storage.records import write_json
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit, share
from harness.training.learned_solver import (
    Error,
    LearnedSolver,
    converged_trajectories,
    decodes_plainly,
    final_latents,
    image_error,
    latent_error,
    starting_as,
)
from harness.training.trajectories import Trajectories, recorded

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class BespokeSettings:
    """One solver for each of ``grids``: by ``training`` from the latents of ``runs`` converged runs of 40 steps, and then by
    ``images`` from the images of as many finer ones, where latents can be decoded plainly. Noise of ``seed`` (below 1000) and the
    next; ``at_once`` runs are sampled at once. Guidance terms are learned where guidance is linear in both branches. A solver
    starts as ``initial_solver`` on the timesteps of ``power``; ``unipc`` takes free timesteps with flow matching alone."""

    training: TrainSettings
    images: TrainSettings
    grids: tuple[int, ...] = (5, 6, 8, 10)
    runs: int = 1024
    batch: int = 32
    power: float = 1.5
    seed: int = 1
    at_once: int = 64
    initial_solver: Literal["dpm++", "unipc"] = "dpm++"


def build_solvers(settings: BespokeSettings, pipeline: Pipeline, prompts: Sequence[str], folder: Path, checkpoint: Path) -> None:
    """Learn the solvers and write ``solvers.json`` with what they cost."""
    texts = [prompts[i % len(prompts)] for i in range(settings.runs)]
    key = repr((texts, settings.seed, settings.power, pipeline.guidance.scale))
    shift, initial = pipeline.backbone.shift, settings.initial_solver
    solvers = {
        n: starting_as(initial, pipeline, whole_grid(n, settings.power, shift)).to(pipeline.device) for n in settings.grids
    }
    grid = whole_grid(40, settings.power, shift)
    data = recorded(checkpoint.with_suffix(".runs.pt"), key, pipeline, texts, settings.seed, grid, settings.at_once)
    stages: list[tuple[str, TrainSettings, Trajectories, Error]] = [("pt", settings.training, data, latent_error)]
    if decodes_plainly(pipeline):
        fine = converged_trajectories(pipeline, texts, settings.seed + 1, checkpoint.with_suffix(".fine.pt"), settings.at_once)
        stages.append(("images.pt", settings.images, fine, image_error(pipeline)))
    seconds, tables = sum(runs.seconds for _, _, runs, _ in stages), {}
    pipeline.transformer.requires_grad_(False)
    for steps, solver in solvers.items():
        for suffix, training, runs, error in stages:
            store = checkpoint.with_suffix(f".{steps}.{suffix}")
            trained = _train(solver, pipeline, runs, settings.batch, training, store, error)
            seconds += trained.seconds
        tables[str(steps)] = solver.table().content()
    content = {"guidance": pipeline.guidance.scale, "tables": tables, "seconds": seconds, "device": trained.machine}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, content)


def _train(
    solver: LearnedSolver,
    pipeline: Pipeline,
    data: Trajectories,
    batch: int,
    training: TrainSettings,
    checkpoint: Path,
    error: Error,
) -> TrainRecord:
    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = share(torch.randint(len(data.states), (batch,), generator=generator))
        return error(final_latents(solver, pipeline, data, rows, StepClock()), data.states[rows, -1].to(pipeline.device))

    with explicit_attention(pipeline.transformer):
        return fit(solver, loss, training, checkpoint, f"{NAME} {solver.steps} steps")
