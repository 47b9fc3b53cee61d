"""Step Rehash: a step takes over a late residual (Streamlined Inference, Zhan et al. 2024, arXiv 2411.01171)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from baselines.support.caching import RangeCache
from baselines.support.watching import each_step
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.results import UpfrontCost
from harness.training.calibration import Curves, calibrate, find, spent, stored

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class StepRehash:
    """Blocks ``first`` to the last are skipped at steps whose residual there is as good as their neighbour's.

    As good: the cosine similarity of the two residuals, a mean over tokens and images measured once (calibration), is at least
    ``threshold``. Only a residual of the step just before is taken over, so two steps in a row are never skipped. Default:
    all but the first tenth of the blocks, 1-based. The images have no say, so the cost is known.
    """

    threshold: float = 0.95
    first: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 2:
            raise UsageError(expected="a threshold from 0 to 2", got=f"{self.threshold:g}", remedy="for example 0.95")

    @property
    def label(self) -> str:
        """For example ``step-rehash(0.95)``."""
        return f"step-rehash({self.threshold:g}{f', first={self.first}' if self.first else ''})"

    def first_block(self, depth: int) -> int:
        """The first skipped block, checked against the model's depth."""
        first = self.first or round(depth / 10) + 1
        if not 1 <= first <= depth:
            raise UsageError(expected=f"1 <= first <= {depth}", got=str(first), remedy="edit the method")
        return first

    def full_steps(self, similarity: Sequence[float]) -> list[bool]:
        """For each step, whether everything runs. ``similarity[i]`` compares step i with step i - 1."""
        runs = [True]
        for value in similarity[1:]:
            runs.append(not (runs[-1] and value >= self.threshold))
        return runs

    def plan(self, plan: Plan) -> Plan:
        """Skipped steps keep the first blocks; before the calibration only the upper bound is known."""
        first, known = self.first_block(plan.backbone.depth), find(self, plan, self._what(plan.backbone.depth))
        if known is None:
            return plan.at_most()
        saved = plan.backbone.blocks(first)
        return plan.saving([0 if runs else saved for runs in self.full_steps(known.curves["similarity"])])

    def reads(self, plan: Plan) -> list[Path]:
        """The calibration."""
        return stored(self, plan, self._what(plan.backbone.depth))

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What the calibration cost that was used last."""
        return spent(self, backbone.folder)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Measure, or read, the similarities; then skip by schedule."""
        sites = pipeline.sites
        depth = len(sites)
        first = self.first_block(depth)

        def watch(sample: Callable[[], None]) -> Curves:
            return {"similarity": each_step(pipeline, sample, first, _alike, at_start=0.0)}

        runs = self.full_steps(calibrate(self, pipeline, self._what(depth), watch).curves["similarity"])
        with RangeCache(pipeline, lambda state, conditioning: runs[pipeline.clock.step]).attached(sites[first - 1 :]):
            yield

    def _what(self, depth: int) -> str:
        return f"step-rehash-{self.first_block(depth)}"


def _alike(new: torch.Tensor, old: torch.Tensor) -> float:
    return float(cosine_similarity(new.float(), old.float(), dim=-1).mean())
