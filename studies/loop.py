"""Does a second pass earn its cost? Forms of the feedback module at about one cost, each trained for the same thread-minutes.

    python -m studies.loop class --minutes 20 --seeds 0,1,2             # trains what is missing; resumes
    python -m studies.loop class --minutes 20 --forms adapter,partial-4
    python -m studies.loop deep --minutes 4                             # on tiny-dit-28, built by python -m zoo.recipes.deep
    python -m studies.loop page                                         # rebuilds docs/results/ilf-loop.md alone

Every training sees 2,048 trajectories of its own seed and minimises the error of the final latents, through full trajectories of
one step count. It is judged on noise of a seed of its own, and on captions that were never trained on, against the converged
sample (100 steps, float32), so that differences between trainings hold everything that a new training would change. Results are
lines of docs/results/ilf-loop.jsonl; trained modules stay in the work folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_json, write_json
from harness.training.learned_solver import converged_trajectories, latent_error
from harness.training.trajectories import Trajectories
from ilf.checkpoint import load_module
from ilf.end_to_end import EndToEnd, end_to_end_optimisation, train_all, train_end_to_end
from ilf.module import FeedbackModule
from ilf.settings import IlfSettings
from ilf.train import seeded_module
from ilf.training_cost import mean_step_macs
from studies.converged import Judge
from studies.loop_forms import MODELS, TRAJECTORIES, Form
from studies.loop_page import RESULTS, append, page, rows
from studies.study_tables import put_tables
from zoo.recipes.ilf import IlfRecipe, teacher, training_prompts

DOC = RESULTS.with_suffix(".md")
PROBE = 3  # optimiser steps that say how fast the machine is
PLAIN = ((7, 1.0, "dpm++"), (7, 1.5, "dpm++"), (9, 1.5, "dpm++"), (20, 1.0, "dpm++"))  # steps, spacing and solver: rivals
STRAIGHT = (*PLAIN, (7, 1.0, "unipc"), (9, 1.0, "unipc"))  # with flow matching


def train(pipeline: Pipeline, recipe: IlfRecipe, form: Form, seed: int, minutes: float, work: Path) -> tuple[FeedbackModule, Any]:
    """A module trained for so many minutes of one thread, the teacher's trajectories not counted; read where that was done."""
    folder = work / "module"
    if not (folder / "training.json").exists():
        settings, prompts = replace(form.settings, seed=seed), training_prompts(recipe, pipeline)
        chosen = [prompts[i % len(prompts)] for i in range(TRAJECTORIES)]
        data = converged_trajectories(pipeline, chosen, seed, work.parent / f"trajectories-{seed}.pt")
        step = step_seconds(pipeline, settings, data, work)
        settings = replace(settings, end_to_end_steps=max(1, round(60 * minutes / step)))
        before = time.process_time()
        module, made = train_all(pipeline, data, prompts, settings, work / "training.pt")
        module.save_pretrained(folder)
        seconds = time.process_time() - before
        write_json(folder / "training.json", {"seconds": seconds, "steps": settings.end_to_end_steps, "loss": made.final_loss})
    return load_module(folder), read_json(folder / "training.json")


def step_seconds(pipeline: Pipeline, settings: IlfSettings, data: Trajectories, work: Path) -> float:
    """Seconds of an optimiser step, for which the model's first form was timed: the others' are in proportion to counted work.

    So all forms of a model get the same multiply-accumulates, whatever else the machine does when they are trained.
    """
    backbone, kept = pipeline.plan().backbone, work.parent / "speed.json"
    macs = sum(settings.grids) * mean_step_macs(backbone.geometry, settings, pipeline.guidance.branches)
    if not kept.exists():
        student = EndToEnd(pipeline, seeded_module(pipeline, settings, 0).requires_grad_(True), settings.grids)
        timings = []
        for steps in (1, 1 + PROBE):
            before = time.process_time()
            plan = end_to_end_optimisation(steps, settings)
            train_end_to_end(student, data, settings, plan, work / f"probe-{steps}.pt", latent_error)
            timings.append(time.process_time() - before)
        write_json(kept, {"seconds per multiply-accumulate": (timings[1] - timings[0]) / PROBE / macs})
    return macs * float(read_json(kept)["seconds per multiply-accumulate"])


def complete(model: str, minutes: float, seeds: Sequence[int], forms: Sequence[str], work: Path) -> None:
    """Train and judge what is missing."""
    console, chosen = Console(), MODELS[model]
    done = {(row["model"], row["form"], row["seed"], row["minutes"]) for row in rows()}
    student, judge = teacher(chosen.recipe.preset, chosen.folder), Judge(model, work / model)
    for seed in seeds:
        for steps, power, solver in STRAIGHT if judge.pipeline.backbone.shift else PLAIN:
            parts = (f"{steps} steps", solver if solver != "dpm++" else "", f"spacing({power})" if power != 1 else "")
            name = " + ".join(filter(None, parts))
            if (model, name, seed, 0) not in done:
                append(
                    {
                        "model": model,
                        "form": name,
                        "seed": seed,
                        "minutes": 0,
                        **judge.errors(seed, judge.plain(steps, power, solver)),
                    }
                )
        for name in forms:
            if (model, name, seed, minutes) in done:
                continue
            console.print(f"{model}: {name}, seed {seed}")
            folder = work / model / f"{name}-{seed}-{minutes:g}"
            module, made = train(student, chosen.recipe, chosen.forms[name], seed, minutes, folder)
            found = judge.errors(seed, judge.module(module, chosen.forms[name].steps))
            append({"model": model, "form": name, "seed": seed, "minutes": minutes, **made, **found})


def main(
    model: Annotated[str, typer.Argument(help="class, text, flow or deep; page: only rebuild the page.")],
    minutes: Annotated[float, typer.Option(help="Of one thread, for each training.")] = 20,
    seeds: Annotated[str, typer.Option(help="Of trainings, joined by commas.")] = "0,1,2",
    forms: Annotated[str, typer.Option(help="Joined by commas; all of the model's if empty.")] = "",
    work: Annotated[Path, typer.Option(help="Where modules and trajectories go.")] = Path("runs/ilf-loop"),
) -> None:
    """Train and judge what is missing, then write the page."""
    if model != "page":
        complete(
            model,
            minutes,
            [int(seed) for seed in seeds.split(",")],
            forms.split(",") if forms else list(MODELS[model].forms),
            work,
        )
    put_tables(DOC, page())


if __name__ == "__main__":
    typer.run(main)
