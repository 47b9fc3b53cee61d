"""Training a learned or searched rival (see :mod:`baselines.learned.train`) for the pipeline of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console

from baselines.learned.folder import note_transformer
from baselines.learned.train import TRAININGS, Training
from harness.config.methods import parse_method
from harness.config.spec import ExperimentSpec
from harness.contracts import Trained
from harness.errors import UsageError, did_you_mean
from harness.models.checksums import SUMS, write_sums
from harness.models.identity import model_digest
from harness.storage.files import refuse_links
from harness.storage.locks import held_alone
from ilf_bench.console import print_line
from ilf_bench.registry import BUILT_IN
from ilf_bench.training import Teacher, claim, teacher


def parse_training(text: str) -> tuple[str, Training]:
    """``NAME`` or ``NAME:SETTING=VALUE:...`` with the defaults for the rest. Raises :class:`UsageError` on what is unknown."""
    name, *options = text.split(":")
    if name not in TRAININGS:
        known = ", ".join(("ilf", *TRAININGS))
        raise UsageError(expected=f"a method out of {known}", got=repr(text), remedy=did_you_mean(name, TRAININGS) + "name one")
    values: dict[str, str] = {}
    for option in options:
        key, has_value, value = option.partition("=")
        if not has_value or key in values:
            raise UsageError(expected="SETTING=VALUE, each once", got=repr(text), remedy=f"for example {name}:seed=2")
        values[key] = value
    return name, TRAININGS[name].having(values)


def train_rival(text: str, preset: str, overrides: Mapping[str, Any], out: Path, console: Console) -> str:
    """Train into ``out``; the same command resumes an interrupted training. Returns the method's text for a run.

    At most the preset's ``batch`` of images is sampled at once. Checkpoints and recorded trajectories lie in ``work`` inside
    ``out``. What can be refused is refused before the first image.
    """
    name, training = parse_training(text)
    if PartialState().num_processes > 1:
        raise UsageError(
            expected=f"one process: {name} is trained by one",
            got=str(PartialState().num_processes),
            remedy="leave accelerate out",
        )
    known = teacher(preset, overrides, console, lambda spec: _seeds(spec, training))
    training = training.having({"at_once": min(training.settings.at_once, known.spec.batch)})
    refuse_links(out)
    with held_alone(out / "work"):
        claim(out / "work" / "options.json", _options(text, training, known))
        if not (out / SUMS).exists():  # written last: a finished training is left as it is
            training(known.pipeline, known.listed.texts, out, out / "work" / "training.pt")
            note_transformer(out, known.pipeline.plan().backbone)
            write_sums(out)
    method = f"{name}:{training.option}={out}"
    if "grids" in training.names:
        method = f"{name}:{training.settings.grids[0]}:{training.option}={out}"
    _say_cost(method, known, console)
    return method


def _seeds(spec: ExperimentSpec, training: Training) -> None:
    if spec.seed in training.seeds:
        raise UsageError(
            expected=f"training seeds that are not evaluated on: {spec.seed} is the preset's",
            got=f"seed {training.settings.seed}",
            remedy="choose another :seed=",
        )


def _options(text: str, training: Training, known: Teacher) -> dict[str, Any]:
    """What a training must be continued with, as JSON keeps it."""
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(training.settings).items()}
    return {
        "method": text.partition(":")[0],
        "settings": settings,
        "pipeline": known.spec.pipeline,
        "model_digest": model_digest(known.pipeline),
        "prompts_digest": known.listed.digest,
        "sampling": [known.pipeline.steps, known.pipeline.solver, *known.pipeline.guidance.scales],
    }


def _say_cost(text: str, known: Teacher, console: Console) -> None:
    method = parse_method(text, BUILT_IN)
    assert isinstance(method, Trained)  # every rival of the table is
    cost = method.upfront_cost(known.pipeline.plan().backbone)
    print_line(f"{cost.training_s:.3g} device-seconds in all, {cost.extra_parameters:,} parameters added", console)
