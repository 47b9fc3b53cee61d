"""TeaCache: skip while the first block's modulated input has changed little (Liu et al. 2024, arXiv 2411.19108)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from baselines.support.caching import RangeCache, at_least, over_branches
from harness.cost.plan import Backbone, Plan
from harness.models.families.base import Conditioning, State
from harness.results import UpfrontCost
from harness.sampling.sites import Run
from harness.training.calibration import Curves, calibrate, spent, stored

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

DEGREE = 4


@dataclass(frozen=True)
class TeaCache:
    """All blocks are skipped, and add what they added last, until the accumulated change reaches ``threshold``.

    A step's change is the relative L1 distance of the modulated input of block 1 to the step before's, rescaled by a polynomial
    of degree 4 that was fitted to the change of what leaves the last block (calibration). The first and the last step run. Each
    image decides for itself, both guidance branches at once; the original decides for the batch (deviation).
    """

    threshold: float = 0.2

    def __post_init__(self) -> None:
        at_least("a threshold", self.threshold, 0)

    @property
    def label(self) -> str:
        """For example ``teacache(0.2)``."""
        return f"teacache({self.threshold:g})"

    def plan(self, plan: Plan) -> Plan:
        """An upper bound: which steps are skipped depends on the images."""
        return plan.at_most()

    def reads(self, plan: Plan) -> list[Path]:
        """The calibration."""
        return stored(self, plan, "teacache")

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What the calibration cost that was used last."""
        return spent(self, backbone.folder)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Fit, or read, the polynomial; then let each image decide at each step."""
        fitted = calibrate(self, pipeline, "teacache", lambda sample: fit(pipeline, sample)).curves
        change = _Change(pipeline, self.threshold, fitted)
        with RangeCache(pipeline, change.is_large).attached(pipeline.sites):
            yield


def distance(new: torch.Tensor, old: torch.Tensor, pipeline: Pipeline) -> torch.Tensor:
    """Relative L1 distance of an image's two rows, [rows]."""
    top, bottom = (over_branches(x.float().abs().flatten(1).mean(1), pipeline) for x in (new - old, old))
    return top / bottom


class _Change:
    """The accumulated change of each image since its last full step."""

    def __init__(self, pipeline: Pipeline, threshold: float, fitted: Curves) -> None:
        self.pipeline, self.threshold, self.fitted = pipeline, threshold, fitted
        self.before: dict[int, torch.Tensor] = {}
        self.total: dict[int, torch.Tensor] = {}

    def is_large(self, state: State, conditioning: Conditioning) -> bool | torch.Tensor:
        """Add this step's change; the images that run begin again at 0."""
        step, branch, before = self.pipeline.clock.step, self.pipeline.clock.call, self.before.get(self.pipeline.clock.call)
        now = modulated(self.pipeline, state, conditioning)
        self.before[branch] = now
        if before is None or step == 0 or step == self.pipeline.steps - 1:
            self.total[branch] = torch.zeros(len(now), device=now.device)
            return True
        total = self.total[branch] + rescale(distance(now, before, self.pipeline), self.fitted)
        large = total >= self.threshold
        self.total[branch] = total.masked_fill(large, 0.0)
        return large


def modulated(pipeline: Pipeline, state: State, conditioning: Conditioning) -> torch.Tensor:
    """What the first block's self-attention reads of the image: normed, scaled and shifted [rows, tokens, width]."""
    segment = pipeline.family.segments[0]
    read = segment.modulated(pipeline.blocks[0], state, conditioning)
    return read[:, segment.image(pipeline.geometry.tokens, read.shape[1])]


def rescale(change: torch.Tensor, fitted: Curves) -> torch.Tensor:
    """The polynomial, inside the range that it was fitted on, and never below 0."""
    low, high = fitted["range"]
    inside, total = change.clamp(low, high), torch.zeros_like(change)
    for coefficient in fitted["polynomial"]:
        total = total * inside + coefficient
    return total.clamp_min(0.0)


def fit(pipeline: Pipeline, sample: Callable[[], None]) -> Curves:
    """Least squares over all images and steps of the calibration."""
    pairs: list[tuple[float, float]] = []
    inputs: list[float] = []
    seen: dict[tuple[str, int], torch.Tensor] = {}

    def differ(name: str, value: torch.Tensor) -> list[float]:
        """Each image's distance to the step before; none at the first step."""
        place = name, pipeline.clock.call
        before, seen[place] = seen.get(place, value), value
        apart = distance(value, before, pipeline) if pipeline.clock.step else torch.empty(0)
        return apart[: len(apart) // pipeline.guidance.rows].tolist()

    def entering(run: Run, state: State, conditioning: Conditioning) -> State:
        inputs[:] = differ("in", modulated(pipeline, state, conditioning))
        return run(state, conditioning)

    def leaving(run: Run, state: State, conditioning: Conditioning) -> State:
        output = run(state, conditioning)
        pairs.extend(zip(inputs, differ("out", output[0]), strict=True))
        return output

    sites = pipeline.sites
    with sites[0].changed(entering), sites[-1].changed(leaving):
        sample()
    if not pairs:  # a single step has nothing to compare
        return {"polynomial": [0.0], "range": [0.0, 0.0]}
    x, y = np.array(pairs).T
    degree = min(DEGREE, max(1, pipeline.steps - 2))  # a step's images lie together: few steps cannot hold a curve
    polynomial = np.polyfit(x, y, degree)
    return {"polynomial": polynomial.tolist(), "range": [float(x.min()), float(x.max())]}
