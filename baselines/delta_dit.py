"""Delta-DiT: rear blocks are cached in early steps, front blocks in late ones (Chen et al. 2024, arXiv 2406.01125)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.support.caching import RangeCache, at_least
from harness.cost.plan import Plan
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class DeltaDiT:
    """All blocks every ``interval`` steps; between, the rear or the front ones give the change they made last (F(x) - x).

    Rear blocks draw details, which do not matter yet in early steps; front blocks draw outlines, which are settled in late
    ones. ``blocks`` are cached (at most half, the default), rear ones in the first ``switch`` (0..1) of the steps.
    """

    interval: int = 2
    blocks: int | None = None
    switch: float = 0.5

    def __post_init__(self) -> None:
        at_least("an interval", self.interval, 1)
        if not 0 <= self.switch <= 1:
            raise UsageError(expected="switch from 0 to 1", got=f"{self.switch:g}", remedy="edit the method")

    @property
    def label(self) -> str:
        """For example ``delta-dit(interval=2, blocks=4)``."""
        blocks = f", blocks={self.blocks}" if self.blocks else ""
        switch = f", switch={self.switch:g}" if self.switch != 0.5 else ""
        return f"delta-dit(interval={self.interval}{blocks}{switch})"

    def cached(self, depth: int) -> int:
        """How many blocks are cached, checked against the model's depth."""
        blocks = self.blocks or depth // 2
        if not 1 <= blocks <= depth // 2:
            raise UsageError(expected=f"1 to {depth // 2} cached blocks", got=str(blocks), remedy="edit the method")
        return blocks

    def plan(self, plan: Plan) -> Plan:
        """Every step but each ``interval``-th loses the cached blocks."""
        depth, count = plan.backbone.depth, len(plan.steps)
        blocks = self.cached(depth)
        rear, front = plan.backbone.blocks(depth - blocks + 1, depth), plan.backbone.blocks(1, blocks)
        return plan.saving([(rear if self.is_early(i, count) else front) if i % self.interval else 0 for i in range(count)])

    def is_early(self, step: int, steps: int) -> bool:
        """Whether a step of ``steps`` caches the rear blocks."""
        return step < self.switch * steps

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Two caches that do not overlap, one for each stage; the one whose stage it is not keeps itself fresh."""
        sites = pipeline.sites
        blocks = self.cached(len(sites))

        def runs(early: bool) -> bool:
            step = pipeline.clock.step
            return step % self.interval == 0 or early != self.is_early(step, pipeline.steps)

        rear = RangeCache(pipeline, lambda state, conditioning: runs(early=True))
        front = RangeCache(pipeline, lambda state, conditioning: runs(early=False))
        with rear.attached(sites[-blocks:]), front.attached(sites[:blocks]):
            yield
