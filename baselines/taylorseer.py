"""TaylorSeer: forecast attention and MLP outputs by a Taylor series (Liu et al. 2025, arXiv 2503.06923)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from baselines.support.caching import at_least, parts_cached
from harness.cost.macs import KINDS
from harness.cost.plan import Plan

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


class TaylorSeries:
    """Finite differences of outputs at full steps, each over the distance of the last two, and their Taylor polynomial."""

    def __init__(self, order: int) -> None:
        self.order, self.step = order, 0
        self.differences: list[tuple[torch.Tensor, ...]] = []

    def keep(self, output: tuple[torch.Tensor, ...], step: int) -> None:
        """Difference against what was kept; the first step of a call starts over."""
        old = self.differences if step > self.step else []
        new = [output]
        for before in old[: self.order]:
            new.append(tuple((a - b) / (step - self.step) for a, b in zip(new[-1], before, strict=True)))
        self.differences, self.step = new, step

    def recall(self, step: int) -> tuple[torch.Tensor, ...]:
        """The polynomial at ``step``."""
        distance = step - self.step
        weights = [distance**k / math.factorial(k) for k in range(len(self.differences))]
        return tuple(_sum(weights, terms) for terms in zip(*self.differences, strict=True))


def _sum(weights: Sequence[float], terms: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum(0) if len(terms) > 1 else terms[0]


@dataclass(frozen=True)
class TaylorSeer:
    """The first ``warmup`` steps are full and then every ``interval``-th; between, each part of each block is forecast.

    ``order`` differences are used as soon as there are enough full steps. Order 0 is FORA with a warm-up.
    """

    interval: int = 4
    order: int = 2
    warmup: int = 2

    def __post_init__(self) -> None:
        at_least("an interval", self.interval, 1)
        at_least("an order", self.order, 0)
        at_least("a warm-up", self.warmup, 1)

    @property
    def label(self) -> str:
        """For example ``taylorseer(interval=4, order=2)``."""
        warmup = f", warmup={self.warmup}" if self.warmup != 2 else ""
        return f"taylorseer(interval={self.interval}, order={self.order}{warmup})"

    def is_full(self, step: int) -> bool:
        """Whether everything runs; the warm-up's last step is the first of the regular ones."""
        return step < self.warmup or (step - self.warmup + 1) % self.interval == 0

    def plan(self, plan: Plan) -> Plan:
        """A forecast step keeps only what lies between the parts; the polynomial is not counted."""
        saved = plan.backbone.geometry.skipped(KINDS)
        return plan.saving([0 if self.is_full(i) else saved for i in range(len(plan.steps))])

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """A series for each part of each block inside the context."""
        with parts_cached(pipeline, lambda step, block, part: self.is_full(step), partial(TaylorSeries, self.order)):
            yield
