"""First Block Cache: skip the rest while the first block changes little (chengzeyi, ParaAttention, 2024; also in diffusers)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from baselines.support.caching import Forward, RangeCache, at_least, over_branches
from harness.cost.plan import Plan
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class FirstBlockCache:
    """Block 1 always runs; where its residual is within ``threshold`` of the last full step's, the others add theirs again.

    The distance is the mean absolute difference over the mean absolute value, an image with both of its guidance branches at
    once. Each image decides for itself; diffusers' hook decides for the whole batch (deviation). At most the full cost.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        at_least("a threshold", self.threshold, 0)

    @property
    def label(self) -> str:
        """For example ``first-block(0.1)``."""
        return f"first-block({self.threshold:g})"

    def plan(self, plan: Plan) -> Plan:
        """An upper bound: which steps are skipped depends on the images."""
        return plan.at_most()

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Watch the first block, skip the others."""
        watch = _FirstResidual(pipeline, self.threshold)
        first, *others = pipeline.blocks
        with patched(first, "forward", watch.watching(first.forward)), RangeCache(watch.changed).attached(others):
            yield


class _FirstResidual:
    """The first block's residual at each image's last full step."""

    def __init__(self, pipeline: Pipeline, threshold: float) -> None:
        self.pipeline, self.threshold = pipeline, threshold
        self.entered = self.kept = torch.empty(0)

    def watching(self, forward: Forward) -> Forward:
        def call(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            self.entered = hidden_states
            return forward(hidden_states, **kwargs)

        return call

    def changed(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> bool | torch.Tensor:
        residual = hidden_states - self.entered
        if self.pipeline.clock.step == 0:
            self.kept = residual
            return True
        difference, size = (over_branches(x.abs().flatten(1).mean(1), self.pipeline) for x in (residual - self.kept, self.kept))
        changed = difference > self.threshold * size
        self.kept = torch.where(changed[:, None, None], residual, self.kept)
        return changed
