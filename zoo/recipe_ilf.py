"""Recipes of the bundled ILF modules: guidance folded, jumps along the teacher's converged guided trajectories."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.errors import ArtifactError
from harness.loading import load_pipeline
from harness.pipeline import Pipeline
from harness.spec import ExperimentSpec, load_spec
from harness.training import TrainSettings
from ilf.train import IlfSettings, train_module
from ilf.trajectories import Trajectories, record

TRAIN_SEED = 0  # presets judge on seed 1000 and above


@dataclass(frozen=True)
class IlfRecipe:
    """``trajectories`` teacher runs, then ``training.steps`` steps on them."""

    preset: str
    prompts: str
    trajectories: int
    ilf: IlfSettings
    training: TrainSettings


RECIPES = {
    "tiny-dit": IlfRecipe(
        "tiny-class", "zoo/tiny-dit/prompts-all.txt", 3000,
        IlfSettings(loop=(4, 9), grids=(6, 8, 10, 12), steps=10),
        TrainSettings(steps=4000, lr=2e-3, warmup=200, ema=0.999),
    ),
    "tiny-pixart": IlfRecipe(
        "tiny-text", "zoo/tiny-pixart/prompts-train.txt", 3000,
        IlfSettings(loop=(4, 9), grids=(6, 8, 10, 12), steps=10),
        TrainSettings(steps=8000, lr=2e-3, warmup=200, ema=0.999),
    ),
}  # fmt: skip


def teacher(preset: str, folder: Path) -> Pipeline:
    """The pipeline of a preset, loaded from ``folder``."""
    content = load_spec(preset).model_dump() | {"pipeline": str(folder)}
    return load_pipeline(ExperimentSpec(**content))


def trajectories(recipe: IlfRecipe, pipeline: Pipeline, store: Path) -> Trajectories:
    """Recorded once and kept on disk, with what they were recorded for. Raises :class:`ArtifactError` on another recipe's."""
    key = repr((recipe.prompts, recipe.trajectories, recipe.ilf.grids, TRAIN_SEED, pipeline.guidance))
    if store.exists():
        stored = torch.load(store, weights_only=True)
        if stored.pop("key", None) != key:
            raise ArtifactError(expected=f"trajectories of {key} in {store}", got="another recipe's", remedy="delete that file")
        return Trajectories(**stored)
    prompts = (pipeline.folder or Path()).joinpath(Path(recipe.prompts).name).read_text().splitlines()
    chosen = [prompts[i % len(prompts)] for i in range(recipe.trajectories)]
    data = record(pipeline, chosen, TRAIN_SEED, recipe.ilf.grids)
    store.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"key": key, "timesteps": data.timesteps, "states": data.states, "conditioning": data.conditioning}, store)
    return data


def build_ilf(name: str, work: Path, out: Path) -> None:
    """Train the module of ``tiny-dit`` or ``tiny-pixart`` and save it as ``ilf`` inside the pipeline's folder."""
    recipe = RECIPES[name]
    pipeline = teacher(recipe.preset, out / name)
    data = trajectories(recipe, pipeline, work / f"trajectories-{name}.pt")
    module, training = train_module(pipeline, data, recipe.ilf, recipe.training, work / f"ilf-{name}.pt")
    folder = out / name / "ilf"
    module.half().save_pretrained(folder)
    training.save(folder / "training.json")
    (folder / "recipe.json").write_text(
        json.dumps({"trajectories": recipe.trajectories, "prompts": recipe.prompts}, indent=1) + "\n"
    )
