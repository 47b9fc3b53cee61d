"""Recipes of the learned and searched rivals, on the bundled models: training prompts, seeds below 1000, minutes each."""

from __future__ import annotations

from pathlib import Path

from baselines.learned import train_method
from zoo.cards import write_card
from zoo.recipe_ilf import RECIPES, teacher

MODELS = ("tiny-dit", "tiny-pixart")


def build_rival(method: str, model: str, work: Path, out: Path) -> None:
    """Train or search ``method`` on ``model`` and save it in the pipeline's folder, under the method's name."""
    recipe = RECIPES[model]
    prompts = (out / model / Path(recipe.prompts).name).read_text().splitlines()
    train_method(method, teacher(recipe.preset, out / model), prompts, out / model / method, work / f"{method}-{model}.pt")
    write_card(out / model)
