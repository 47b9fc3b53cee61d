"""The inference schedule: timesteps, on which steps the inner loop runs, and on which only the conditional branch does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.cost.plan import Plan, StepCost
from harness.errors import UsageError
from harness.sampling.schedulers.bespoke import SolverTable
from harness.sampling.solvers import power_grid


@dataclass(frozen=True)
class Schedule:
    """``timesteps`` high to low; ``feedback`` and ``folded`` are 0-based step numbers. Folded steps carry feedback.

    ``table``: the solver that was learned for this step count; None: the module's named solver.
    """

    timesteps: tuple[int, ...]
    feedback: frozenset[int]
    folded: frozenset[int]
    table: SolverTable | None = None

    @classmethod
    def of(cls, config: Any, steps: int | None = None, feedback: str | None = None, folded: str | None = None) -> Schedule:
        """A module's own schedule, with what a user chose otherwise.

        ``folded`` counts within the steps that carry feedback: a folded step without it would drop the guidance.
        """
        count, tables = steps or config["steps"], config.get("solvers") or {}
        if tables and str(count) not in tables:
            raise UsageError(
                expected=f"a step count that this module has a solver for: {', '.join(sorted(tables, key=len))}",
                got=str(count),
                remedy="name one of these",
            )
        table = SolverTable.read(tables[str(count)]) if tables else None
        timesteps = table.timesteps if table else power_grid(count, config["power"])
        looped = chosen_steps(feedback or config["feedback"], timesteps)
        alone = chosen_steps(folded or config["folded"], timesteps)
        return cls(timesteps, looped, alone & looped, table)

    def plan(self, config: Any, plan: Plan) -> tuple[StepCost, ...]:
        """What each step costs: depth on each branch, and the looped blocks and the module on those that loop."""
        plain, extra = plan.step_cost, config["depth"] + (config["last"] - config["first"] + 1 if config["inner_pass"] else 0)
        looping = plain.branches if config["branches"] == "both" else 1
        costs = []
        for i in range(len(self.timesteps)):
            branches = 1 if i in self.folded else plain.branches
            blocks = plain.blocks + (extra * min(looping, branches) / branches if i in self.feedback else 0)
            costs.append(StepCost(branches, blocks))
        return tuple(costs)


def chosen_steps(text: str, timesteps: Sequence[int]) -> frozenset[int]:
    """0-based numbers of the steps that ``text`` chooses.

    ``all``, ``none``, ``first-K``, ``last-K``, ``paper-K`` (K steps spread evenly by i * (n / m): our reading of the
    paper's "feedback-aware inference scheduling", whose exact form is not published), ``above-T`` (those that start at
    timestep T or more), ``between-S-T`` (at S or more and below T), or numbers joined by ``.`` or ``,``.
    """
    steps = len(timesteps)
    window = re.fullmatch(r"above-(\d+)|between-(\d+)-(\d+)", text)
    if window:
        low, high = int(window[1] or window[2]), int(window[3] or 1000)
        return frozenset(i for i, t in enumerate(timesteps) if low <= t < high)
    named = re.fullmatch(r"(first|last|paper)-(\d+)", text)
    if named:
        count = min(int(named[2]), steps)
        every = {
            "first": range(count),
            "last": range(steps - count, steps),
            "paper": (int(i * steps / count) for i in range(count)),
        }
        return frozenset(every[named[1]])
    if text in ("all", "none"):
        return frozenset(range(steps) if text == "all" else ())
    numbers = re.split(r"[.,]", text)
    if not all(n.isdecimal() and int(n) < steps for n in numbers):
        raise UsageError(
            expected=f"all, none, first-K, last-K, paper-K, above-T, between-S-T or step numbers below {steps}",
            got=repr(text),
            remedy="edit feedback= or folded=",
        )
    return frozenset(int(n) for n in numbers)
