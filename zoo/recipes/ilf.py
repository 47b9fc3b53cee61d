"""Recipes of the bundled ILF modules: ours, the paper's form, and the adapter without a loop that it is compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.spec import ExperimentSpec, load_spec
from harness.models.loading import load_pipeline
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings
from harness.training.trajectories import Trajectories, record, stored, union_grid
from ilf.train import IlfSettings, paper_form
from ilf.whole_run import train_all

TRAIN_SEED = 0  # presets judge on seed 1000 and above


@dataclass(frozen=True)
class IlfRecipe:
    """``trajectories`` teacher runs on ``prompts``, then a module by ``ilf`` and ``training``, saved under its name."""

    preset: str
    model: str
    prompts: str
    trajectories: int
    ilf: IlfSettings
    training: TrainSettings


OURS = IlfSettings(
    loop=(12, 12), grids=(5, 6, 8, 10), steps=8, power=1.5, rounds=16, runs=256, whole_runs=3200, whole_grids=(5, 6, 7, 8, 9, 10)
)
TRAINING = TrainSettings(steps=8000, lr=2e-3, warmup=100, ema=0.998, checkpoint_every=250)
PIXART = IlfRecipe(
    "tiny-text",
    "tiny-pixart",
    "zoo/tiny-pixart/prompts-train.txt",
    8192,
    replace(OURS, image_runs=2600, image_targets=8192, recombined=6144),
    TRAINING,
)
DIT = IlfRecipe(
    "tiny-class", "tiny-dit", "zoo/tiny-dit/prompts-all.txt", 8192, replace(OURS, image_runs=2200, image_targets=5120), TRAINING
)


def variants(recipe: IlfRecipe) -> dict[str, IlfRecipe]:
    """``ilf`` is ours; ``ilf-paper`` the paper's form at its setting; ``ilf-adapter`` ours without a second pass, trained
    alike; ``ilf-jumps`` ours before end-to-end training."""
    paper = paper_form((4, 9), (10,), 10)
    return {
        "ilf": recipe,
        "ilf-jumps": replace(recipe, ilf=replace(recipe.ilf, whole_runs=0, image_runs=0)),
        "ilf-adapter": replace(recipe, ilf=replace(recipe.ilf, inner_pass=False)),
        "ilf-paper": replace(recipe, ilf=paper),
    }


RECIPES = {f"{recipe.model}/{name}": variant for recipe in (PIXART, DIT) for name, variant in variants(recipe).items()}


def teacher(preset: str, folder: Path) -> Pipeline:
    """The pipeline of a preset, loaded from ``folder``."""
    content = load_spec(preset).model_dump() | {"pipeline": str(folder)}
    return load_pipeline(ExperimentSpec(**content))


def training_prompts(recipe: IlfRecipe, pipeline: Pipeline) -> list[str]:
    """The captions that a module may learn from."""
    return (pipeline.folder or Path()).joinpath(Path(recipe.prompts).name).read_text().splitlines()


def trajectories(recipe: IlfRecipe, pipeline: Pipeline, store: Path) -> Trajectories:
    """The teacher's runs, recorded once and kept in ``store``."""
    grid = union_grid(recipe.ilf.grids, recipe.ilf.power, widest_gap=40)
    prompts = training_prompts(recipe, pipeline)
    chosen = [prompts[i % len(prompts)] for i in range(recipe.trajectories)]
    key = repr((recipe.prompts, recipe.trajectories, grid, TRAIN_SEED, pipeline.guidance))
    return stored(store, key, lambda: record(pipeline, chosen, TRAIN_SEED, grid))


def build_ilf(name: str, work: Path, out: Path) -> None:
    """Train one of ``RECIPES`` and save it inside the pipeline's folder."""
    recipe = RECIPES[name]
    pipeline = teacher(recipe.preset, out / recipe.model)
    power = f"{recipe.ilf.power:g}-{'-'.join(map(str, recipe.ilf.grids))}"
    data = trajectories(recipe, pipeline, work / f"trajectories-{recipe.model}-{power}.pt")
    prompts = training_prompts(recipe, pipeline)
    checkpoint = work / f"{name.replace('/', '-')}.pt"
    module, training = train_all(pipeline, data, prompts, TRAIN_SEED, recipe.ilf, recipe.training, checkpoint)
    folder = out / name
    module.save_pretrained(folder)  # in half precision it would lose some 5% of what it has won
    training.save(folder / "training.json")
    content = {"trajectories": recipe.trajectories, "prompts": recipe.prompts}
    (folder / "recipe.json").write_text(json.dumps(content, indent=1) + "\n")
