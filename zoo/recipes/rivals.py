"""Recipes of the learned and searched rivals, on the bundled models: training prompts, seeds below 1000, minutes each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from baselines.learned.train import TRAININGS, Train
from baselines.learned.train_bespoke import BespokeSettings, build_solvers
from harness.training.fit import TrainSettings
from zoo.recipes.cards import write_card
from zoo.recipes.ilf import DIT, FLOW, PIXART, teacher, training_prompts

MODELS = {recipe.model: recipe for recipe in (DIT, PIXART, FLOW)}
_SOLVER = partial(TrainSettings, steps=50, warmup=10, ema=0.95, checkpoint_every=10)
_SHORT = BespokeSettings(_SOLVER(lr=1e-3), _SOLVER(lr=4e-4), grids=(6,), runs=256, batch=16, power=1.0, initial_solver="unipc")
OWN: dict[tuple[str, str], Train] = {("bespoke", FLOW.model): partial(build_solvers, _SHORT)}  # in place of the default settings


def build_rival(method: str, model: str, work: Path, out: Path) -> None:
    """Train or search ``method`` on ``model`` and save it in the pipeline's folder, under the method's name."""
    pipeline = teacher(MODELS[model].preset, out / model)
    prompts = training_prompts(MODELS[model], pipeline)
    train = OWN.get((method, model), TRAININGS[method])
    train(pipeline, prompts, out / model / method, work / f"{method}-{model}.pt")
    write_card(out / model)
