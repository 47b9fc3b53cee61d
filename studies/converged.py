"""Errors of a model's methods to the converged sample of the same noise (100 steps, float32), which several studies share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch

from harness.config.spec import ExperimentSpec, load_spec
from harness.models.loading import load_pipeline
from harness.paths import ROOT
from harness.results import FloatArray
from harness.sampling.grids import power_grid
from harness.sampling.pipeline import Pipeline
from harness.training.learned_solver import CONVERGED_GRID, rms_distance
from harness.training.states import read_state, write_state
from harness.training.trajectories import Recorder
from ilf.attach import running
from ilf.module import FeedbackModule
from metrics.context import MetricContext
from studies.loop_forms import MODELS

ERRORS = {"latent": 4, "rmse": 2, "distance": 3, "judge": 3}  # and decimals
EVALUATED, EVALUATION_SEED, BATCH = 256, 2000, 64


def held_out(model: str, pipeline: Pipeline) -> list[str]:
    """As many captions as are evaluated, none of which was trained on (classes: all of them, in turn)."""
    assert pipeline.folder is not None
    lines = (pipeline.folder / MODELS[model].held_out).read_text(encoding="utf-8").splitlines()
    return [lines[i % len(lines)] for i in range(EVALUATED)]


def ends(pipeline: Pipeline, prompts: Sequence[str], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents float32 [N, C, H, W] and images uint8 [N, 3, H, W] that the pipeline reaches from noise (seed, i)."""
    latents, images = [], []
    for start in range(0, len(prompts), BATCH):
        rows = range(start, min(start + BATCH, len(prompts)))
        recorder = Recorder(pipeline, len(rows))
        with recorder.recording(), torch.no_grad():
            images.append(pipeline.generate([prompts[i] for i in rows], seed, rows))
        latents.append(recorder.states[-1])
    return torch.cat(latents), torch.cat(images)


class Judge:
    """What the errors of a model's trainings are measured with, and the converged samples of a seed, made once."""

    def __init__(self, model: str, work: Path) -> None:
        found = MODELS[model]
        spec = load_spec(found.recipe.preset).model_dump() | {"precision": "fp32", "batch": BATCH, "pipeline": str(found.folder)}
        self.pipeline = load_pipeline(ExperimentSpec(**spec))
        self.prompts, self.work = held_out(model, self.pipeline), work
        self.context = MetricContext(ROOT / "zoo" / "scorers", self.pipeline.family.task)
        self.work.mkdir(parents=True, exist_ok=True)

    @cache  # noqa: B019
    def converged(self, seed: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Latents, images and features of 100 steps."""
        kept = self.work / f"converged-{seed}.pt"
        if not kept.exists():
            with self.pipeline.sampling(timesteps=CONVERGED_GRID, solver="dpm++"):
                latents, images = ends(self.pipeline, self.prompts, EVALUATION_SEED + seed)
            write_state(kept, {"latents": latents, "images": images})
        found = read_state(kept)
        return found["latents"], found["images"], self.features(found["images"])

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Our features and EfficientNet's [N, D] of images uint8 [N, 3, H, W]."""
        return {"distance": self.context.networks.fidelity_features(images), "judge": self.context.judge(images)}

    def per_image(self, seed: int, method: AbstractContextManager[None]) -> tuple[float, dict[str, FloatArray]]:
        """Block evaluations per image of the pipeline inside ``method``, and each image's errors [N]."""
        targets, true, features = self.converged(seed)
        with self.pipeline.counting() as counter, method:
            latents, images = ends(self.pipeline, self.prompts, EVALUATION_SEED + seed)
        squared = (images.float() - true.float()).square().flatten(1).mean(dim=1)
        found = {"latent": rms_distance(latents, targets), "rmse": squared.sqrt()}
        found |= {name: (own - features[name]).norm(dim=-1) for name, own in self.features(images).items()}
        return counter.rows / len(images), {name: values.double().numpy() for name, values in found.items()}

    def errors(self, seed: int, method: AbstractContextManager[None]) -> dict[str, float]:
        """Mean errors of the pipeline inside ``method``, and its block evaluations per image."""
        blocks, found = self.per_image(seed, method)
        return {"blocks": blocks} | {name: float(values.mean()) for name, values in found.items()}

    def plain(self, steps: int, power: float, solver: str) -> AbstractContextManager[None]:
        """Plain steps of a solver on power-spaced timesteps."""
        return self.pipeline.sampling(timesteps=power_grid(steps, power, shift=self.pipeline.backbone.shift), solver=solver)

    def module(self, module: FeedbackModule, steps: int, feedback: str | None = None) -> AbstractContextManager[None]:
        """A trained module at a step count, with its own feedback or another."""
        module = module.to(next(self.pipeline.transformer.parameters()).dtype).requires_grad_(False)
        return running(self.pipeline, module, module.schedule(steps, feedback))
