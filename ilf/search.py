"""Searching a module's schedule: steps, where the loop runs, and timesteps, within a budget of block evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from harness.cost.plan import Plan
from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.learned_solver import whole_run_error
from harness.training.trajectories import Recorder, Trajectories
from ilf.method import running
from ilf.module import FeedbackModule
from ilf.schedule import Schedule

POWERS = (1.0, 1.25, 1.5, 1.75, 2.0)


@dataclass(frozen=True)
class Choice:
    """One schedule: what a module's configuration says of it, and its cost in block evaluations an image."""

    steps: int
    feedback: str
    power: float
    cost: float


@dataclass(frozen=True)
class Tried:
    """``error``: mean distance of the run's end to the teacher's, a root mean square over the latent."""

    choice: Choice
    error: float


def choices(config: Mapping[str, Any], plan: Plan, budget: float) -> list[Choice]:
    """All step counts that the module was trained for, each without the loop, and with it on as many steps as the budget allows:
    the first ones, the last ones, spread evenly, or all. Timesteps: those of its learned solvers, or :data:`POWERS`.

    Raises :class:`UsageError` where the budget allows none.
    """
    solvers = config.get("solvers") or {}
    counts = sorted(map(int, solvers)) or range(min(config["grids"]), max(config["grids"]) + 1)
    powers = (config["power"],) if solvers else POWERS
    found = [Choice(n, text, power, _cost(config, plan, n, text)) for n in counts for power in powers for text in _positions(n)]
    fitting = [choice for choice in found if choice.cost <= budget]
    if not fitting:
        least = min(choice.cost for choice in found)
        raise UsageError(expected=f"a budget of at least {least:g} block evaluations", got=f"{budget:g}", remedy="raise it")
    dearest: dict[tuple[int, float, str], Choice] = {}
    for choice in fitting:
        kind = choice.steps, choice.power, choice.feedback.partition("-")[0]
        dearest[kind] = max(dearest.get(kind, choice), choice, key=lambda c: c.cost)
    return list(dearest.values())


def _positions(steps: int) -> Iterator[str]:
    yield from ("none", "all")
    for kind in ("first", "last", "paper"):
        yield from (f"{kind}-{k}" for k in range(1, steps))


def _cost(config: Mapping[str, Any], plan: Plan, steps: int, feedback: str) -> float:
    return sum(step.evaluations for step in Schedule.of(config, steps, feedback).plan(config, plan))


def search(
    pipeline: Pipeline, module: FeedbackModule, data: Trajectories, prompts: Sequence[str], seed: int, budget: float
) -> list[Tried]:
    """Run every choice from the noise (``seed``, i) of trajectory i, on prompt i, best first, and put the best into the
    module's configuration. The trajectories should be none that the module was trained on."""
    tried = []
    for choice in choices(module.config, pipeline.plan(), budget):
        config = dict(module.config) | {"power": choice.power}
        recorder = Recorder(pipeline, len(data.states))
        with running(pipeline, module, Schedule.of(config, choice.steps, choice.feedback)), recorder.recording(), torch.no_grad():
            pipeline.generate(list(prompts), seed, range(len(data.states)))
        tried.append(Tried(choice, float(whole_run_error(recorder.states[-1], data.states[:, -1]).mean())))
    tried.sort(key=lambda one: (one.error, one.choice.cost))
    best = asdict(tried[0].choice)
    module.register_to_config(**{name: best[name] for name in ("steps", "feedback", "power")})
    return tried
