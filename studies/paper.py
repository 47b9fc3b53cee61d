"""Does the paper's table come out in miniature? Trains the paper's form as long as ours and rebuilds docs/ilf-paper.md's tables.

    python -m studies.paper class --minutes 12     # trains both, searches the best schedule, runs and prints the table; resumes

The form is the paper's as far as it is published: one scratch block, a scale per looped block from zero, both guidance branches,
the middle 12/28 of the blocks looped, FAD at t/2 with its denoising term, trailing timesteps, 10 steps with feedback
on 4 of them. Its schedule is not published in full: beside our reading stands the best one that a search on noise and captions of
the training finds within the same cost. Ours is trained as long, from scratch, by the short recipe that ``ilf-bench train`` takes
for a new model of this size: end to end for 8 steps, on as many trajectories.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_json, write_json
from harness.training.trajectories import Trajectories, record
from ilf.checkpoint import load_module
from ilf.search import search
from ilf.settings import IlfSettings
from ilf.train import optimisation, train_module
from ilf_bench.experiment import execute, prepare
from studies import loop
from studies.loop_forms import MODELS, UNIPC, Forms
from studies.reuse import linked_run
from studies.study import SCORES, Study
from studies.study_tables import table, times
from zoo.recipes.ilf import IlfRecipe, teacher, training_prompts, trajectories

PRESETS = {"class": "ilf-study-class", "text": "ilf-study-text", "flow": "ilf-study-flow"}
PROBE, SEARCHED = 20, 128  # optimiser steps that say what one costs; trajectories that the schedule is searched on
PAPER = IlfSettings.of(
    {"form": "paper", "loop": "middle", "grids": (10,), "steps": 10, "trajectories": 2048, "runs": 2048, "feedback": "paper-4"}
)
METHODS = ("full", "steps:20", "steps:12", "steps:20+deepcache:interval=3", "steps:10", "ilf:steps=8")


def train(recipe: IlfRecipe, pipeline: Pipeline, minutes: float, work: Path) -> Path:
    """The paper's form after so many minutes of one thread; nothing where that was done."""
    folder = work / "ilf-paper"
    if (folder / "training.json").exists():
        return folder
    data, prompts = trajectories(recipe, pipeline, work / "trajectories.pt"), training_prompts(recipe, pipeline)
    settings = recipe.settings.resolved(pipeline.plan().backbone.depth)
    if not (work / "steps.json").exists():
        write_json(work / "steps.json", {"steps": round(60 * minutes / step_seconds(pipeline, settings, data, prompts, work))})
    steps = read_json(work / "steps.json")["steps"]
    plan = replace(optimisation(replace(settings, optimiser_steps=steps)), steps=steps)
    module, made = train_module(pipeline, data, prompts, settings, work / "training.pt", plan)
    module.save_pretrained(folder)
    made.save(folder / "training.json")
    return folder


def step_seconds(pipeline: Pipeline, settings: IlfSettings, data: Trajectories, prompts: list[str], work: Path) -> float:
    """Processor seconds of an optimiser step."""
    took = []
    for steps in (1, 1 + PROBE):
        before = time.process_time()
        train_module(pipeline, data, prompts, settings, work / f"probe-{steps}.pt", replace(optimisation(settings), steps=steps))
        took.append(time.process_time() - before)
    return (took[1] - took[0]) / PROBE


def best_schedule(folder: Path, pipeline: Pipeline, prompts: list[str], work: Path) -> Path:
    """A copy of the module with the best schedule that costs no more than the paper's, on noise that it was not trained on."""
    best = work / "ilf-paper-best"
    if not best.exists():
        module = load_module(folder)
        plan = pipeline.plan()
        budget = sum(step.evaluations for step in module.schedule(10, "paper-4").plan(module.settings, plan))
        chosen = [prompts[i % len(prompts)] for i in range(SEARCHED)]
        data = record(pipeline, chosen, 500, tuple(range(999, -1, -10)))
        found = search(pipeline, module, data, chosen, 500, budget)
        module.save_pretrained(best)
        write_json(best / "search.json", {"tried": [[vars(one.choice), one.error] for one in found[:8]]})
    return best


def rows(study: Study) -> str:
    """Cost, speed and scores of every method, and the differences of scores to 20 steps."""
    lines = []
    for label in sorted(study.labels, key=study.cost, reverse=True):
        row = study.row(label)
        scores = [f"{study.run.scores[(label, name)].value:.4g}" for name in SCORES]  # type: ignore[union-attr]
        lines.append([label, f"{row.cost:.0f}", times(row.speed), *scores, f"{row.distance:.3f}", f"{row.rmse:.2f}"])
    return table(
        "method", "block evaluations", "times faster than 20 steps", *SCORES, "feature distance", "pixel RMSE", rows=lines
    )


def main(
    model: Annotated[str, typer.Argument(help="class, text or flow.")],
    minutes: Annotated[float, typer.Option(help="Of one thread, for each training.")] = 12,
    samples: Annotated[int, typer.Option(help="Images per method.")] = 2000,
    work: Annotated[Path, typer.Option(help="Where module, trajectories and runs go.")] = Path("runs/ilf-paper"),
) -> None:
    """Train what is missing, run the methods and print the table."""
    recipe, folder = replace(MODELS[model].recipe, settings=PAPER), work / f"{model}-{minutes:g}"
    pipeline = teacher(recipe.preset, ROOT / "zoo" / recipe.model)
    module = train(recipe, pipeline, minutes, folder)
    best = best_schedule(module, pipeline, training_prompts(recipe, pipeline), folder)
    start = UNIPC if pipeline.backbone.shift else {}
    short, _ = loop.train(pipeline, recipe, Forms(12).form("ours", 8, **start), 0, minutes, folder / "ours")
    short.save_pretrained(folder / "ilf-short")
    trained: list[Any] = [
        f"ilf:steps=10:feedback=paper-4:checkpoint={module.resolve()}",
        f"ilf:checkpoint={best.resolve()}",
        f"ilf:checkpoint={(folder / 'ilf-short').resolve()}",
    ]
    prepared = prepare(PRESETS[model], {"samples": samples, "methods": [*METHODS, *trained]}, ())
    run, _ = linked_run(prepared.experiment, pipeline, folder / "runs")
    print(rows(Study(execute(prepared, run.parent, Console()).run)))


if __name__ == "__main__":
    typer.run(main)
