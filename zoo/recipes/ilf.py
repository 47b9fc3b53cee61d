"""Recipes of the bundled ILF modules: ours, the paper's form, and the adapter without a loop that it is compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.spec import ExperimentSpec, load_spec
from harness.models.loading import load_pipeline
from harness.sampling.pipeline import Pipeline
from harness.storage.files import write_bytes
from harness.training.trajectories import Trajectories
from ilf.end_to_end import train_all
from ilf.settings import IlfSettings
from ilf.teacher import teacher_trajectories


@dataclass(frozen=True)
class IlfRecipe:
    """A module for a bundled ``model``, trained by ``settings`` on captions of the file ``prompts``, and saved under its name."""

    preset: str
    model: str
    prompts: str
    settings: IlfSettings


OURS = IlfSettings(loop=(12, 12), trajectories=8192, runs=256, end_to_end_steps=3200, end_to_end_grids=(5, 6, 7, 8, 9, 10))
PIXART = IlfRecipe(
    "tiny-text",
    "tiny-pixart",
    "zoo/tiny-pixart/prompts-train.txt",
    replace(OURS, image_steps=2600, image_targets=8192, recombined=6144),
)
DIT = IlfRecipe("tiny-class", "tiny-dit", "zoo/tiny-dit/prompts-all.txt", replace(OURS, image_steps=2200, image_targets=5120))
FLOW = IlfRecipe(
    "tiny-flow",
    "tiny-sd3",
    "zoo/tiny-sd3/prompts-train.txt",
    IlfSettings(  # end to end from the start, from the solver and the spacing that are best here without training
        loop=(12, 12),
        power=1.0,
        initial_solver="unipc",
        trajectories=2048,
        grids=(6, 8, 10, 12),
        optimiser_steps=0,
        rounds=1,
        runs=1,
        end_to_end_steps=700,
        end_to_end_lr=1e-3,
    ),
)
PAPER = IlfSettings.of(
    {"form": "paper", "loop": (4, 9), "grids": (10,), "steps": 10, "runs": 256, "trajectories": 512, "optimiser_steps": 800}
)


def variants(recipe: IlfRecipe) -> dict[str, IlfRecipe]:
    """``ilf`` is ours; ``ilf-paper`` the paper's form at its setting, after some minutes of training; ``ilf-adapter`` ours
    without a second pass, trained alike."""
    ours = recipe.settings
    return {
        "ilf": recipe,
        "ilf-adapter": replace(recipe, settings=replace(ours, inner_pass=False)),
        "ilf-paper": replace(recipe, settings=PAPER),
    }


RECIPES = {f"{recipe.model}/{name}": variant for recipe in (PIXART, DIT, FLOW) for name, variant in variants(recipe).items()}


def teacher(preset: str, folder: Path) -> Pipeline:
    """The pipeline of a preset, loaded from ``folder``."""
    content = load_spec(preset).model_dump() | {"pipeline": str(folder)}
    return load_pipeline(ExperimentSpec(**content))


def training_prompts(recipe: IlfRecipe, pipeline: Pipeline) -> list[str]:
    """The captions that a module may learn from."""
    return (pipeline.folder or Path()).joinpath(Path(recipe.prompts).name).read_text(encoding="utf-8").splitlines()


def trajectories(recipe: IlfRecipe, pipeline: Pipeline, store: Path) -> Trajectories:
    """The teacher's runs, recorded once and kept in ``store``."""
    return teacher_trajectories(store, recipe.prompts, pipeline, training_prompts(recipe, pipeline), recipe.settings)


def build_ilf(name: str, work: Path, out: Path) -> None:
    """Train one of ``RECIPES`` and save it inside the pipeline's folder."""
    recipe = RECIPES[name]
    pipeline = teacher(recipe.preset, out / recipe.model)
    settings = recipe.settings
    grid = f"{settings.trajectories}-{settings.power:g}-{'-'.join(map(str, settings.grids))}"
    data = trajectories(recipe, pipeline, work / f"trajectories-{recipe.model}-{grid}.pt")
    prompts = training_prompts(recipe, pipeline)
    checkpoint = work / f"{name.replace('/', '-')}.pt"
    module, training = train_all(pipeline, data, prompts, settings, checkpoint)
    folder = out / name
    module.save_pretrained(folder)  # in half precision some 5% of its gain would be lost
    training.save(folder / "training.json")
    write_bytes(folder / "recipe.json", (json.dumps({"prompts": recipe.prompts}, indent=1) + "\n").encode())
