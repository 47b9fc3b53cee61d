"""DeepCache-style block caching for diffusion transformers (Ma et al. 2024, arXiv 2312.00858, carried over to DiTs)."""

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


def default_range(depth: int) -> tuple[int, int]:
    """The middle 18 of 28 blocks, in proportion: 1-based first and last (6 and 23 of 28)."""
    inner = round(depth * 18 / 28)
    first = (depth - inner) // 2 + 1
    return first, first + inner - 1


@dataclass(frozen=True)
class DeepCache:
    """Run all blocks every ``interval`` steps; between, skip blocks ``first`` to ``last`` and add their cached residual.

    The U-Net original re-uses a deep feature beside a fresh skip connection. A DiT has no long skips, so what is kept is
    the residual (output minus input of the skipped range), which leaves the fresh input in the sum. Block numbers are
    1-based and inclusive; left out, the middle 18/28 of the blocks are skipped, as in the ILF paper's table.
    """

    interval: int = 3
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        at_least("an interval", self.interval, 1)

    @property
    def label(self) -> str:
        """For example ``deepcache(interval=3, blocks=3-10)``."""
        blocks = f", blocks={self.first or ''}-{self.last or ''}" if self.first or self.last else ""
        return f"deepcache(interval={self.interval}{blocks})"

    def block_range(self, depth: int) -> tuple[int, int]:
        """The skipped blocks, 1-based and inclusive, checked against the model's depth."""
        default = default_range(depth)
        first, last = self.first or default[0], self.last or default[1]
        if not 1 <= first <= last <= depth:
            raise UsageError(
                expected=f"1 <= first <= last <= {depth}", got=f"first={first}, last={last}", remedy="edit the method"
            )
        return first, last

    def plan(self, plan: Plan) -> Plan:
        """Every step but each ``interval``-th loses the skipped blocks."""
        first, last = self.block_range(plan.backbone.depth)
        saved = plan.backbone.blocks(first, last)
        return plan.saving([saved if i % self.interval else 0 for i in range(len(plan.steps))])

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Skip by replacing the blocks' ``forward``; the cache lives and dies with the context."""
        sites = pipeline.sites
        first, last = self.block_range(len(sites))
        cache = RangeCache(pipeline, lambda state, conditioning: pipeline.clock.step % self.interval == 0)
        with cache.attached(sites[first - 1 : last]):
            yield
