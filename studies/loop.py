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

import json
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from scipy.special import stdtrit

from harness.config.spec import ExperimentSpec, load_spec
from harness.models.loading import load_pipeline
from harness.paths import ROOT
from harness.results import FloatArray
from harness.sampling.grids import power_grid
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_json, write_json
from harness.training.learned_solver import CONVERGED_GRID, converged_trajectories, latent_error, rms_distance
from harness.training.states import read_state, write_state
from harness.training.trajectories import Recorder, Trajectories
from ilf.attach import running
from ilf.checkpoint import load_module
from ilf.end_to_end import EndToEnd, end_to_end_optimisation, train_all, train_end_to_end
from ilf.module import FeedbackModule
from ilf.settings import IlfSettings
from ilf.train import seeded_module
from ilf.training_cost import mean_step_macs
from metrics.context import MetricContext
from studies.study_tables import put_tables, table
from zoo.recipes.ilf import DIT, FLOW, PIXART, IlfRecipe, teacher, training_prompts

ZOO = ROOT / "zoo"
RESULTS = ROOT / "docs" / "results" / "ilf-loop.jsonl"
DOC = RESULTS.with_suffix(".md")
COMPARED = {"latent": "latent error", "rmse": "pixel error"}
ERRORS = {"latent": 4, "rmse": 2, "distance": 3, "judge": 3}  # and decimals
EVALUATED, EVALUATION_SEED, BATCH = 256, 2000, 64
TRAJECTORIES = 2048
TUNED: dict[str, Any] = {"inner_pass": False, "start": "ilf-adapter", "end_to_end_lr": 5e-4}
UNIPC: dict[str, Any] = {"initial_solver": "unipc", "power": 1.0}
PROBE = 3  # optimiser steps that say how fast the machine is
PLAIN = ((7, 1.0, "dpm++"), (7, 1.5, "dpm++"), (9, 1.5, "dpm++"), (20, 1.0, "dpm++"))  # steps, spacing and solver: rivals
STRAIGHT = (*PLAIN, (7, 1.0, "unipc"), (9, 1.0, "unipc"))  # with flow matching


@dataclass(frozen=True)
class Form:
    """A form of the module at ``steps`` denoising steps."""

    what: str
    settings: IlfSettings
    steps: int


class Forms:
    """Makes forms for a transformer of ``blocks`` blocks, whose loops end at the last one."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def form(self, what: str, steps: int, length: int = 1, **changes: Any) -> Form:
        """A form whose loop is the last ``length`` blocks."""
        loop = (self.blocks - length + 1, self.blocks)
        content = {"loop": loop, "grids": (steps,), "steps": steps, "trajectories": TRAJECTORIES, "optimiser_steps": 0}
        return Form(what, IlfSettings.of(content | {"end_to_end_steps": 1, "end_to_end_lr": 1e-3} | changes), steps)

    def partial(self, what: str, steps: int, length: int, branches: str = "both", **changes: Any) -> Form:
        """A form whose second steps run the last ``length`` blocks only."""
        return self.form(what, steps, length, **{"partial": True, "branches": branches, "feedback": "odd"} | changes)

    def common(self) -> dict[str, Form]:
        """Those that cost the same at every depth."""
        return {
            "solver": self.form("no module: the learned solver by itself", 7, feedback="none"),
            "adapter": self.form("no second pass: feedback is added to what leaves the last block", 7, inner_pass=False),
            "loop-1": self.form("second pass of the last block", 7),
            "loop-4": self.form("second pass of the last four blocks", 6, 4),
            "adapter-carried": self.carried("no second pass; every second step carries guidance over", "odd", inner_pass=False),
            "adapter-carried-6": self.carried("the same at 6 steps", "odd", 6, inner_pass=False),
            "adapter-carried-7": self.carried("the same at 7 steps, the last on one branch, too", "1.3.5.6", 7, inner_pass=False),
            "adapter-carried-8": self.carried("the same at 8 steps", "odd", 8, inner_pass=False),
            "adapter-carried-late": self.carried("the same on the last four steps", "last-4", inner_pass=False),
            "solver-carried": self.carried("no module; every second step carries guidance over", "odd", feedback="none"),
            "loop-1-carried": self.carried("second pass of the last block; every second step carries guidance over", "odd"),
        }

    def carried(self, what: str, carried: str, steps: int = 9, **changes: Any) -> Form:
        """A form some of whose steps run the conditional branch alone, with the guidance of the step before."""
        return self.form(what, steps, guidance_carried=carried, **changes)


def shallow(forms: Forms) -> dict[str, Form]:
    """At 12 blocks: 7 plain steps are 168 block evaluations, and so is every row within 9%; rows of 9 steps
    are for twice the speed of 20."""
    second = "every second step runs the last"
    return forms.common() | {
        "partial-4": forms.partial(f"{second} four blocks only, both branches", 10, 4),
        "partial-4-guided": forms.partial("the same on the conditional branch, guidance carried over", 12, 4, "conditional"),
        "partial-1": forms.partial(f"{second} block only, both branches", 12, 1),
        "partial-6": forms.partial(f"{second} six blocks only, both branches", 9, 6),
        "partial-late": forms.partial(f"four whole steps, then {second} four blocks only", 8, 4, feedback="5.7"),
        "adapter-9": forms.form("no second pass, at 9 steps", 9, inner_pass=False),
        "solver-9": forms.form("no module, at 9 steps", 9, feedback="none"),
    }


def straight(forms: Forms) -> dict[str, Form]:
    """For flow matching: those that start from the solver and the spacing which are best there without training."""
    return shallow(forms) | {
        "adapter-unipc": forms.form("the adapter, from UniPC on the checkpoint's own spacing", 7, inner_pass=False, **UNIPC),
        "solver-unipc": forms.form("no module: the learned solver, from UniPC on the same spacing", 7, feedback="none", **UNIPC),
    }


def tuned(forms: Forms) -> dict[str, Form]:
    """Those that start from a bundled adapter, where the model has one."""
    return {
        "tuned-7": forms.carried("the bundled adapter, trained on with carried guidance", "1.3.5.6", 7, **TUNED),
        "tuned-8": forms.carried("the same at 8 steps", "odd", 8, **TUNED),
    }


def deep(forms: Forms) -> dict[str, Form]:
    """At 28 blocks: 7 plain steps are 392 block evaluations, and so is every row within 7%."""
    second = "every second step runs the last"
    return forms.common() | {
        "loop-12": forms.form("second pass of the last twelve blocks", 6, 12),
        "loop-12-middle": forms.form("second pass of blocks 9 to 20, which is where the paper loops", 6, 12, loop=(9, 20)),
        "partial-1": forms.partial(f"{second} block only, both branches", 13, 1),
        "partial-4": forms.partial(f"{second} four blocks only, both branches", 12, 4),
        "partial-12": forms.partial(f"{second} twelve blocks only, both branches", 10, 12),
    }


@dataclass(frozen=True)
class Model:
    """A frozen backbone in ``folder``, what its modules are trained on, and the file of captions that they are judged on."""

    recipe: IlfRecipe
    folder: Path
    held_out: str
    forms: dict[str, Form]


MODELS = {
    "class": Model(DIT, ZOO / DIT.model, "prompts-all.txt", shallow(Forms(12)) | tuned(Forms(12))),
    "text": Model(PIXART, ZOO / PIXART.model, "prompts-held-out.txt", shallow(Forms(12)) | tuned(Forms(12))),
    "flow": Model(FLOW, ZOO / FLOW.model, "prompts-held-out.txt", straight(Forms(12))),
    "sibling": Model(FLOW, Path("runs/tiny-sd3-grey"), "prompts-held-out.txt", {}),
    "deep": Model(DIT, Path("runs/tiny-dit-28"), "prompts-all.txt", deep(Forms(28))),
}


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


def held_out(model: str, pipeline: Pipeline) -> list[str]:
    """As many captions as are evaluated, none of which was trained on (classes: all of them, in turn)."""
    assert pipeline.folder is not None
    lines = (pipeline.folder / MODELS[model].held_out).read_text(encoding="utf-8").splitlines()
    return [lines[i % len(lines)] for i in range(EVALUATED)]


def ends(pipeline: Pipeline, prompts: Sequence[str], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents float32 [N, C, H, W] and images uint8 [N, 3, H, W] that the pipeline reaches from noise (seed, i)."""
    latents, images = [], []
    for start in range(0, len(prompts), BATCH):
        rows = range(start, min(start + BATCH, len(prompts)))
        recorder = Recorder(pipeline, len(rows))
        with recorder.recording(), torch.no_grad():
            images.append(pipeline.generate([prompts[i] for i in rows], seed, rows))
        latents.append(recorder.states[-1])
    return torch.cat(latents), torch.cat(images)


class Judge:
    """What the errors of a model's trainings are measured with, and the converged samples of a seed, made once."""

    def __init__(self, model: str, work: Path) -> None:
        found = MODELS[model]
        spec = load_spec(found.recipe.preset).model_dump() | {"precision": "fp32", "batch": BATCH, "pipeline": str(found.folder)}
        self.pipeline = load_pipeline(ExperimentSpec(**spec))
        self.prompts, self.work = held_out(model, self.pipeline), work
        self.context = MetricContext(ROOT / "zoo" / "scorers", self.pipeline.family.task)
        self.work.mkdir(parents=True, exist_ok=True)

    def converged(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and images of 100 steps."""
        kept = self.work / f"converged-{seed}.pt"
        if not kept.exists():
            with self.pipeline.sampling(timesteps=CONVERGED_GRID, solver="dpm++"):
                latents, images = ends(self.pipeline, self.prompts, EVALUATION_SEED + seed)
            write_state(kept, {"latents": latents, "images": images})
        found = read_state(kept)
        return found["latents"], found["images"]

    def per_image(self, seed: int, method: AbstractContextManager[None]) -> tuple[float, dict[str, FloatArray]]:
        """Block evaluations per image of the pipeline inside ``method``, and each image's errors [N]."""
        targets, true = self.converged(seed)
        with self.pipeline.counting() as counter, method:
            latents, images = ends(self.pipeline, self.prompts, EVALUATION_SEED + seed)
        squared = (images.float() - true.float()).square().flatten(1).mean(dim=1)
        found = {"latent": rms_distance(latents, targets), "rmse": squared.sqrt()}
        for name, network in (("distance", self.context.networks.fidelity_features), ("judge", self.context.judge)):
            found[name] = (network(images) - network(true)).norm(dim=-1)
        return counter.rows / len(images), {name: values.double().numpy() for name, values in found.items()}

    def errors(self, seed: int, method: AbstractContextManager[None]) -> dict[str, float]:
        """Mean errors of the pipeline inside ``method``, and its block evaluations per image."""
        blocks, found = self.per_image(seed, method)
        return {"blocks": blocks} | {name: float(values.mean()) for name, values in found.items()}

    def plain(self, seed: int, steps: int, power: float, solver: str) -> dict[str, float]:
        """Of plain steps of a solver on power-spaced timesteps."""
        grid = power_grid(steps, power, shift=self.pipeline.backbone.shift)
        return self.errors(seed, self.pipeline.sampling(timesteps=grid, solver=solver))

    def module(self, seed: int, module: FeedbackModule, form: Form) -> dict[str, float]:
        """Of a trained module."""
        module = module.to(next(self.pipeline.transformer.parameters()).dtype).requires_grad_(False)
        return self.errors(seed, running(self.pipeline, module, module.schedule(form.steps)))


def rows() -> list[dict[str, Any]]:
    """All results so far."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def append(row: dict[str, Any]) -> None:
    """Add a result."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def page() -> str:
    """A table for each model and length of training: means over trainings, and how much less error than the adapter's."""
    found, parts = rows(), []
    plain = dict.fromkeys(row["form"] for row in found if not row["minutes"])
    lower = [f"{name} lower than the adapter's by" for name in COMPARED.values()]
    head = ("form", "description", "trainings", "block evaluations", *ERRORS, *lower)
    for model, minutes in sorted({(row["model"], row["minutes"]) for row in found if row["minutes"]}):
        names = [name for name in (*MODELS[model].forms, *plain) if _of(found, model, name, minutes)]
        ratios = {error: {name: _ratios(found, model, name, minutes, error) for name in names} for error in COMPARED}
        gains = [_gains(of_error, plain) for of_error in ratios.values()]
        lines = [[*_line(found, model, name, minutes), *(gain[name] for gain in gains)] for name in names]
        parts += [f"## {MODELS[model].folder.name}, {minutes:g} min of one thread", table(*head, rows=lines)]
        repeated = [name for name, x in ratios["latent"].items() if len(x) > 1 and name not in plain]
        if adapters := _of(found, model, "adapter", minutes):
            parts.append(_pairing(adapters, repeated))
    return "\n\n".join(parts) + "\n"


def _pairing(adapters: Mapping[int, dict[str, Any]], repeated: Sequence[str]) -> str:
    """What the gains of a table are held against, and where their intervals come from."""
    errors = ", ".join(f"{row['latent']:.4f} (seed {seed})" for seed, row in sorted(adapters.items()))
    text = f"A gain is against the adapter that was trained with the same seed; the adapters' latent errors: {errors}."
    return f"{text} Deviation between trainings: that of {', '.join(repeated)}." if repeated else text


def _of(found: Sequence[dict[str, Any]], model: str, form: str, minutes: float) -> dict[int, dict[str, Any]]:
    """The trainings of a form by their seed; rows of plain steps belong to every length of training."""
    lengths = (minutes,) if form in MODELS[model].forms else (0, minutes)
    return {row["seed"]: row for row in found if (row["model"], row["form"]) == (model, form) and row["minutes"] in lengths}


def _line(found: Sequence[dict[str, Any]], model: str, form: str, minutes: float) -> list[str]:
    mine, forms = _of(found, model, form, minutes), MODELS[model].forms
    means = {name: float(np.mean([row[name] for row in mine.values()])) for name in ("blocks", *ERRORS)}
    what = forms[form].what if form in forms else "plain steps"
    errors = [f"{means[name]:.{digits}f}" for name, digits in ERRORS.items()]
    return [form, what, str(len(mine)) if form in forms else "", f"{means['blocks']:.0f}", *errors]


def _ratios(found: Sequence[dict[str, Any]], model: str, form: str, minutes: float, error: str) -> FloatArray:
    """Log ratios [n] of a form's error to that of the adapter of the same seed and about the same cost."""
    rival = f"adapter{form.partition('-9')[1]}"
    mine, adapters = (_of(found, model, name, minutes) for name in (form, rival))
    alike = [seed for seed in mine if seed in adapters and form != rival and _at_one_cost(mine[seed], adapters[seed])]
    return np.array([np.log(mine[seed][error] / adapters[seed][error]) for seed in alike])


def _at_one_cost(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return abs(float(one["blocks"]) / float(other["blocks"]) - 1) < 0.1


def _gains(ratios: Mapping[str, FloatArray], apart: Container[str]) -> dict[str, str]:
    """Of each form's log ratios: the mean gain, with Student's 95% interval over trainings.

    The variance between trainings is one for all forms of a table, estimated from those that were trained more than once, so that
    a form that was trained once has an interval, too. Rows ``apart`` have their own.
    """
    shared = [x - x.mean() for name, x in ratios.items() if len(x) > 1 and name not in apart]
    gains = {}
    for name, found in ratios.items():
        residuals = [found - found.mean()] if name in apart and len(found) else shared
        freedom = sum(len(x) - 1 for x in residuals)
        gains[name] = _gain(found, residuals, freedom) if len(found) else ""
    return gains


def _gain(ratios: FloatArray, residuals: Sequence[FloatArray], freedom: int) -> str:
    mean, n = float(ratios.mean()), len(ratios)
    if not freedom:
        return f"{1 - np.exp(mean):.0%} (one training)"
    deviation = (sum(float((x**2).sum()) for x in residuals) / freedom) ** 0.5
    half = float(stdtrit(freedom, 0.975)) * deviation / n**0.5
    return f"{1 - np.exp(mean):.0%} ({1 - np.exp(mean + half):.0%}..{1 - np.exp(mean - half):.0%})"


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
                append({"model": model, "form": name, "seed": seed, "minutes": 0, **judge.plain(seed, steps, power, solver)})
        for name in forms:
            if (model, name, seed, minutes) in done:
                continue
            console.print(f"{model}: {name}, seed {seed}")
            folder = work / model / f"{name}-{seed}-{minutes:g}"
            module, made = train(student, chosen.recipe, chosen.forms[name], seed, minutes, folder)
            found = judge.module(seed, module, chosen.forms[name])
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
