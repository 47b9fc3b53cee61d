"""Encoder propagation: the first blocks run at key steps only (Faster Diffusion, Li et al. 2024, arXiv 2312.09608)."""

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
class EncoderPropagation:
    """Blocks 1 to ``blocks`` run at ``keys`` key steps; at the others the rest goes on, at the new timestep, from their output.

    The U-Net original keeps the encoder and runs the decoder. What a DiT's first blocks return is kept as it is, without the
    step's own input: this is ILF without the feedback module, so it shows what the module is worth. Key steps are denser
    early, at n (i / keys)^1.5 of n steps; the original's are hand-picked with about that density. Default: 18 of 28 blocks.
    """

    keys: int = 10
    blocks: int | None = None

    def __post_init__(self) -> None:
        at_least("keys", self.keys, 1)

    @property
    def label(self) -> str:
        """For example ``encoder(keys=10)``."""
        return f"encoder(keys={self.keys}{f', blocks={self.blocks}' if self.blocks else ''})"

    def key_steps(self, steps: int) -> frozenset[int]:
        """The steps at which everything runs; all of them where there are as many keys."""
        keys = min(self.keys, steps)
        chosen = [0]
        for i in range(1, keys):
            chosen.append(max(chosen[-1] + 1, int(steps * (i / keys) ** 1.5)))
        return frozenset(chosen)

    def encoder(self, depth: int) -> int:
        """How many first blocks are propagated, checked against the model's depth."""
        blocks = self.blocks or round(depth * 18 / 28)
        if not 1 <= blocks < depth:
            raise UsageError(expected=f"1 to {depth - 1} propagated blocks", got=str(blocks), remedy="edit the method")
        return blocks

    def plan(self, plan: Plan) -> Plan:
        """Every step but the key ones loses the first blocks."""
        saved, keys = plan.backbone.blocks(1, self.encoder(plan.backbone.depth)), self.key_steps(len(plan.steps))
        return plan.saving([0 if i in keys else saved for i in range(len(plan.steps))])

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Keep what leaves the last propagated block."""
        keys, sites = self.key_steps(pipeline.steps), pipeline.sites
        cache = RangeCache(pipeline, lambda state, conditioning: pipeline.clock.step in keys, absolute=True)
        with cache.attached(sites[: self.encoder(len(sites))]):
            yield
