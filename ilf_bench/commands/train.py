"""``ilf-bench train``: a feedback module, or a learned rival, for the pipeline of a preset."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import UsageError
from ilf_bench.console import console, print_line
from ilf_bench.options import WRITTEN, ModelOptions, chosen_preset, given, split


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
    start: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A trained module whose weights and solvers this training starts from.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of noise and training; must differ from the preset's.")] = None
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations in the backward pass: less memory, more time.")
    ] = False

    def training(self) -> dict[str, Any]:
        """The fields of a preset's ``training`` that these options replace."""
        training = {
            "form": self.form,
            "trajectories": self.trajectories,
            "optimiser_steps": self.steps,
            "batch": self.batch,
            "rounds": self.rounds,
            "grids": split(self.grids),
            "guidance_distilled": self.guidance_distilled,
            "start": self.start,
            "seed": self.seed,
            "gradient_checkpointing": self.gradient_checkpointing or None,
            "budget": self.budget,
        }
        return given(training)

    def values(self) -> dict[str, Any]:
        """The fields of a preset that these options replace, those of its ``training`` among them, but for ``--set``."""
        chosen = self.training()
        return super().values() | ({"training": chosen} if chosen else {})


def train(
    options: TrainOptions,
    preset: Annotated[
        str | None, typer.Argument(help="Whose pipeline it is trained on; default: tiny-text, or what suits --pipeline.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME[:SETTING=VALUE...]",
            help="ilf, bespoke, learning-to-cache, harmonica, ecad or deediff; the options below"
            " are of ilf; settings of the others follow their name.",
        ),
    ] = "ilf",
    out: Annotated[Path | None, typer.Option(**WRITTEN, help="What is trained; default: runs/ and the method's name.")] = None,
) -> None:
    """Train a feedback module or a learned rival; resumes where it was interrupted. Defaults: the preset's `training` section.

    A feedback module on several devices: accelerate launch -m ilf_bench train PRESET.
    """
    name = method.partition(":")[0]
    overrides = options.overrides()
    of_ilf = sorted({*options.training(), *overrides.get("training", {})})
    if method != "ilf" and of_ilf:
        raise UsageError(
            expected=f"settings of {name} behind its name",
            got=f"options of ilf ({', '.join(of_ilf)})",
            remedy=f"{name}:seed=2:...",
        )
    known, overrides = (preset, overrides) if preset is not None else chosen_preset(overrides)
    folder = out or Path("runs") / name
    if method == "ilf":
        from ilf_bench.training import train as work

        text = f"ilf:checkpoint={work(known, overrides, folder, console)}"
    else:
        from ilf_bench.rival_training import train_rival

        text = train_rival(method, known, overrides, folder, console)
    from harness.config.spec import load_spec

    methods = f"full,steps:{max(1, load_spec(known, overrides).steps // 2)},{text}"
    print_line(f"use it: {shlex.join(['ilf-bench', 'run', *_of_the_model(preset, options), '--methods', methods])}")


def _of_the_model(preset: str | None, options: TrainOptions) -> list[str]:
    """The words of the command that say what was trained on: a run has to be told the same."""
    fields = [word for name, value in ModelOptions.values(options).items() for word in (f"--{name}", str(value))]
    others = [text for text in options.assigned or () if not text.startswith("training.")]
    return [*([preset] if preset else []), *fields, *(word for text in others for word in ("--set", text))]
