"""Recipes of the learned and searched rivals, on the bundled models: training prompts, seeds below 1000, minutes each."""

from __future__ import annotations

from pathlib import Path

from baselines.learned.train import train_method
from zoo.recipes.cards import write_card
from zoo.recipes.ilf import DIT, PIXART, teacher, training_prompts

MODELS = {recipe.model: recipe for recipe in (DIT, PIXART)}


def build_rival(method: str, model: str, work: Path, out: Path) -> None:
    """Train or search ``method`` on ``model`` and save it in the pipeline's folder, under the method's name."""
    pipeline = teacher(MODELS[model].preset, out / model)
    prompts = training_prompts(MODELS[model], pipeline)
    train_method(method, pipeline, prompts, out / model / method, work / f"{method}-{model}.pt")
    write_card(out / model)
