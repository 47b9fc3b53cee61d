"""A solver learned for one model at each step count (Shaul et al. 2024, arXiv 2403.01329): no network is changed or added.

Trained end to end on noise and the converged images of the same noise; see
:class:`harness.training.learned_solver.LearnedSolver`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from baselines.learned.folder import learned_folder
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.models.reading import reading
from harness.results import UpfrontCost
from harness.sampling.clock import StepClock
from harness.sampling.pipeline import Pipeline
from harness.sampling.schedulers.bespoke import LEARNED, SolverTable
from harness.sampling.solvers import power_grid
from harness.storage.records import read_json, write_json
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit, share
from harness.training.learned_solver import Error, LearnedSolver, converged_trajectories, final_latents, image_error, latent_error
from harness.training.trajectories import Trajectories, recorded

NAME, FILE = LEARNED, "solvers.json"


@dataclass(frozen=True)
class Bespoke:
    """The learned solver of ``steps`` steps. ``solvers``: a folder with solvers.json (default: ``bespoke`` in the pipeline's)."""

    steps: int = 8
    solvers: str | None = None

    @property
    def label(self) -> str:
        """For example ``bespoke(8 steps)``."""
        own = f", {Path(self.solvers).name}" if self.solvers else ""
        return f"{NAME}({self.steps} steps{own})"

    def plan(self, plan: Plan) -> Plan:
        """The cost of one step, ``steps`` times."""
        table = self.table(plan.backbone.folder, plan.guidance.scale)
        return plan.scheduled((plan.step_cost,) * self.steps, NAME, table.timesteps)

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """The seconds of training; its few coefficients are no parameters of a network."""
        content = self._read(backbone.folder)
        with reading("the seconds of a training", "train again"):
            return UpfrontCost(float(content["seconds"]), 0)

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Run on the learned solver inside the context."""
        return pipeline.sampling(table=self.table(pipeline.folder, pipeline.guidance.scale))

    def table(self, pipeline_folder: Path | None, guidance: float) -> SolverTable:
        """Raises :class:`UsageError` for step counts and guidance scales that none was learned for."""
        content = self._read(pipeline_folder)
        with reading("solvers as the training writes them", "train again"):
            counts, trained = ", ".join(sorted(content["tables"], key=len)), float(content["guidance"])
            if str(self.steps) in content["tables"] and guidance == trained:
                return SolverTable.read(content["tables"][str(self.steps)])
        raise UsageError(
            expected=f"{counts} steps at guidance {trained:g}, for which one was learned",
            got=f"{self.steps} steps at guidance {guidance:g}",
            remedy="choose one of these, or train others",
        )

    def _read(self, pipeline_folder: Path | None) -> dict[str, Any]:
        folder = learned_folder(self.solvers, pipeline_folder, NAME, "solvers", FILE, "learned solvers")
        content: dict[str, Any] = read_json(folder / FILE)
        return content


@dataclass(frozen=True)
class BespokeSettings:
    """One solver for each of ``grids``: by ``training`` from the latents of ``runs`` converged runs of 40 steps, and then by
    ``images`` from the images of as many finer ones. Noise of ``seed`` (below 1000) and the next."""

    training: TrainSettings
    images: TrainSettings
    grids: tuple[int, ...] = (5, 6, 8, 10)
    runs: int = 1024
    batch: int = 32
    power: float = 1.5
    seed: int = 1


def build_solvers(settings: BespokeSettings, pipeline: Pipeline, prompts: Sequence[str], folder: Path, checkpoint: Path) -> None:
    """Learn the solvers and write ``solvers.json`` with what they cost."""
    texts = [prompts[i % len(prompts)] for i in range(settings.runs)]
    key = repr((texts, settings.seed, settings.power, pipeline.guidance.scale))
    grid = power_grid(40, settings.power)
    data = recorded(checkpoint.with_suffix(".runs.pt"), key, pipeline, texts, settings.seed, grid)
    fine = converged_trajectories(pipeline, texts, settings.seed + 1, checkpoint.with_suffix(".fine.pt"))
    seconds, tables = data.seconds + fine.seconds, {}
    pipeline.transformer.requires_grad_(False)
    stages = (("pt", settings.training, data, latent_error), ("images.pt", settings.images, fine, image_error(pipeline)))
    for steps in settings.grids:
        solver = LearnedSolver(steps, settings.power, pipeline.pipe.scheduler.alphas_cumprod).to(pipeline.device)
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
