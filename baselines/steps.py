"""The full run, fewer steps, and another solver: the baselines that every accelerator must beat."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config.solvers import OWN, check_solver
from harness.cost.plan import Plan
from harness.errors import UsageError
from harness.results import BASELINE
from harness.sampling.grids import power_grid

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class Full:
    """The pipeline as the preset sets it."""

    @property
    def label(self) -> str:
        """``full``."""
        return BASELINE

    def plan(self, plan: Plan) -> Plan:
        """Unchanged."""
        return plan

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()


@dataclass(frozen=True)
class Steps:
    """The same solver with ``steps`` denoising steps."""

    steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise UsageError(expected="1 to 1000 steps", got=str(self.steps), remedy="for example steps:12")

    @property
    def label(self) -> str:
        """For example ``12 steps``."""
        return f"{self.steps} steps"

    def plan(self, plan: Plan) -> Plan:
        """The cost of one step, ``steps`` times."""
        return plan.with_steps(self.steps)

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Change the step count inside the context."""
        return pipeline.sampling(steps=self.steps)


@dataclass(frozen=True)
class Solver:
    """Another ODE solver by name; see :mod:`harness.sampling.solvers`."""

    name: str

    def __post_init__(self) -> None:
        check_solver(self.name)

    @property
    def label(self) -> str:
        """The solver's name."""
        return self.name

    def plan(self, plan: Plan) -> Plan:
        """The same cost per call of the model. Raises :class:`NotMeasured` where the solver is written for other models."""
        from harness.sampling.solvers import solver_kind

        if self.name != OWN:
            solver_kind(self.name, plan.backbone.shift is not None)
        return plan.with_solver(self.name)

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Change the scheduler inside the context."""
        return pipeline.sampling(solver=self.name)


@dataclass(frozen=True)
class Spacing:
    """Timesteps closer together towards the clean image: T (1 - i / n)^power. Costs nothing; 1 is trailing spacing."""

    power: float

    def __post_init__(self) -> None:
        power_grid(1, self.power)

    @property
    def label(self) -> str:
        """For example ``spacing(1.5)``."""
        return f"spacing({self.power:g})"

    def plan(self, plan: Plan) -> Plan:
        """The same cost, on other timesteps."""
        grid = power_grid(len(plan.steps), self.power, shift=plan.backbone.shift)
        return plan.with_timesteps(grid, f"{self.power:g}")

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Change the timesteps inside the context; the step count is that of the methods before this one."""
        return pipeline.sampling(timesteps=power_grid(pipeline.steps, self.power, shift=pipeline.backbone.shift))
