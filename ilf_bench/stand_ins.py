"""What stands in for a method whose trained weights are not at hand, and what training them is predicted to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from harness.config.methods import Composition, StandIn
from harness.config.spec import ExperimentSpec
from harness.contracts import Method
from harness.cost.device_speed import measured_speed
from harness.cost.plan import Backbone, Plan
from harness.cost.training_cost import ASSUMED, Speed, TrainingPlan, predict_training
from harness.errors import NotMeasured
from harness.models.loading import resolve_device
from harness.training.learned_solver import FINE
from harness.training.trajectories import WIDEST_GAP, union_grid
from ilf.forms import settings_for
from ilf.jumps import STATE_BYTES
from ilf.method import Ilf
from ilf.untrained import UntrainedIlf


def with_stand_ins(methods: Mapping[str, Method], plan: Plan, spec: ExperimentSpec, preset: str) -> dict[str, Method]:
    """The methods; those that lack trained weights are replaced by what has the same speed and cost, under their own label.

    One that knows no stand-in stays: it becomes a failed row.
    """
    return {label: _available(label, method, plan, spec, preset) for label, method in methods.items()}


def _available(label: str, method: Method, plan: Plan, spec: ExperimentSpec, preset: str) -> Method:
    try:
        method.plan(plan)
        return method
    except NotMeasured as error:
        untrained = stand_in(method, plan, spec)
        if untrained is None:
            return method
        reason = NotMeasured(expected=error.expected, got=error.got, remedy=training_offer(plan.backbone, spec, preset))
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
    training = spec.training
    first, last = training.loop or (None, None)
    steps, folded = method.steps or training.steps, method.folded or training.folded
    return UntrainedIlf(steps, method.feedback or training.feedback, folded, first, last, training.form)


def training_offer(backbone: Backbone, spec: ExperimentSpec, preset: str) -> str:
    """The command that trains the preset's module, and its predicted device hours and disk."""
    cost = predict_training(backbone.geometry, training_plan(backbone, spec))
    return (
        f"name one: ilf:checkpoint=FOLDER; or train one: ilf-bench train {preset} ({cost.text(sustained_speed(backbone, spec))})"
    )


def training_plan(backbone: Backbone, spec: ExperimentSpec) -> TrainingPlan:
    """The preset's ``training`` section in the numbers that decide its cost."""
    training, geometry = spec.training, backbone.geometry
    settings = settings_for(training, backbone.depth, geometry.tokens * geometry.width * STATE_BYTES)
    first, last = settings.loop
    whole = settings.whole_runs + settings.image_runs
    stored = settings.target != "fad"
    return TrainingPlan(
        looped=last - first + 1 if settings.inner_pass else 0,
        after=backbone.depth - last,
        parameters=_fresh(spec, Ilf()).upfront_cost(backbone).extra_parameters,
        steps=training.optimiser_steps,
        batch=training.batch,
        trajectories=training.trajectories,
        teacher_steps=len(union_grid(training.grids, training.power, WIDEST_GAP)),
        branches=2 if spec.guidance > 1 else 1,
        collected=settings.rounds * settings.runs * sum(training.grids) if stored else 0,
        remembered=min(settings.rounds, settings.remembered) * settings.runs * sum(training.grids),
        whole=whole * settings.whole_batch * sum(settings.whole_counts) // len(settings.whole_counts),
        fine=settings.image_targets if settings.image_runs else 0,
        fine_steps=len(FINE),
    )


def sustained_speed(backbone: Backbone, spec: ExperimentSpec) -> Speed:
    """Measured where the run's device is a GPU; on a CPU, where nobody trains such a model, assumed."""
    device = resolve_device(spec.device)
    if not device.startswith("cuda"):
        return ASSUMED
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return measured_speed(backbone.geometry, device, dtype)
