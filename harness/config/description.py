"""What a method is, from what its plan changes: its kind, its steps, its solver, its timesteps and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from harness.config.methods import Composition, StandIn
from harness.contracts import Method, Trained
from harness.cost.plan import COMPILATION, PRECISION, RANK, SOLVER, STEPS, TIMESTEPS, WORK, Plan
from harness.errors import HarnessError
from harness.results import BASELINE, Kind, MethodPart, MethodRecord, UpfrontCost, method_parts


@dataclass(frozen=True)
class Plugin:
    """A user's file of methods or metrics, or a package that brings some.

    ``digest``: SHA-256 of the file with what it imports from beside it, whose texts are ``sources`` by their names in ``folder``.
    Of a package, whose code is found by its modules, there are none.
    """

    name: str
    digest: str
    sources: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()


def describe_method(label: str, text: str, method: Method, plan: Plan, plugins: Mapping[str, Plugin]) -> MethodRecord:
    """The record of a method that has not run yet, on the pipeline whose plain run is ``plan``.

    ``plugins``: where the names that are not ours come from. Where the plan cannot be made, its kind is unknown.
    """
    names = [part.split(":")[0] for part in method_parts(text)]
    found: list[MethodPart] = []
    spent, start = UpfrontCost(0.0, 0), plan
    try:
        for name, part in zip(names, parts_of(method), strict=True):
            after, cost = part.plan(plan), part.upfront_cost(plan.backbone) if isinstance(part, Trained) else UpfrontCost(0.0, 0)
            after = replace(after, spacing=after.spacing or (name if after.timesteps else ""))
            found.append(_part(name, _kind(part, plan, after, cost), part, plugins))
            plan, spent = after, spent + cost
    except HarnessError:
        parts = tuple(_part(name, "unknown", part, plugins) for name, part in zip(names, parts_of(method), strict=True))
        return MethodRecord(label, text, "unknown", None, None, parts=parts)
    kind = found[0].kind if len(found) == 1 else "composition"
    return MethodRecord(
        label,
        text,
        kind,
        len(plan.steps),
        plan.block_evaluations,
        None,
        spent.extra_parameters,
        spent.training_s or None,
        spent.calibration_s or None,
        plan.solver or start.solver,
        plan.spacing,
        plan.timesteps,
        tuple(found),
    )


def parts_of(method: Method) -> tuple[Method, ...]:
    """The methods that a composition is made of, or the only one; of a stand-in, those that stand in."""
    if isinstance(method, StandIn):
        return parts_of(method.method)
    return method.parts if isinstance(method, Composition) else (method,)


def _part(name: str, kind: Kind, method: Method, plugins: Mapping[str, Plugin]) -> MethodPart:
    options: dict[str, Any] = {}
    if is_dataclass(method):
        options = {field.name: to_jsonable_python(getattr(method, field.name), fallback=str) for field in fields(method)}
    plugin = plugins.get(name, Plugin("", ""))
    return MethodPart(name, kind, options, plugin.name, plugin.digest)


def _kind(method: Method, before: Plan, after: Plan, cost: UpfrontCost) -> Kind:
    """What one method does, from what it has decided and from what differs between the plans before and after it."""
    chosen = after.chosen - before.chosen
    if cost.training_s or cost.extra_parameters:
        return "learned"
    if WORK in chosen or (after.exact, after.loops) != (before.exact, before.loops) or set(after.steps) != set(before.steps):
        return "less work per step"
    if PRECISION in chosen or COMPILATION in chosen:
        return "precision" if PRECISION in chosen else "compilation"
    if chosen - RANK.keys():
        return "other"
    if SOLVER in chosen or after.solver != before.solver:
        return "solver"
    if TIMESTEPS in chosen or after.timesteps != before.timesteps:
        return "timesteps"
    if STEPS in chosen or len(after.steps) != len(before.steps):
        return "fewer steps"
    return "full" if method.label == BASELINE else "other"
