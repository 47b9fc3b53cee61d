"""What a run will evaluate, known before a weight is loaded: block evaluations by step, and the model they are counted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.config.solvers import OWN_GRID, model_calls, solver_steps
from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.errors import NotMeasured, UsageError


@dataclass(frozen=True)
class StepCost:
    """One denoising step: ``branches`` is 2 with classifier-free guidance and 1 without it, or where it is distilled."""

    branches: int
    blocks: float

    def __post_init__(self) -> None:
        if not (self.branches >= 1 and 0 <= self.blocks < math.inf):
            got = f"{self.branches} and {self.blocks:g}"
            raise UsageError(expected="branches of 1 or more, and blocks of 0 or more", got=got, remedy="fix the method's plan")

    @property
    def evaluations(self) -> float:
        """Block evaluations per image in this step."""
        return self.branches * self.blocks


@dataclass(frozen=True)
class Backbone:
    """What a cost prediction needs to know of a model, before a weight is loaded.

    ``depth`` counts its transformer blocks over all lists of them, ``shapes`` say what each costs and ``config`` is the
    transformer's ``config.json``. Without the last two only whole block evaluations can be predicted. ``family``: the name of its
    family (see :mod:`harness.models.families`). ``own_transformer``: the transformer's folder, where it lies in a repository of
    its own and not in ``folder``. ``weights``: names those that a method puts in the place of the model's own. ``shift``: of its
    flow-matching timesteps; None: it is no flow-matching model.
    """

    depth: int
    folder: Path | None
    shapes: Geometry | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    reshaped: Callable[[Mapping[str, Any], float], Geometry] | None = field(default=None, compare=False, repr=False)
    own_transformer: Path | None = None
    weights: str = ""
    shift: float | None = None
    own_timesteps: Callable[[int, bool], tuple[float, ...]] | None = field(default=None, compare=False, repr=False)

    def timestep(self, step: int, steps: int, solver: str = "") -> float:
        """The timestep of a step of ``steps``, where none are chosen: with flow matching as the ``solver`` has them on the
        checkpoint's own grid, with betas evenly spaced as every solver here has them."""
        if self.own_timesteps is not None:
            return self.own_timesteps(steps, solver not in OWN_GRID)[step]
        return round(1000 * (1 - step / steps)) - 1

    def like(self, config: Mapping[str, Any] | None = None, scale: float = 1.0) -> Geometry:
        """The shapes of a transformer with another config in the place of this one, on images whose sides are ``scale`` times as
        long. Raises :class:`NotMeasured` where nothing is known of the pipeline."""
        if self.reshaped is None:
            raise _unknown()
        return self.reshaped(self.config if config is None else config, scale)

    @property
    def geometry(self) -> Geometry:
        """The shapes from which costs are counted. Raises :class:`NotMeasured` where they are not known."""
        if self.shapes is None:
            raise _unknown()
        return self.shapes

    def blocks(self, first: int = 1, last: int | None = None) -> float:
        """What blocks ``first`` to ``last`` (1-based, inclusive; default: all) are worth in mean blocks."""
        last = self.depth if last is None else last
        return float(last - first + 1) if self.shapes is None else sum(self.shapes.weights[first - 1 : last])


def _unknown() -> NotMeasured:
    return NotMeasured(
        expected="a model whose blocks' cost is known", got="none", remedy="name a pipeline folder, or random:NAME"
    )


STEPS, SOLVER, TIMESTEPS, WORK = "the number of steps", "the solver", "the timesteps", "what its steps leave out"
PRECISION, COMPILATION = "the precision of the weights", "compilation"


RANK = {STEPS: 0, SOLVER: 0, TIMESTEPS: 1, WORK: 2}  # what is chosen later in a composition depends on what was before


@dataclass(frozen=True)
class Plan:
    """What a run will evaluate, known before any weight is loaded.

    ``exact`` is False where a method decides from the data: its cost is then an upper bound, and the counted one stands.
    ``timesteps`` are chosen ones, high to low, and ``spacing`` names the rule that chose them; none: the solver's own.
    ``loops``: blocks run again on some steps, which a cache may skip along with the blocks. ``chosen``: what the methods of a
    composition have decided so far.
    >>> full = Plan.full(Backbone(28, None), 20, Guidance(4.5))
    >>> full.block_evaluations, full.with_steps(10).block_evaluations
    (1120.0, 560.0)
    """

    backbone: Backbone
    steps: tuple[StepCost, ...]
    guidance: Guidance = field(default_factory=Guidance)
    solver: str = ""
    exact: bool = True
    timesteps: tuple[int, ...] = ()
    spacing: str = ""
    loops: bool = False
    chosen: frozenset[str] = frozenset()

    @classmethod
    def full(cls, backbone: Backbone, steps: int, guidance: Guidance, solver: str = "") -> Plan:
        """The plain pipeline: every block, on both guidance branches where there is guidance."""
        return cls(backbone, (StepCost(guidance.branches, backbone.blocks()),) * model_calls(solver, steps), guidance, solver)

    @property
    def block_evaluations(self) -> float:
        """Block evaluations per image, over all steps and branches."""
        return sum(step.evaluations for step in self.steps)

    @property
    def step_cost(self) -> StepCost:
        """What any step costs. Raises :class:`UsageError` where something has already made them differ."""
        if len(set(self.steps)) > 1:
            raise _wrong_order()
        return self.steps[0]

    def choosing(self, *what: str) -> Plan:
        """The same, and ``what`` is decided.

        Raises :class:`UsageError` where another method of a composition has decided it, or something that depends on it.
        """
        for one in what:
            if one in self.chosen:
                raise UsageError(
                    expected=f"one method of a composition that chooses {one}", got="two", remedy="leave one of them out"
                )
            if one in RANK and any(RANK.get(other, 0) > RANK[one] for other in self.chosen):
                raise _wrong_order()
        return replace(self, chosen=self.chosen | set(what))

    def with_steps(self, steps: int) -> Plan:
        """The same cost per call, in ``steps`` steps on the solver's own timesteps. Raises :class:`UsageError` on none."""
        if steps < 1:
            raise UsageError(expected="at least 1 step", got=str(steps), remedy="ask for more steps")
        costs = (self.step_cost,) * model_calls(self.solver, steps)
        return replace(self.choosing(STEPS), steps=costs, timesteps=(), spacing="")

    def with_solver(self, solver: str) -> Plan:
        """The same cost per call of the model, as often as the solver calls it in as many steps."""
        chosen, steps = self.choosing(SOLVER), self.steps
        calls = model_calls(solver, solver_steps(self.solver, len(steps)))
        if calls != len(steps):
            steps = (self.step_cost,) * calls
        return replace(chosen, steps=steps, solver=solver, timesteps=(), spacing="")

    def with_timesteps(self, timesteps: tuple[int, ...], spacing: str = "") -> Plan:
        """As many steps, elsewhere. Timesteps of one ``spacing`` are compared as one curve over step counts."""
        return replace(self.choosing(TIMESTEPS), timesteps=timesteps, spacing=spacing)

    def scheduled(self, steps: tuple[StepCost, ...], solver: str, timesteps: tuple[int, ...], *, loops: bool = False) -> Plan:
        """What a method chooses that brings steps, solver and timesteps of its own."""
        chosen = self.choosing(STEPS, SOLVER, TIMESTEPS)
        return replace(chosen, steps=steps, solver=solver, timesteps=timesteps, spacing="", loops=loops)

    def saving(self, saved: Sequence[float]) -> Plan:
        """Step ``i`` costs ``saved[i]`` block evaluations less on each branch.

        Raises :class:`UsageError` where that is more than it costs, or where there are not as many savings as steps.
        """
        self.choosing(WORK)  # raises where something else has
        if len(saved) != len(self.steps):
            remedy = "fix the method's plan"
            raise UsageError(expected=f"a saving for each of {len(self.steps)} steps", got=f"{len(saved)}", remedy=remedy)
        for number, (cost, less) in enumerate(zip(self.steps, saved, strict=True)):
            if not less <= cost.blocks:
                raise UsageError(
                    expected=f"a saving of at most {cost.blocks:g} block evaluations, which step {number} costs",
                    got=f"{less:g}",
                    remedy="fix the method's plan",
                )
        costs = tuple(replace(cost, blocks=cost.blocks - less) for cost, less in zip(self.steps, saved, strict=True))
        return replace(self.costing(costs), exact=self.exact and not self.loops)

    def costing(self, steps: tuple[StepCost, ...]) -> Plan:
        """Some steps do less, at these costs."""
        return replace(self.choosing(WORK), steps=steps)

    def at_most(self) -> Plan:
        """Some steps do less, which the images decide."""
        return replace(self.choosing(WORK), exact=False)


def _wrong_order() -> UsageError:
    return UsageError(
        expected="what chooses steps or solver before what spaces the steps, and both before what saves on some of them",
        got="another order of methods",
        remedy="write steps:N or ilf first, and then + and the rest, for example steps:8+spacing:1.5+fora:2",
    )
