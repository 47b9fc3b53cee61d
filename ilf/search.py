"""Searching a module's schedule: steps, where the loop runs, and timesteps, within a budget of block evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.plan import Plan
from harness.errors import UsageError
from harness.training.learned_solver import rms_distance
from harness.training.trajectories import Recorder, Trajectories
from ilf.attach import running
from ilf.module import FeedbackModule
from ilf.schedule import Schedule
from ilf.settings import IlfSettings

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

POWERS = (1.0, 1.25, 1.5, 1.75, 2.0)


@dataclass(frozen=True)
class Choice:
    """One schedule: as a module's settings have it, and its cost in block evaluations per image."""

    steps: int
    feedback: str
    power: float
    cost: float


@dataclass(frozen=True)
class Tried:
    """``error``: mean distance of the final latents to the teacher's, each a root mean square."""

    choice: Choice
    error: float


def choices(settings: IlfSettings, solvers: Mapping[str, Any] | None, plan: Plan, budget: float) -> list[Choice]:
    """All step counts that the module was trained for, each without the loop, and with it on as many steps as the budget allows:
    the first ones, the last ones, spread evenly, or all. Timesteps: those of its learned solvers, or :data:`POWERS`.

    Raises :class:`UsageError` where the budget allows none.
    """
    counts = sorted(map(int, solvers or ())) or range(min(settings.grids), max(settings.grids) + 1)
    powers = (settings.power,) if solvers else POWERS

    def choice(steps: int, power: float, feedback: str) -> Choice:
        schedule = Schedule.of(settings, solvers, steps, feedback)
        return Choice(steps, feedback, power, sum(step.evaluations for step in schedule.plan(settings, plan)))

    found = [choice(n, power, text) for n in counts for power in powers for text in _positions(n)]
    fitting = [one for one in found if one.cost <= budget]
    if not fitting:
        least = min(one.cost for one in found)
        raise UsageError(expected=f"a budget of at least {least:g} block evaluations", got=f"{budget:g}", remedy="raise it")
    best: dict[tuple[int, float, str], Choice] = {}
    for one in fitting:
        kind = one.steps, one.power, one.feedback.partition("-")[0]
        best[kind] = max(best.get(kind, one), one, key=lambda c: c.cost)
    return list(best.values())


def _positions(steps: int) -> Iterator[str]:
    yield from ("none", "all")
    for kind in ("first", "last", "paper"):
        yield from (f"{kind}-{k}" for k in range(1, steps))


def search(
    pipeline: Pipeline,
    module: FeedbackModule,
    data: Trajectories,
    prompts: Sequence[str],
    seed: int,
    budget: float,
    batch: int = 64,
) -> list[Tried]:
    """Run every choice from the noise (``seed``, i) of trajectory i, on prompt i, best first, and put the best into the
    module's configuration; ``batch`` are sampled at once. The trajectories should be none that the module was trained on."""
    tried = []
    for choice in choices(module.settings, module.config.solvers, pipeline.plan(), budget):
        settings = replace(module.settings, power=choice.power)
        schedule = Schedule.of(settings, module.config.solvers, choice.steps, choice.feedback)
        with running(pipeline, module, schedule), torch.no_grad():
            ends = [_ends(pipeline, prompts, seed, rows) for rows in torch.split(torch.arange(len(data.states)), batch)]
        tried.append(Tried(choice, float(rms_distance(torch.cat(ends), data.states[:, -1]).mean())))
    tried.sort(key=lambda one: (one.error, one.choice.cost))
    best = tried[0].choice
    module.reschedule(steps=best.steps, feedback=best.feedback, power=best.power)
    return tried


def _ends(pipeline: Pipeline, prompts: Sequence[str], seed: int, rows: torch.Tensor) -> torch.Tensor:
    """The final latents, float32 on the CPU, of ``rows`` (int64 [B])."""
    numbers, recorder = rows.tolist(), Recorder(pipeline, len(rows))
    with recorder.recording():
        pipeline.generate([prompts[i] for i in numbers], seed, numbers)
    return recorder.states[-1]
