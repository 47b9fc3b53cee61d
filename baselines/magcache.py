"""MagCache: skip while residuals keep their magnitude (Ma et al. 2025, arXiv 2506.09045)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from baselines.support.caching import RangeCache, at_least
from baselines.support.watching import each_step
from harness.cost.plan import Backbone, Plan
from harness.results import UpfrontCost
from harness.training.calibration import Curves, calibrate, find, spent, stored

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class MagCache:
    """All blocks are skipped, and add what they added last, while the accumulated error stays within ``threshold``.

    Calibrated: by which ratio the residual of all blocks grows from step to step, as a mean over tokens and images. The error
    of a skip is |1 - product of the ratios since the last full step|, summed over skips. At most ``most`` steps in a row are
    skipped, none in the first ``retention`` (0..1) of the steps. The images have no say, so the cost is known.
    """

    threshold: float = 0.06
    most: int = 3
    retention: float = 0.2

    def __post_init__(self) -> None:
        at_least("a threshold", self.threshold, 0)
        at_least("most", self.most, 0)
        at_least("retention", self.retention, 0)

    @property
    def label(self) -> str:
        """For example ``magcache(0.06, most=3)``."""
        retention = f", retention={self.retention:g}" if self.retention != 0.2 else ""
        return f"magcache({self.threshold:g}, most={self.most}{retention})"

    def full_steps(self, ratios: Sequence[float]) -> list[bool]:
        """For each step, whether everything runs. ``ratios[i]`` is the residual's size at step i over that at i - 1."""
        retained = max(1, int(self.retention * len(ratios) + 0.5))
        runs, product, error, skipped = [True] * min(retained, len(ratios)), 1.0, 0.0, 0
        for ratio in ratios[retained:]:
            product, skipped = product * ratio, skipped + 1
            error += abs(1 - product)
            runs.append(error > self.threshold or skipped > self.most)
            if runs[-1]:
                product, error, skipped = 1.0, 0.0, 0
        return runs

    def plan(self, plan: Plan) -> Plan:
        """Skipped steps cost nothing; before the calibration only the upper bound is known."""
        known = find(self, plan, "magcache")
        if known is None:
            return plan.at_most()
        return plan.saving([0 if runs else plan.backbone.blocks() for runs in self.full_steps(known.curves["ratios"])])

    def reads(self, plan: Plan) -> list[Path]:
        """The calibration."""
        return stored(self, plan, "magcache")

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What the calibration cost that was used last."""
        return spent(self, backbone.folder)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Measure, or read, the ratios; then skip by schedule."""
        ratios = calibrate(self, pipeline, "magcache", lambda sample: measure(pipeline, sample)).curves["ratios"]
        runs = self.full_steps(ratios)
        with RangeCache(pipeline, lambda state, conditioning: runs[pipeline.clock.step]).attached(pipeline.sites):
            yield


def measure(pipeline: Pipeline, sample: Callable[[], None]) -> Curves:
    """The mean ratio of the norms of each token's residual; 1 at the first step."""

    def grown(new: torch.Tensor, old: torch.Tensor) -> float:
        return float((new.float().norm(dim=-1) / (old.float().norm(dim=-1) + 1e-8)).mean())

    return {"ratios": each_step(pipeline, sample, 1, grown, at_start=1.0)}
