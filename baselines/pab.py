"""Pyramid attention broadcast (Zhao et al. 2024, arXiv 2408.12588), on images: self-attention and cross-attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.support.caching import at_least, by_kind, parts_cached
from harness.cost.plan import Plan
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

TRAINED = 1000  # timesteps
ATTENTION = ("attention", "cross")


@dataclass(frozen=True)
class PAB:
    """Between timesteps ``high`` and ``low``, self-attention runs every ``attention`` steps and cross-attention every ``cross``.

    Cross-attention changes least and is broadcast longest. Timesteps are the chosen ones, else evenly spaced as every solver here
    spaces them. A DiT has self-attention only.
    """

    attention: int = 2
    cross: int = 4
    low: int = 100
    high: int = 800

    def __post_init__(self) -> None:
        at_least("attention", self.attention, 1)
        at_least("cross", self.cross, 1)
        if not 0 <= self.low <= self.high <= TRAINED:
            raise UsageError(
                expected=f"0 <= low <= high <= {TRAINED}", got=f"low={self.low}, high={self.high}", remedy="edit the method"
            )

    @property
    def label(self) -> str:
        """For example ``pab(attention=2, cross=4)``."""
        between = f", {self.high}-{self.low}" if (self.low, self.high) != (100, 800) else ""
        return f"pab(attention={self.attention}, cross={self.cross}{between})"

    def runs(self, step: int, kind: str, plan: Plan) -> bool:
        """Whether ``attention`` or ``cross``-attention runs at a step."""
        timestep = plan.timesteps[step] if plan.timesteps else plan.backbone.timestep(step, len(plan.steps), plan.solver)
        every = self.attention if kind == "attention" else self.cross
        return not self.low < timestep < self.high or step % every == 0

    def plan(self, plan: Plan) -> Plan:
        """Each step loses the attention that is broadcast."""
        geometry = plan.backbone.geometry
        resting = [[kind for kind in ATTENTION if not self.runs(i, kind, plan)] for i in range(len(plan.steps))]
        return plan.saving([geometry.skipped(kinds) for kinds in resting])

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Remember attention outputs inside the context; the first step of a call always runs."""
        plan = pipeline.plan()
        with parts_cached(pipeline, by_kind(pipeline, lambda i, kind: self.runs(i, kind, plan)), kinds=ATTENTION):
            yield
