"""BudCache (Lei et al. 2026, arXiv 2606.13496): which steps run is searched for a fixed budget, before any image is made."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from baselines.support.caching import RangeCache
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.results import UpfrontCost
from harness.sampling.patching import patched
from harness.training.calibration import SEED, Curves, calibrate, find, spent, stored, tuning_prompts

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

IMAGES = 4  # that a schedule is searched on; the authors' configuration has one
ANNEALING, CLIMBING = 200, 20  # steps of each
HOT, COLD = 0.05, 1e-5  # temperatures, in the unit of the loss
NEAR, JUMPS = 3, 2  # how far a step is moved by preference, and how many random moves of each are tried beside
Steps = frozenset[int]  # those that run, from 0
Loss = Callable[[Steps], float]


@dataclass(frozen=True)
class BudCache:
    """A share ``budget`` (0..1) of the steps runs, all others add what the blocks added last; which ones is searched.

    The search minimises the mean squared distance of the final latents from the full run's: simulated annealing from a random
    choice, then hill climbing. The first quarter of the steps that run are the first ones. This is the paper's first stage, with
    which it reports its results unless it says otherwise; its second, which trains other timesteps, is left out. The images
    have no say, and the cost is known before the search.
    """

    budget: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise UsageError(expected="a budget above 0 and at most 1", got=f"{self.budget:g}", remedy="for example budcache:0.4")

    @property
    def label(self) -> str:
        """For example ``budcache(0.4)``."""
        return f"budcache({self.budget:g})"

    def count(self, steps: int) -> int:
        """How many of ``steps`` run."""
        return max(1, round(self.budget * steps))

    def plan(self, plan: Plan) -> Plan:
        """Skipped steps cost nothing. Which they are is known after the search; how many, before."""
        steps = len(plan.steps)
        known = find(self, plan, self._what(steps))
        runs = known.curves["runs"] if known else [float(i < self.count(steps)) for i in range(steps)]
        saved = plan.saving([0 if run else plan.backbone.blocks() for run in runs])
        return saved if known or len(set(plan.steps)) == 1 else plan.at_most()

    def reads(self, plan: Plan) -> list[Path]:
        """The schedule."""
        return stored(self, plan, self._what(len(plan.steps)))

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What the search cost that was used last."""
        return spent(self, backbone.folder)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Search, or read, the schedule; then skip by it."""
        steps = pipeline.steps

        def watch(sample: Callable[[], None]) -> Curves:
            best = Search(steps, self.count(steps), Distance(pipeline)).best()
            return {"runs": [float(i in best) for i in range(steps)]}

        runs = calibrate(self, pipeline, self._what(steps), watch).curves["runs"]
        with RangeCache(pipeline, lambda state, conditioning: bool(runs[pipeline.clock.step])).attached(pipeline.sites):
            yield

    def _what(self, steps: int) -> str:
        return f"budcache-{self.count(steps)}"


class Search:
    """The choice of ``budget`` out of ``steps`` with the least ``loss``, as far as the paper's search finds it; no choice is
    tried twice. Deterministic."""

    def __init__(self, steps: int, budget: int, loss: Loss, seed: int = 0) -> None:
        self.steps, self.budget, self.fixed = steps, budget, max(1, budget // 4)
        self._loss, self._known = loss, dict[Steps, float]()
        self.random = random.Random(seed)

    def loss(self, chosen: Steps) -> float:
        """Of a choice, remembered."""
        if chosen not in self._known:
            self._known[chosen] = self._loss(chosen)
        return self._known[chosen]

    def best(self) -> Steps:
        """The best choice that was met."""
        first = frozenset(range(self.fixed))
        start = first | set(self.random.sample(range(self.fixed, self.steps), self.budget - self.fixed))
        self._climb(self._anneal(start))
        return min(self._known, key=lambda chosen: (self._known[chosen], sorted(chosen)))

    def _free(self, chosen: Steps) -> tuple[list[int], list[int]]:
        """The steps that may be moved, and where to."""
        return sorted(step for step in chosen if step >= self.fixed), [i for i in range(self.steps) if i not in chosen]

    def _anneal(self, present: Steps) -> Steps:
        """A worse choice is taken with probability exp(-difference / temperature), which falls geometrically."""
        loss = self.loss(present)
        for i in range(ANNEALING):
            candidate = self._moved(present)
            worse = self.loss(candidate) - loss
            if worse < 0 or self.random.random() < math.exp(-worse / (HOT * (COLD / HOT) ** (i / ANNEALING))):
                present, loss = candidate, self.loss(candidate)
        return present

    def _moved(self, present: Steps) -> Steps:
        """One step moved, in seven of ten cases to one nearby; in one of ten cases two are."""
        movable, free = self._free(present)
        if not movable or not free:
            return present
        if min(len(movable), len(free)) > 1 and self.random.random() >= 0.9:
            return (present - set(self.random.sample(movable, 2))) | set(self.random.sample(free, 2))
        source = self.random.choice(movable)
        near = [i for i in free if abs(i - source) <= NEAR]
        return (present - {source}) | {self.random.choice(near if near and self.random.random() < 0.7 else free)}

    def _climb(self, present: Steps) -> None:
        """The best neighbour, as long as one is better: every step moved to each place nearby, and to some further away."""
        for _ in range(CLIMBING):
            movable, free = self._free(present)
            targets = {step: [i for i in free if abs(i - step) <= NEAR] for step in movable}
            for step in movable if free else ():
                targets[step] += [self.random.choice(free) for _ in range(JUMPS)]
            near = [(present - {step}) | {target} for step, found in targets.items() for target in found]
            better = min(near, key=self.loss, default=present)
            if self.loss(better) >= self.loss(present):
                return
            present = better


class _Done(Exception):
    """The last latents are there, and nothing else is wanted."""


class Distance:
    """The mean squared distance of the last latents from the full run's, where only the chosen steps run."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.prompts = tuning_prompts(pipeline.folder)[:IMAGES]  # type: ignore[arg-type]  # calibrate has asked for one
        self.full = self._latents()

    def __call__(self, chosen: Steps) -> float:
        """The loss of a choice."""
        clock = self.pipeline.clock
        with RangeCache(self.pipeline, lambda state, conditioning: clock.step in chosen).attached(self.pipeline.sites):
            return float((self._latents() - self.full).square().mean())

    def _latents(self) -> torch.Tensor:
        """The last latents in float32; they are not decoded."""
        pipeline, found = self.pipeline, list[torch.Tensor]()
        step = pipeline.pipe.scheduler.step

        @wraps(step)  # a pipeline looks at the signature
        def noted(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            if pipeline.clock.step == pipeline.steps - 1:
                found.append(result[0].float())
                raise _Done
            return result

        with patched(pipeline.pipe.scheduler, "step", noted), suppress(_Done):
            pipeline.generate(self.prompts, SEED, range(len(self.prompts)))
        return found[0]
