"""Training a feedback module for the pipeline of a preset."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console

from harness.config.prompts import PromptList, load_prompts, prompt_note
from harness.config.spec import ExperimentSpec, load_spec
from harness.errors import UsageError
from harness.models.checksums import write_sums
from harness.models.identity import model_digest
from harness.models.loading import load_pipeline, quiet_libraries
from harness.sampling.captions import caption_notes
from harness.sampling.pipeline import Pipeline
from harness.storage.files import refuse_links
from harness.storage.locks import held_alone
from harness.storage.records import read_json, write_json
from harness.training.fit import TrainRecord
from harness.training.learned_solver import starting_as
from harness.training.processes import own_device
from harness.training.trajectories import record, union_grid
from ilf.end_to_end import train_all
from ilf.module import FeedbackModule
from ilf.search import Tried, choices, search
from ilf.settings import IlfSettings
from ilf.teacher import teacher_trajectories
from ilf.train import seeded_module
from ilf_bench.console import print_line

TUNING = 64  # trajectories on which schedules are compared


@dataclass(frozen=True)
class Teacher:
    """A pipeline that something is trained on, what was asked for, and the prompts."""

    spec: ExperimentSpec
    pipeline: Pipeline
    listed: PromptList


def teacher(preset: str, overrides: Mapping[str, Any], console: Console, check: Callable[[ExperimentSpec], None]) -> Teacher:
    """The pipeline of a preset on this process's device; ``check`` refuses a specification before anything is loaded."""
    quiet_libraries()
    spec = load_spec(preset, dict(overrides))
    spec = spec.model_copy(update={"device": own_device(spec.device)})
    check(spec)
    listed = load_prompts(spec.prompts)
    pipeline = load_pipeline(spec)
    for note in _input_notes(pipeline, listed) if PartialState().is_main_process else ():
        print_line(note, console)
    return Teacher(spec, pipeline, listed)


def _check_seed(spec: ExperimentSpec, chosen: IlfSettings) -> None:
    if chosen.seed <= spec.seed <= chosen.seed + 2:  # trajectories, converged ones, and the search of a schedule
        raise UsageError(
            expected=f"a training seed that is not evaluated on: {spec.seed} is the preset's, and training uses three",
            got=f"seed {chosen.seed}",
            remedy="choose another --seed",
        )


def train(preset: str, overrides: dict[str, Any], out: Path, console: Console) -> Path:
    """Record the teacher's trajectories once, train, save module and record; the same command resumes an interrupted training.

    ``overrides`` replaces fields of the preset, those of its ``training`` one by one. Returns the module's folder; trajectories
    and checkpoints lie in its ``work``. What can be refused is refused before the first trajectory.
    """
    known = teacher(preset, overrides, console, lambda spec: _check_seed(spec, IlfSettings.of(spec.training, spec.task)))
    spec, pipeline, listed = known.spec, known.pipeline, known.listed
    chosen = IlfSettings.of(spec.training, spec.task)
    for note in chosen.without_effect(spec.training) if PartialState().is_main_process else ():
        print_line(note, console)
    backbone = pipeline.plan().backbone
    geometry = backbone.geometry
    settings = chosen.resolved(len(pipeline.blocks), geometry.state_values, backbone.shift)
    if settings.budget is not None:
        end_to_end = settings.end_to_end_steps or settings.image_steps
        trained_for = replace(settings, grids=settings.end_to_end_counts) if end_to_end else settings
        choices(trained_for, None, pipeline.plan(), settings.budget)  # raises
    if settings.start is not None:
        seeded_module(pipeline, settings, settings.seed)  # raises
    starting_as(settings.initial_solver, pipeline, settings.timesteps(settings.steps))  # raises
    refuse_links(out)
    with held_alone(out / "work") if PartialState().is_main_process else nullcontext():
        inputs = {"pipeline": spec.pipeline, "model_digest": model_digest(pipeline), "prompts_digest": listed.digest}
        options = inputs | chosen.content()
        del options["budget"]
        with PartialState().main_process_first():  # the other processes find the file
            claim(out / "work" / "options.json", options)
        _train(spec, pipeline, listed.texts, settings, out, console)
    return out


def _input_notes(pipeline: Pipeline, listed: PromptList) -> list[str]:
    """What of the prompts was left out, and how the text encoders read them."""
    notes = [prompt_note(listed.record(), len(listed.texts))]
    notes += [] if pipeline.is_class_conditional else caption_notes(pipeline, listed.texts)
    return [note for note in notes if note]


def _train(
    spec: ExperimentSpec, pipeline: Pipeline, prompts: Sequence[str], settings: IlfSettings, out: Path, console: Console
) -> None:
    store, key = out / "work" / "trajectories.pt", (spec.pipeline, spec.prompts)
    data = teacher_trajectories(store, key, pipeline, prompts, settings, spec.batch)
    module, made = train_all(pipeline, data, prompts, settings, out / "work" / "training.pt", sampled=spec.batch)
    if PartialState().is_main_process:
        if settings.budget is not None:
            found = searched(pipeline, module, prompts, spec, settings.budget)
            write_json(out / "schedules.json", [asdict(one) for one in found])
            print_line(described(found), console)
        module.save_pretrained(out)
        made.save(out / "training.json")
        write_sums(out)
        print_line(summary(made, pipeline.device), console)


def claim(path: Path, options: dict[str, Any]) -> None:
    """Note what a folder's training is. Raises :class:`UsageError` where it is another: that would go on as this one."""
    if not path.exists():
        write_json(path, options)
        return
    begun = read_json(path)
    if changed := [name for name, value in options.items() if begun.get(name) != value]:
        raise UsageError(
            expected=f"the options that the training in {path.parent} was started with",
            got=", ".join(f"{name}={options[name]} instead of {begun.get(name)}" for name in changed),
            remedy="restore them, or choose another --out",
        )


def searched(
    pipeline: Pipeline, module: FeedbackModule, prompts: Sequence[str], spec: ExperimentSpec, budget: float
) -> list[Tried]:
    """Schedules of the module by their error on runs of a seed that is neither trained nor judged on, best first."""
    seed, settings = module.settings.seed + 2, module.settings
    texts = [prompts[i % len(prompts)] for i in range(min(TUNING, settings.trajectories))]
    grid = union_grid(settings.grids, settings.power, shift=settings.shift)
    return search(pipeline, module, record(pipeline, texts, seed, grid, spec.batch), texts, seed, budget, spec.batch)


def described(found: Sequence[Tried]) -> str:
    """What a search has chosen, in a line."""
    best, error = found[0].choice, found[0].error
    return (
        f"best of {len(found)} schedules: {best.steps} steps, feedback {best.feedback}, power {best.power:g}, "
        f"{best.cost:g} block evaluations, error {error:.4g}"
    )


def summary(made: TrainRecord, device: str) -> str:
    """Steps, what they took with the teacher's runs, peak memory and the final loss, in one line."""
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    spent = f"{made.settings.steps} steps, {made.seconds:.3g} device-seconds in all"
    return f"{spent}, memory {peak / 2**30:.2f} GiB, final loss {made.final_loss:.4g}"
