"""The inference schedule: timesteps, on which steps the inner loop runs, and on which only the conditional branch does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.cost.plan import Plan, StepCost
from harness.errors import UsageError
from harness.sampling.schedulers.solver_table import SolverTable
from ilf.settings import IlfSettings, chosen_steps


@dataclass(frozen=True)
class Schedule:
    """``timesteps`` from high to low; ``feedback``, ``distilled`` and ``carried`` are 0-based step numbers.

    ``distilled``: steps on which the module stands for guidance as well; they all carry feedback. ``carried``: steps whose
    guidance is the difference of both branches on the last step that ran both. ``table``: the solver that
    was learned for this step count; None: the settings' named solver.
    """

    timesteps: tuple[int, ...]
    feedback: frozenset[int]
    distilled: frozenset[int]
    table: SolverTable | None = None
    carried: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        settings: IlfSettings,
        solvers: Mapping[str, Any] | None = None,
        steps: int | None = None,
        feedback: str | None = None,
        guidance_distilled: str | None = None,
    ) -> Schedule:
        """A module's own schedule, or with another step count or other steps chosen.

        ``solvers``: the module's learned solvers by step count, which bring their own timesteps. ``guidance_distilled``
        counts within the steps with feedback: without it such a step would drop the guidance.
        """
        count = steps or settings.steps
        if solvers and str(count) not in solvers:
            raise UsageError(
                expected=f"a step count that this module has a solver for: {', '.join(sorted(solvers, key=int))}",
                got=str(count),
                remedy="choose one of these",
            )
        table = SolverTable.read(solvers[str(count)]) if solvers else None
        timesteps = table.timesteps if table else settings.timesteps(count)
        looped = chosen_steps(feedback or settings.feedback, timesteps)
        if settings.partial and 0 in looped:
            raise UsageError(
                expected="a whole first step", got="a partial one", remedy="use feedback=odd, last-K or step numbers from 1 on"
            )
        distilled = chosen_steps(guidance_distilled or settings.guidance_distilled, timesteps)
        carried = chosen_steps(settings.guidance_carried, timesteps) - {0}  # the first step has no difference to carry over
        return cls(timesteps, looped, distilled & looped, table, carried)

    def plan(self, settings: IlfSettings, plan: Plan) -> tuple[StepCost, ...]:
        """The cost of each step: every block on each branch, and the looped blocks and the module's where there is feedback."""
        plain, (first, last) = plan.step_cost, settings.blocks
        if settings.partial:
            return self._partial_plan(settings, plan)
        extra = settings.depth * plan.backbone.blocks(last, last)
        if settings.inner_pass:
            extra += plan.backbone.blocks(first, last)
        looping = plain.branches if settings.branches == "both" else 1
        costs = []
        for i in range(len(self.timesteps)):
            branches = 1 if i in self.distilled | self.carried else plain.branches
            blocks = plain.blocks + (extra * min(looping, branches) / branches if i in self.feedback else 0)
            costs.append(StepCost(branches, blocks))
        return tuple(costs)

    def _partial_plan(self, settings: IlfSettings, plan: Plan) -> tuple[StepCost, ...]:
        """Partial steps: the blocks from the loop on and the module's, on one branch or on both."""
        plain, (first, last) = plan.step_cost, settings.blocks
        blocks = plan.backbone.blocks(first, plan.backbone.depth) + settings.depth * plan.backbone.blocks(last, last)
        partial = StepCost(plain.branches if settings.branches == "both" else 1, blocks)
        return tuple(partial if i in self.feedback else plain for i in range(len(self.timesteps)))
