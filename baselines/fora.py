"""FORA: fast-forward caching of attention and MLP outputs (Selvaraju et al. 2024, arXiv 2407.01425)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.support.caching import at_least, parts_cached
from harness.cost.macs import KINDS
from harness.cost.plan import Plan

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class Fora:
    """Every ``interval`` steps all parts of all blocks run; between, their outputs are reused under the step's own gates.

    Norms and modulation run at every step. PixArt's cross-attention is treated like the other parts.
    """

    interval: int = 2

    def __post_init__(self) -> None:
        at_least("an interval", self.interval, 1)

    @property
    def label(self) -> str:
        """For example ``fora(interval=3)``."""
        return f"fora(interval={self.interval})"

    def plan(self, plan: Plan) -> Plan:
        """Every step but each ``interval``-th keeps only what lies between the parts."""
        saved = plan.backbone.geometry.skipped(KINDS)
        return plan.saving([saved if i % self.interval else 0 for i in range(len(plan.steps))])

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Remember each part's output inside the context."""
        with parts_cached(pipeline, lambda step, block, part: step % self.interval == 0):
            yield
