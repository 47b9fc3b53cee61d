"""Re-use of single parts of blocks (attention, cross-attention, MLP) by a table of steps: of learned and searched caches."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.support.caching import parts_cached
from harness.cost.plan import Plan
from harness.errors import ArtifactError, NotMeasured

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


def part_names(pipeline: Pipeline) -> tuple[str, ...]:
    """The parts of all blocks by the names of their modules, each once; where blocks are of several kinds, some lack some."""
    return tuple(dict.fromkeys(part.name for site in pipeline.sites for part, _ in site.parts()))


@dataclass(frozen=True)
class ReuseTable:
    """``reuse[step][block]`` holds the names of the parts whose kept output (before the gate) is used instead of a fresh one.

    ``solver`` and ``guidance`` are those of the runs that it was made on.
    """

    reuse: tuple[tuple[frozenset[str], ...], ...]
    solver: str
    guidance: float

    @property
    def steps(self) -> int:
        """How many denoising steps it is for."""
        return len(self.reuse)

    def check(self, steps: int, depth: int, name: str) -> None:
        """Raise :class:`NotMeasured` where it was made for another step count, and :class:`ArtifactError` for another model."""
        if self.steps != steps:
            raise NotMeasured(
                expected=f"{self.steps} steps, which {name} was made for", got=str(steps), remedy="train it for these"
            )
        if any(len(row) != depth for row in self.reuse) or any(self.reuse[0]):
            raise ArtifactError(
                expected=f"a table for {depth} blocks whose first step is full",
                got=f"a table in {name} for others",
                remedy="train or search it again",
            )

    def plan(self, plan: Plan, name: str) -> Plan:
        """The cost without the re-used parts."""
        self.check(len(plan.steps), plan.backbone.depth, name)
        shares = plan.backbone.geometry.shares

        def worth(step: tuple[frozenset[str], ...]) -> float:
            return sum(own.get(part, 0.0) for own, parts in zip(shares, step, strict=True) for part in parts)

        return plan.saving([worth(step) for step in self.reuse])

    def attached(self, pipeline: Pipeline, name: str) -> AbstractContextManager[None]:
        """Re-use inside the context; what is kept is gone after it."""
        self.check(pipeline.steps, len(pipeline.blocks), name)
        return parts_cached(pipeline, lambda step, block, part: part.name not in self.reuse[step][block])
