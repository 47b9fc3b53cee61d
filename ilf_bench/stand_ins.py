"""What stands in for a method whose trained weights are not available, and what training them is predicted to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.config.methods import Composition, StandIn
from harness.config.spec import ExperimentSpec
from harness.contracts import Method
from harness.cost.device_speed import training_speed
from harness.cost.plan import Plan
from harness.errors import NotMeasured
from harness.sampling.precision import resolve_device
from ilf.method import Ilf
from ilf.settings import IlfSettings
from ilf.training_cost import predict_training
from ilf.untrained import UntrainedIlf


def with_stand_ins(
    methods: Mapping[str, Method], plan: Plan, spec: ExperimentSpec, preset: str, *, here: bool = True
) -> dict[str, Method]:
    """The methods; those that lack trained weights are replaced by what has the same speed and cost, under their own label.

    One that knows no stand-in stays: it becomes a failed row. ``here``: this machine has the device of the run, so that its
    speed can be measured.
    """
    return {label: _available(label, method, plan, spec, preset, here) for label, method in methods.items()}


def _available(label: str, method: Method, plan: Plan, spec: ExperimentSpec, preset: str, here: bool) -> Method:
    try:
        method.plan(plan)
        return method
    except NotMeasured as error:
        untrained = stand_in(method, plan, spec)
        if untrained is None:
            return method
        reason = NotMeasured(expected=error.expected, got=error.got, remedy=training_offer(plan, spec, preset, here))
        return StandIn(label, untrained, str(reason))


def stand_in(method: Method, plan: Plan, spec: ExperimentSpec) -> Method | None:
    """The same method with every missing module fresh, shaped as the preset would train it; None where there is no such thing."""
    if isinstance(method, Ilf):
        if method.checkpoint is not None:
            return None
        return _fresh(spec, method)
    if not isinstance(method, Composition):
        return None
    parts = []
    for part in method.parts:
        try:
            after, chosen = part.plan(plan), part
        except NotMeasured:
            fresh = stand_in(part, plan, spec)
            if fresh is None:
                return None
            after, chosen = fresh.plan(plan), fresh
        plan = after
        parts.append(chosen)
    return replace(method, parts=tuple(parts))


def _fresh(spec: ExperimentSpec, method: Ilf) -> UntrainedIlf:
    training = IlfSettings.of(spec.training, spec.task)
    first, last = (None, None) if isinstance(training.loop, str) else training.loop
    distilled = method.guidance_distilled or training.guidance_distilled
    return UntrainedIlf(
        method.steps or training.steps,
        method.feedback or training.feedback,
        distilled,
        first,
        last,
        spec.training.get("form", "ours"),
    )


def training_offer(plan: Plan, spec: ExperimentSpec, preset: str, here: bool = True) -> str:
    """The command that trains the preset's module, with its predicted disk and time, or work where the device is not ``here``."""
    backbone, geometry = plan.backbone, plan.backbone.geometry
    settings = IlfSettings.of(spec.training, spec.task).resolved(backbone.depth, geometry.state_values)
    parameters = _fresh(spec, Ilf()).upfront_cost(backbone).extra_parameters
    cost = predict_training(geometry, settings, plan.guidance.branches, parameters)
    speed = training_speed(geometry, resolve_device(spec.device), spec.precision) if here else None
    return f"name one: ilf:checkpoint=FOLDER; or train one: ilf-bench train {preset} ({cost.text(speed)})"
