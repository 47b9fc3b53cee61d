"""First Block Cache: skip the rest while the first block changes little (chengzeyi, ParaAttention, 2024; also in diffusers)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.support.caching import RangeCache, at_least, over_branches
from harness.cost.plan import Plan
from harness.models.families.base import Conditioning, State
from harness.sampling.sites import Run

if TYPE_CHECKING:
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
        first, *others = pipeline.sites
        with first.changed(watch.watching), RangeCache(pipeline, watch.changed).attached(others):
            yield


class _FirstResidual:
    """The first block's residual, of the image's stream, at each image's last full step."""

    def __init__(self, pipeline: Pipeline, threshold: float) -> None:
        self.pipeline, self.threshold = pipeline, threshold
        self.tokens, self.residual = pipeline.geometry.tokens, torch.empty(0)
        self.kept: dict[int, torch.Tensor] = {}

    def watching(self, run: Run, state: State, conditioning: Conditioning) -> State:
        output = run(state, conditioning)
        place = self.pipeline.family.segments[0].image(self.tokens, state[0].shape[1])
        self.residual = (output[0] - state[0])[:, place]
        return output

    def changed(self, state: State, conditioning: Conditioning) -> bool | torch.Tensor:
        clock, residual = self.pipeline.clock, self.residual
        if clock.step == 0:
            self.kept[clock.call] = residual
            return True
        kept = self.kept[clock.call]
        difference, size = (over_branches(x.abs().flatten(1).mean(1), self.pipeline) for x in (residual - kept, kept))
        changed = difference > self.threshold * size
        self.kept[clock.call] = torch.where(changed[:, None, None], residual, kept)
        return changed
