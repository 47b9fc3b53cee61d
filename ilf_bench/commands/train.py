"""``ilf-bench train``: a feedback module for the pipeline of a preset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ilf_bench.console import console, print_line
from ilf_bench.options import WRITTEN, ModelOptions, given, split


@dataclass(frozen=True)
class TrainOptions(ModelOptions):
    """The model, and fields of a preset's ``training``; None leaves what the preset says."""

    form: Annotated[
        str | None,
        typer.Option(help="ours, adapter (no second pass), short (adapter for one step count), partial (steps) or paper."),
    ] = None
    trajectories: Annotated[int | None, typer.Option(help="Trajectories of the teacher, recorded once.")] = None
    steps: Annotated[int | None, typer.Option(help="Optimizer steps on single transitions.")] = None
    batch: Annotated[int | None, typer.Option(help="Transitions per optimizer step, over all processes together.")] = None
    rounds: Annotated[int | None, typer.Option(help="How often the module's own trajectories are collected.")] = None
    grids: Annotated[str | None, typer.Option(help="Step counts to train for, comma-separated.")] = None
    guidance_distilled: Annotated[
        str | None, typer.Option(help="Steps on which the module stands for guidance as well: none, all, first-4, above-700.")
    ] = None
    budget: Annotated[
        float | None, typer.Option(help="Afterwards, search the best schedule within this many block evaluations per image.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of noise and training; must differ from the preset's.")] = None
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations in the backward pass: less memory, more time.")
    ] = False

    def values(self) -> dict[str, Any]:
        """The fields of a preset that these options replace, those of its ``training`` among them, but for ``--set``."""
        training = {
            "form": self.form,
            "trajectories": self.trajectories,
            "optimiser_steps": self.steps,
            "batch": self.batch,
            "rounds": self.rounds,
            "grids": split(self.grids),
            "guidance_distilled": self.guidance_distilled,
            "seed": self.seed,
            "gradient_checkpointing": self.gradient_checkpointing or None,
            "budget": self.budget,
        }
        chosen = given(training)
        return super().values() | ({"training": chosen} if chosen else {})


def train(
    options: TrainOptions,
    preset: Annotated[str, typer.Argument(help="The preset whose pipeline gets a feedback module.")],
    out: Annotated[Path, typer.Option(**WRITTEN, help="The module's folder.")] = Path("runs/ilf"),
) -> None:
    """Train a feedback module; resumes where it was interrupted. Defaults: the preset's `training` section.

    On several devices: accelerate launch -m ilf_bench train PRESET.
    """
    from ilf_bench.training import train as work

    folder = work(preset, options.overrides(), out, console)
    print_line(f"use it: ilf-bench run {preset} --methods full,steps:10,ilf:checkpoint={folder}")
