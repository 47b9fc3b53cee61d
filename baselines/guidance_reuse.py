"""Guidance from the step before: the null branch runs on some of the steps only."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from harness.cost.plan import Plan
from harness.errors import NotMeasured, UsageError
from harness.sampling.branches import guidance_reused

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class GuidanceReuse:
    """Both guidance branches run on every ``interval``-th step; on those between them only the conditional branch does.

    There the null prediction is the conditional one minus the difference of both on the last step that ran both: CFG-Cache of
    FasterCache (Lv et al. 2024, arXiv 2410.19355) without its weights for low and high frequencies. That the null branch of
    many steps can be left out is shown by Adaptive Guidance (Castillo et al. 2023, arXiv 2312.12487). ``first``: both branches
    run on so many of the first steps.
    """

    innermost: ClassVar[int] = 1  # a learned solver's guidance terms need both predictions
    interval: int = 2
    first: int = 1

    def __post_init__(self) -> None:
        if self.interval < 1 or self.first < 1:
            raise UsageError(
                expected="an interval and first steps of at least 1",
                got=f"interval={self.interval}, first={self.first}",
                remedy="for example guidance-reuse:interval=2",
            )

    @property
    def label(self) -> str:
        """For example ``guidance-reuse(interval=2)``."""
        return f"guidance-reuse(interval={self.interval}{f', first={self.first}' if self.first > 1 else ''})"

    def reuses(self, step: int) -> bool:
        """Whether only the conditional branch runs at this 0-based step."""
        return step >= self.first and (step - self.first + 1) % self.interval > 0

    def plan(self, plan: Plan) -> Plan:
        """One branch on the steps that reuse. Raises :class:`NotMeasured` where there is one anyway, and beside ilf."""
        if not plan.guidance.on:
            raise _one_branch()
        if plan.loops:
            raise NotMeasured(
                expected="both guidance branches at every step, as ilf needs them",
                got="guidance-reuse, which drops one",
                remedy="leave one of the two out, or train ilf with guidance_carried",
            )
        return plan.costing(tuple(replace(cost, branches=1) if self.reuses(i) else cost for i, cost in enumerate(plan.steps)))

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Call the transformer for one branch on the steps that reuse."""
        if not pipeline.guidance.on:
            raise _one_branch()
        return guidance_reused(pipeline, self.reuses)


def _one_branch() -> NotMeasured:
    return NotMeasured(
        expected="a model with two guidance branches",
        got="one branch: guidance is off, distilled, or told to the model",
        remedy="choose a guidance scale that runs both",
    )
