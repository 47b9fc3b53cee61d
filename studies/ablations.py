"""What does each part of ILF contribute? Variants are trained and evaluated alike; rebuilds docs/results/ilf-ablations.md.

    python -m studies.ablations                             # resumes; about 1.5 h of one thread per model
    python -m studies.ablations --only ilf-study-class      # one model

All variants run 8 steps and see the same trajectories. They are judged as in the study: same held-out seed and captions, error to
the converged sample of the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_json
from harness.training.learned_solver import latent_error
from harness.training.trajectories import Trajectories
from ilf.end_to_end import EndToEnd, end_to_end_optimisation, train_all, train_end_to_end
from ilf.settings import IlfSettings
from ilf.train import build_module
from ilf_bench.experiment import execute, prepare
from studies.ilf_study import MODELS
from studies.study import FULL20, Study
from studies.study_tables import percent, put_sections, table, times
from zoo.recipes.ilf import DIT, PIXART, teacher, training_prompts, trajectories

RECIPES = {"ilf-study-text": PIXART, "ilf-study-class": DIT}
STEPS, SPACED = 8, "8 steps + spacing(1.5)"
TRAJECTORIES, SAMPLES = 2048, 400
TRANSITION_STEPS, END_TO_END_STEPS = 600, 100  # optimiser steps on single transitions, and end to end
PER_MINUTE = 200, 50  # of the two, what a minute of one thread is spent on
DOC = ROOT / "docs" / "results" / "ilf-ablations.md"
OURS = IlfSettings(loop=(12, 12), grids=(STEPS,), steps=STEPS, trajectories=TRAJECTORIES, rounds=4, runs=256)
PAPER = IlfSettings.of(
    {
        "form": "paper",
        "loop": (12, 12),
        "grids": (STEPS,),
        "steps": STEPS,
        "power": 1.5,
        "trajectories": TRAJECTORIES,
        "runs": 256,
    }
)
TEACHER_STEPS = replace(OURS, target="teacher-steps", context=False)


@dataclass(frozen=True)
class Variant:
    """A module's settings, and how many steps it is trained on single transitions and then end to end.

    Without ``transition_steps`` the module stays as it was initialised, which changes nothing: only the solver learns.
    ``options``: more of the method's options.
    """

    what: str
    settings: IlfSettings = OURS
    transition_steps: int = TRANSITION_STEPS
    end_to_end_steps: int = END_TO_END_STEPS
    options: str = ""

    def label(self, name: str) -> str:
        """Of its row."""
        return f"{name}({STEPS} steps{', ' if self.options else ''}{self.options})"


PARTS = {
    "ours": Variant("loop over the last block, from scratch, on every step"),
    "solver-alone": Variant("no module: the learned solver by itself", transition_steps=0, options="feedback=none"),
    "no-loop": Variant(
        "an adapter: the module's output is added to the last block's, no second pass", replace(OURS, inner_pass=False)
    ),
    "no-loop-2": Variant("an adapter of two blocks, at the cost of ours", replace(OURS, inner_pass=False, depth=2)),
    "loop-1": Variant("loop over the first block", replace(OURS, loop=(1, 1))),
    "loop-6": Variant("loop over a middle block", replace(OURS, loop=(6, 6))),
    "loop-11-12": Variant("loop over the last two blocks", replace(OURS, loop=(11, 12))),
    "loop-7-12": Variant("loop over the last half of the blocks", replace(OURS, loop=(7, 12))),
    "copied": Variant("the module starts as a copy of the last block", replace(OURS, copy=True)),
    "last-4": Variant("feedback on the last four steps only", replace(OURS, feedback="last-4")),
    "first-4": Variant("feedback on the first four steps only", replace(OURS, feedback="first-4")),
    "no-context": Variant("the module sees neither the null branch nor the step before", replace(OURS, context=False)),
}
TARGETS = {
    "second-order": Variant("ours: land where the teacher does, through the second-order step", end_to_end_steps=0),
    "first-order": Variant(
        "land where the teacher does, through a first-order step", replace(OURS, target="first-order"), end_to_end_steps=0
    ),
    "teacher-steps": Variant(
        "two steps of the teacher in one, on noised data",
        TEACHER_STEPS,
        end_to_end_steps=0,
    ),
    "fad": Variant("the paper's form and target, on the last block", PAPER, end_to_end_steps=0),
    "guidance-distilled": Variant(
        "ours, and the module stands for the null branch too", replace(OURS, guidance_distilled="all"), end_to_end_steps=0
    ),
}
MINUTES = {
    f"minutes-{n}": Variant(f"ours, about {n} min of one thread", OURS, n * PER_MINUTE[0], n * PER_MINUTE[1])
    for n in (1, 3, 10, 30)
}
GROUPS = {"Parts, trained end to end": PARTS, "Targets, single transitions only": TARGETS, "Minutes of training": MINUTES}


def train(variant: Variant, pipeline: Pipeline, data: Trajectories, prompts: Sequence[str], folder: Path) -> None:
    """Train and save a variant in ``folder``; nothing where that was done."""
    if (folder / "training.json").exists():
        return
    settings, checkpoint = replace(variant.settings, end_to_end_steps=variant.end_to_end_steps), folder.with_suffix(".pt")
    if variant.transition_steps:
        settings = replace(settings, optimiser_steps=variant.transition_steps)
        module, made = train_all(pipeline, data, prompts, settings, checkpoint)
    else:
        module = build_module(pipeline, settings)
        student = EndToEnd(pipeline, module.requires_grad_(False), settings.grids)
        plan = end_to_end_optimisation(variant.end_to_end_steps, settings)
        made = train_end_to_end(student, data, settings, plan, checkpoint, latent_error)
        student.keep_solvers()
    module.save_pretrained(folder)
    made.save(folder / "training.json")


def study(preset: str, work: Path, console: Console) -> Study:
    """Train what is missing, run all of it, and read the run."""
    recipe = replace(RECIPES[preset], settings=OURS)
    pipeline = teacher(recipe.preset, ROOT / "zoo" / recipe.model)
    prompts, data = training_prompts(recipe, pipeline), trajectories(recipe, pipeline, work / "trajectories.pt")
    methods = ["full", f"steps:{FULL20.split()[0]}", f"steps:{STEPS}+spacing:1.5"]
    for variants in GROUPS.values():
        for name, variant in variants.items():
            console.print(f"{preset}: {name}")
            train(variant, pipeline, data, prompts, work / name)
            options = [f"steps={STEPS}", *filter(None, [variant.options]), f"checkpoint={(work / name).resolve()}"]
            methods.append(":".join(["ilf", *options]))
    prepared = prepare(preset, {"samples": SAMPLES, "methods": methods, "metrics": ["psnr", "feature_distance"]}, ())
    return Study(execute(prepared, work / "runs", console).run)


def compared(done: Study, variants: dict[str, Variant], work: Path) -> str:
    """A table with a line per variant, in the given order; differences are to the first."""
    head = (
        "variant",
        "description",
        "training, s",
        "block evaluations",
        "times faster than 20 steps",
        "feature distance",
        "pixel RMSE",
        "RMSE lower than the first's by",
    )
    rows = []
    first, *_ = labels = [variant.label(name) for name, variant in variants.items()]
    for label, (name, variant) in zip(labels, variants.items(), strict=True):
        row, lower = done.row(label), percent(done.lower(label, first, "rmse"))
        seconds = read_json(work / name / "training.json")["seconds"]
        rows.append(
            [
                name,
                variant.what,
                f"{seconds:.0f}",
                f"{row.cost:.0f}",
                times(row.speed),
                f"{row.distance:.3f}",
                f"{row.rmse:.2f}",
                "" if label == first else lower,
            ]
        )
    return table(*head, rows=rows)


def section(title: str, done: Study, work: Path) -> str:
    """All tables of one model."""
    spec, known = done.run.spec, [done.row(label) for label in (FULL20, SPACED)]
    plain = "; ".join(f"{row.label}: {row.cost:.0f} blocks, {row.distance:.3f} and {row.rmse:.2f}" for row in known)
    parts = [f"## {title}", f"N = {spec['samples']} images, seed {spec['seed']}. For comparison, {plain}."]
    for heading, variants in GROUPS.items():
        parts += [f"### {heading}", compared(done, variants, work)]
    return "\n\n".join(parts) + "\n"


def main(
    work: Annotated[Path, typer.Option(help="Where modules and runs go.")] = Path("runs/ilf-ablations"),
    only: Annotated[str | None, typer.Option(help="One preset of the two.")] = None,
) -> None:
    """Train and judge what is missing, then write the page."""
    console = Console()
    sections = [
        section(title, study(preset, work / preset, console), work / preset)
        for title, preset in MODELS.items()
        if preset in RECIPES and only in (None, preset)
    ]
    put_sections(DOC, sections)


if __name__ == "__main__":
    typer.run(main)
