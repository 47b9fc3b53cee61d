"""TeaCache: skip while the first block's modulated input has changed little (Liu et al. 2024, arXiv 2411.19108)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from baselines.support.caching import RangeCache, at_least, over_branches
from harness.cost.plan import Backbone, Plan
from harness.results import UpfrontCost
from harness.sampling.pipeline import Pipeline
from harness.training.calibration import Curves, calibrate, spent

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

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What the calibration cost that was used last."""
        return spent(self, backbone.folder)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Fit, or read, the polynomial; then let each image decide at each step."""
        fitted = calibrate(self, pipeline, "teacache", lambda sample: fit(pipeline, sample)).curves
        change = _Change(pipeline, self.threshold, fitted)
        with RangeCache(change.is_large).attached(pipeline.blocks):
            yield


def modulated(block: nn.Module, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
    """What a block's self-attention reads: its normed, scaled and shifted input [rows, tokens, width]."""
    part: Any = block
    if part.norm_type == "ada_norm_zero":
        labels = kwargs["class_labels"]
        output = part.norm1(hidden_states, kwargs["timestep"], labels, hidden_dtype=hidden_states.dtype)[0]
    else:
        table = part.scale_shift_table[None] + kwargs["timestep"].reshape(len(hidden_states), 6, -1)
        output = part.norm1(hidden_states) * (1 + table[:, 1:2]) + table[:, :1]
    return output  # type: ignore[no-any-return]


def distance(new: torch.Tensor, old: torch.Tensor, pipeline: Pipeline) -> torch.Tensor:
    """Relative L1 distance of an image's two rows, [rows]."""
    top, bottom = (over_branches(x.float().abs().flatten(1).mean(1), pipeline) for x in (new - old, old))
    return top / bottom


class _Change:
    """The accumulated change of each image since its last full step."""

    def __init__(self, pipeline: Pipeline, threshold: float, fitted: Curves) -> None:
        self.pipeline, self.threshold, self.fitted = pipeline, threshold, fitted
        self.before = self.total = torch.empty(0)

    def is_large(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> bool | torch.Tensor:
        """Add this step's change; the images that run begin again at 0."""
        step, before = self.pipeline.clock.step, self.before
        self.before = modulated(self.pipeline.blocks[0], hidden_states, kwargs)
        if step == 0 or step == self.pipeline.steps - 1:
            self.total = torch.zeros(len(hidden_states), device=hidden_states.device)
            return True
        self.total = self.total + rescale(distance(self.before, before, self.pipeline), self.fitted)
        large = self.total >= self.threshold
        self.total = self.total.masked_fill(large, 0.0)
        return large


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
    first, last = pipeline.blocks[0], pipeline.blocks[-1]
    seen: dict[str, torch.Tensor] = {}

    def differ(name: str, value: torch.Tensor) -> list[float]:
        """Each image's distance to the step before; none at the first step."""
        before, seen[name] = seen.get(name, value), value
        apart = distance(value, before, pipeline) if pipeline.clock.step else torch.empty(0)
        return apart[: len(apart) // (2 if pipeline.guidance > 1 else 1)].tolist()

    def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[:] = differ("in", modulated(module, args[0], kwargs))

    def leaving(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        pairs.extend(zip(inputs, differ("out", output), strict=True))

    inputs: list[float] = []
    hooks = [first.register_forward_pre_hook(entering, with_kwargs=True), last.register_forward_hook(leaving)]
    try:
        sample()
    finally:
        for hook in hooks:
            hook.remove()
    if not pairs:  # a single step has nothing to compare
        return {"polynomial": [0.0], "range": [0.0, 0.0]}
    x, y = np.array(pairs).T
    degree = min(DEGREE, max(1, pipeline.steps - 2))  # a step's images lie together: few steps cannot hold a curve
    polynomial = np.polyfit(x, y, degree)
    return {"polynomial": polynomial.tolist(), "range": [float(x.min()), float(x.max())]}
