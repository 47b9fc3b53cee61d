"""Re-use of single parts of blocks (attention, cross-attention, MLP) by a table of steps: of learned and searched caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.cost.plan import Plan
from harness.errors import ArtifactError, NotMeasured
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline

NAMES = ("attn1", "attn2", "ff")


def part_names(has_captions: bool) -> tuple[str, ...]:
    """The parts of every block by diffusers' names; only PixArt's attend to a caption."""
    return NAMES if has_captions else ("attn1", "ff")


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
                expected=f"a table for {depth} blocks whose first step is full", got=f"another in {name}", remedy="make it again"
            )

    def plan(self, plan: Plan, name: str) -> Plan:
        """The cost without the re-used parts."""
        self.check(len(plan.steps), plan.backbone.depth, name)
        share = plan.backbone.block.share
        return plan.saving([sum(share(part) for block in step for part in block) for step in self.reuse])

    @contextmanager
    def attached(self, pipeline: Pipeline, name: str) -> Iterator[None]:
        """Replace the parts' ``forward`` inside the context; what is kept lives and dies with it."""
        self.check(pipeline.steps, len(pipeline.blocks), name)
        with ExitStack() as stack:
            for number, block in enumerate(pipeline.blocks):
                for part_name in part_names(not pipeline.is_class_conditional):
                    part = getattr(block, part_name)
                    steps = frozenset(i for i, row in enumerate(self.reuse) if part_name in row[number])
                    stack.enter_context(patched(part, "forward", _keeping(part.forward, pipeline, steps)))
            yield


def _keeping(forward: Callable[..., torch.Tensor], pipeline: Pipeline, steps: frozenset[int]) -> Callable[..., torch.Tensor]:
    kept: list[torch.Tensor] = []

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if pipeline.clock.step not in steps:
            kept[:] = [forward(*args, **kwargs)]
        return kept[0]

    return call
