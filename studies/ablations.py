"""What does each part of ILF earn? Variants are trained alike, from nothing, and judged alike; rebuilds docs/ilf-ablations.md.

    python -m studies.ablations                             # resumes; about 1.5 h of one thread a model
    python -m studies.ablations --only ilf-study-class      # one model; printed, not written to docs/

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
from harness.storage.records import read_json, read_run
from harness.training.fit import TrainSettings
from harness.training.learned_solver import latent_error
from harness.training.trajectories import Trajectories
from ilf.train import IlfSettings, build_module, paper_form
from ilf.whole_run import WholeRuns, train_all, train_whole_runs, whole_plan
from ilf_bench.experiment import execute, prepare
from studies.ilf_study import MODELS
from studies.study import FULL20, Study
from studies.study_tables import percent, put_tables, table, times
from zoo.recipes.ilf import DIT, PIXART, TRAIN_SEED, teacher, training_prompts, trajectories

RECIPES = {"ilf-study-text": PIXART, "ilf-study-class": DIT}
STEPS, SPACED = 8, "8 steps + spacing(1.5)"
TRAJECTORIES, SAMPLES = 2048, 400
FIRST, WHOLE = 600, 100  # optimiser steps on single jumps, and end to end
FIRST_A_MINUTE, WHOLE_A_MINUTE = 200, 50  # what a minute of one thread is spent on
DOC = ROOT / "docs" / "ilf-ablations.md"
OURS = IlfSettings(loop=(12, 12), grids=(STEPS,), steps=STEPS, power=1.5, rounds=4, runs=256)


@dataclass(frozen=True)
class Variant:
    """A module's settings, and how many steps it is trained on single jumps and then end to end.

    Without a ``first`` stage the module stays as it was made, which changes nothing: the solver alone learns. ``asked``: more
    of the method's options.
    """

    what: str
    settings: IlfSettings = OURS
    first: int = FIRST
    whole: int = WHOLE
    asked: str = ""

    def label(self, name: str) -> str:
        """Of its row."""
        return f"{name}({STEPS} steps{', ' if self.asked else ''}{self.asked})"


PARTS = {
    "ours": Variant("loop over the last block, from scratch, on every step"),
    "solver-alone": Variant("no module: the learned solver by itself", first=0, asked="feedback=none"),
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
    "jump2": Variant("ours: land where the teacher does, through the second-order step", whole=0),
    "jump": Variant("land where the teacher does, through a first-order step", replace(OURS, target="jump"), whole=0),
    "teacher-steps": Variant(
        "two steps of the teacher in one, on noised data", replace(OURS, target="teacher-steps", context=False), whole=0
    ),
    "fad": Variant(
        "the paper's form and target, on the last block", replace(paper_form((12, 12), (STEPS,), STEPS), power=1.5), whole=0
    ),
    "folded": Variant("ours, and the module stands for the null branch too", replace(OURS, folded="all"), whole=0),
}
MINUTES = {
    f"minutes-{n}": Variant(f"ours, about {n} min of one thread", first=n * FIRST_A_MINUTE, whole=n * WHOLE_A_MINUTE)
    for n in (1, 3, 10, 30)
}
GROUPS = {"Parts, trained end to end": PARTS, "Targets, single jumps only": TARGETS, "Minutes of training": MINUTES}


def train(variant: Variant, pipeline: Pipeline, data: Trajectories, prompts: Sequence[str], folder: Path) -> None:
    """Train and save a variant in ``folder``; nothing where that was done."""
    if (folder / "training.json").exists():
        return
    settings, checkpoint = replace(variant.settings, whole_runs=variant.whole), folder.with_suffix(".pt")
    if variant.first:
        plan = TrainSettings(variant.first, lr=2e-3, warmup=min(100, variant.first // 10), ema=0.998, checkpoint_every=200)
        module, made = train_all(pipeline, data, prompts, TRAIN_SEED, settings, plan, checkpoint)
    else:
        module = build_module(pipeline, settings)
        runs = WholeRuns(pipeline, module.requires_grad_(False), settings.grids)
        made = train_whole_runs(runs, data, settings, whole_plan(variant.whole), checkpoint, latent_error)
        runs.keep_solvers()
    module.save_pretrained(folder)
    made.save(folder / "training.json")


def study(preset: str, work: Path, console: Console) -> Study:
    """Train what is missing, run all of it, and read the run."""
    recipe = replace(RECIPES[preset], trajectories=TRAJECTORIES, ilf=OURS)
    pipeline = teacher(recipe.preset, ROOT / "zoo" / recipe.model)
    prompts, data = training_prompts(recipe, pipeline), trajectories(recipe, pipeline, work / "trajectories.pt")
    methods = ["full", f"steps:{FULL20.split()[0]}", f"steps:{STEPS}+spacing:1.5"]
    for variants in GROUPS.values():
        for name, variant in variants.items():
            console.print(f"{preset}: {name}")
            train(variant, pipeline, data, prompts, work / name)
            options = [f"steps={STEPS}", *filter(None, [variant.asked]), f"checkpoint={(work / name).resolve()}"]
            methods.append(":".join(["ilf", *options]))
    prepared = prepare(preset, {"samples": SAMPLES, "methods": methods, "metrics": ["psnr", "feature_distance"]}, ())
    execute(prepared, work / "runs", console)
    return Study(read_run(prepared.experiment.folder(work / "runs")))


def compared(done: Study, variants: dict[str, Variant], work: Path) -> str:
    """A table with a line a variant, in the given order; differences are to the first."""
    head = (
        "variant",
        "what it is",
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
        if only in (None, preset)
    ]
    if only is None:
        put_tables(DOC, "\n".join(sections))
    else:
        print("\n".join(sections))


if __name__ == "__main__":
    typer.run(main)
