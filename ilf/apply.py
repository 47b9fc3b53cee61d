"""ILF for any diffusers pipeline of a known family, in two lines and without the harness's runner."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from harness.cost.guidance import Guidance
from harness.models.families.base import Family
from harness.models.families.table import described, family_of
from harness.sampling.clock import StepClock
from harness.sampling.patching import patched
from harness.sampling.schedulers.bespoke import BespokeScheduler, guidance_terms
from harness.sampling.solvers import build_bespoke, build_solver
from ilf.attach import feedback_attached
from ilf.checkpoint import check_fits, load_module
from ilf.module import FeedbackModule


@dataclass(frozen=True)
class _View:
    """What guidance terms need to know of a pipeline."""

    pipe: Any
    family: Family
    clock: StepClock
    guidance: Guidance


class Applied:
    """A pipeline with ILF on it. ``remove()`` gives the pipeline back as it was; so does leaving a ``with`` block."""

    def __init__(self, pipe: Any, module: FeedbackModule) -> None:
        self.pipe, self.module, self.family = pipe, module, family_of(type(pipe).__name__)
        self._stack = ExitStack()
        try:
            self._attach()
        except BaseException:
            self._stack.close()
            raise

    def _attach(self) -> None:
        module, pipe, clock, enter = self.module, self.pipe, StepClock(), self._stack.enter_context
        schedule, own = module.schedule(), pipe.scheduler
        scheduler = (
            build_bespoke(schedule.table, own)
            if schedule.table
            else build_solver(module.settings.solver, own, self.family.sigmas)
        )
        set_timesteps = scheduler.set_timesteps

        def on_grid(num_inference_steps: int, device: Any = None, **kwargs: Any) -> None:
            nonlocal schedule
            schedule = self.module.schedule(num_inference_steps)  # the pipeline holds self: it lives as long
            if schedule.table is not None:
                scheduler.table = schedule.table
            set_timesteps(timesteps=list(schedule.timesteps), device=device)

        enter(patched(scheduler, "set_timesteps", on_grid))
        enter(clock.following(scheduler))
        self._stack.callback(setattr, pipe, "scheduler", own)  # no context manager: none may undo this when it is collected
        pipe.scheduler = scheduler
        family, scale = self.family, module.config.guidance
        view = _View(pipe, family, clock, family.guidance(described(pipe).configs, scale, scale))
        enter(feedback_attached(pipe.transformer, family, module, lambda: schedule, clock, view.guidance))
        if isinstance(scheduler, BespokeScheduler):
            enter(guidance_terms(view, scheduler))
        enter(clock.counting_calls(pipe.transformer))

    def remove(self) -> None:
        """Restore scheduler and transformer."""
        self._stack.close()

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def apply(pipe: Any, module: str | Path | FeedbackModule) -> Applied:
    """Put a trained feedback module on a diffusers pipeline of a known family (docs/families.md).

        applied = ilf.apply(pipe, "folder-or-hub-id")
        images = pipe(prompt, num_inference_steps=8, guidance_scale=applied.module.config.guidance).images

    Call the pipeline with the guidance scale that the module was trained for: on guidance-distilled steps it is part of the
    weights. ``module``: a folder, a hub id, or a module in memory. Solver and timesteps become the module's; one with learned
    solvers takes the step counts that these are for. Raises :class:`ArtifactError` where it was made for another backbone.
    """
    if not isinstance(module, FeedbackModule):
        folder = Path(module)
        module = load_module(folder) if folder.exists() else FeedbackModule.from_pretrained(str(module))
    check_fits(module, family_of(type(pipe).__name__), pipe.transformer.config, "the module")
    weights = next(pipe.transformer.parameters())
    nn.Module.to(module, weights.device, weights.dtype)  # diffusers' own warns of layers that are not there
    return Applied(pipe, module.eval())
