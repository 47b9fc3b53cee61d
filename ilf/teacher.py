"""The teacher's trajectories that a training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.sampling.pipeline import Pipeline
from harness.training.learned_solver import CONVERGED_GRID, converged_trajectories
from harness.training.trajectories import Trajectories, recorded, union_grid
from ilf.settings import IlfSettings


def teacher_grid(settings: IlfSettings) -> tuple[int, ...]:
    """Its timesteps: of all step counts and between, or of converged sampling where no single transition is trained."""
    return union_grid(settings.grids, settings.power, shift=settings.shift) if settings.optimiser_steps else CONVERGED_GRID


def teacher_trajectories(
    store: Path, key: object, pipeline: Pipeline, prompts: Sequence[str], settings: IlfSettings, batch: int = 64
) -> Trajectories:
    """As many as ``settings`` say, on ``prompts`` in turn, recorded once in ``store`` under ``key`` and what they depend on.

    Where no single transition is trained, they are :func:`converged_trajectories`. ``batch`` of them are sampled at once.
    """
    texts = [prompts[i % len(prompts)] for i in range(settings.trajectories)]
    if not settings.optimiser_steps:
        return converged_trajectories(pipeline, texts, settings.seed, store, batch)
    grid = teacher_grid(settings)
    whole = repr((key, settings.trajectories, grid, settings.seed, *pipeline.guidance.scales))
    return recorded(store, whole, pipeline, texts, settings.seed, grid, batch)
