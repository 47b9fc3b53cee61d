"""T-GATE: cross-attention is settled early (Zhang et al. 2024, arXiv 2404.02747)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from baselines.support.caching import Latest, parts_cached
from harness.cost.plan import Plan
from harness.errors import NotMeasured, UsageError
from harness.sampling.branches import conditional_only
from harness.sampling.schedulers.solver_table import LEARNED

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class TGate:
    """After the first ``gate`` (0..1) of the steps cross-attention is frozen, and guidance is dropped.

    What is frozen is the last output, averaged over the two guidance branches where there are two; from then on only the
    conditional branch runs. The default is the paper's 15 of 25 steps. A DiT has no cross-attention: not measured there.
    """

    gate: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.gate <= 1:
            raise UsageError(expected="a gate above 0 and at most 1", got=f"{self.gate:g}", remedy="for example t-gate:0.6")

    @property
    def label(self) -> str:
        """For example ``t-gate(0.6)``."""
        return f"t-gate({self.gate:g})"

    def gate_step(self, steps: int) -> int:
        """The number of full steps: the first step, at least."""
        return max(1, round(self.gate * steps))

    def plan(self, plan: Plan) -> Plan:
        """After the gate one branch is left, without cross-attention. Raises :class:`NotMeasured` where there is none."""
        saved = plan.backbone.geometry.skipped(("cross",))
        if not saved:
            raise _no_text()
        if plan.solver == LEARNED or plan.loops:
            raise NotMeasured(
                expected="both guidance branches at every step, as ilf and learned solvers need them",
                got="t-gate, which drops one",
                remedy="leave one of the two out",
            )
        gate = self.gate_step(len(plan.steps))
        late = plan.saving([saved] * len(plan.steps))
        steps = (*plan.steps[:gate], *(replace(cost, branches=1) for cost in late.steps[gate:]))
        return replace(late, steps=steps)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Remember cross-attention, and call the transformer for one branch after the gate."""
        if not pipeline.geometry.skipped(("cross",)):
            raise _no_text()
        gate, rows = self.gate_step(pipeline.steps), pipeline.guidance.rows
        memory = _Mean if rows > 1 else Latest
        frozen = parts_cached(pipeline, lambda step, block, part: step < gate, memory, kinds=("cross",))
        with frozen, conditional_only(pipeline, lambda step: step >= gate):
            yield


class _Mean(Latest):
    """The last output, averaged over the two halves of the guidance batch when it is asked for."""

    def recall(self, step: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.stack(output.chunk(2)).mean(0) for output in self.output)


def _no_text() -> NotMeasured:
    return NotMeasured(
        expected="a model with cross-attention",
        got="one whose captions join its self-attention, or one without captions",
        remedy="use a PixArt or Sana pipeline",
    )
