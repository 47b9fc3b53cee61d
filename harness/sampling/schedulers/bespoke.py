"""Bespoke non-stationary solvers: timesteps and coefficients learned for one model (Shaul et al. 2024, arXiv 2403.01329)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from diffusers.configuration_utils import register_to_config

from harness.cost.guidance import Guidance
from harness.errors import NotMeasured, UsageError
from harness.models.families.base import Family, ModelCall
from harness.sampling.clock import StepClock
from harness.sampling.process import Process
from harness.sampling.schedulers.base import OwnScheduler
from harness.sampling.schedulers.solver_table import SolverTable
from harness.sampling.sites import Predict, model_changed


class BespokeScheduler(OwnScheduler):
    """The linear part of a :class:`SolverTable`; :func:`guidance_terms` adds the other. It has one step count, its table's."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        table: dict[str, Any] | None = None,
        flow: bool = False,
    ) -> None:
        self.table = SolverTable.read(table)
        if flow:
            self._follow(Process(None, "flow_prediction"))
            return
        self._schedule(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
        )

    def set_timesteps(
        self, num_inference_steps: int = 0, device: Any = None, timesteps: Any = (), sigmas: Any = None, mu: Any = None
    ) -> None:
        """The table's timesteps, whatever is asked for."""
        super().set_timesteps(device=device, timesteps=self.table.timesteps)

    def reset(self) -> None:
        """No clean prediction yet."""
        self._clean: list[torch.Tensor] = []

    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """One row of the table."""
        self._clean.append(x0)
        moved = self.table.keep[self.index] * sample
        for weight, clean in zip(self.table.clean[self.index], self._clean, strict=True):
            moved = moved + weight * clean
        return moved


class Guided(Protocol):
    """What the guidance terms need of a pipeline; :class:`harness.sampling.pipeline.Pipeline` is one."""

    @property
    def pipe(self) -> Any:
        """The diffusers pipeline."""
        ...

    @property
    def family(self) -> Family:
        """Its family."""
        ...

    @property
    def guidance(self) -> Guidance:
        """Its guidance."""
        ...

    @property
    def clock(self) -> StepClock:
        """Its clock."""
        ...


@contextmanager
def guidance_terms(pipeline: Guided, scheduler: BespokeScheduler) -> Iterator[None]:
    """Add the table's guidance terms to both branches' predictions while the pipeline runs on ``scheduler``.

    Enter it after whatever else changes the transformer's forward, and only where the pipeline guides. Raises
    :class:`NotMeasured` where the pipeline rescales what the branches make together: they then cannot be moved apart.
    """
    if not pipeline.guidance.is_linear and any(weight for row in scheduler.table.guidance for weight in row):
        raise NotMeasured(
            expected="guidance that is linear in both branches, as a solver's guidance terms need it",
            got="a pipeline that rescales the guided prediction",
            remedy="use a solver without guidance terms",
        )
    terms = _GuidanceTerms(pipeline, scheduler)
    with model_changed(pipeline.pipe.transformer, pipeline.family, terms.change):
        yield


class _GuidanceTerms:
    """The predictions of both branches, moved so that they make the solver's clean image D_i."""

    def __init__(self, pipeline: Guided, scheduler: BespokeScheduler) -> None:
        self.pipeline, self.scheduler = pipeline, scheduler
        self._differences: list[torch.Tensor] = []
        self._conditional = torch.empty(0)  # of the first of two calls

    def change(self, predict: Predict, call: ModelCall) -> torch.Tensor:
        prediction, guidance = predict(call), self.pipeline.guidance
        if self.pipeline.pipe.scheduler is not self.scheduler:
            return prediction
        if guidance.layout == "calls":
            return self._of_two_calls(prediction)
        channels = call.sample.shape[1]
        own = prediction[:, :channels]
        shift = self._shift(*guidance.halves(own.float())).to(prediction.dtype)
        return torch.cat([own + torch.cat([shift, shift]), prediction[:, channels:]], dim=1)

    def _of_two_calls(self, prediction: torch.Tensor) -> torch.Tensor:
        """The second call's answer makes up for both: the first has already been given."""
        guidance = self.pipeline.guidance
        if self.pipeline.clock.call == 0:
            self._conditional = prediction
            return prediction
        conditional, null = self._conditional.float(), prediction.float()
        guided = guidance.combined(conditional, null) + self._shift(conditional, null)
        return guidance.null_for(guided, conditional).to(prediction.dtype)

    def _shift(self, conditional: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
        """What both predictions [B, ...] are moved by."""
        step = self.pipeline.clock.step
        if step == 0:
            self._differences = []
        here = self.scheduler.levels[step]
        slope = self.scheduler.process.slope(here.signal, here.noise)
        if step and len(conditional) != len(self._differences[0]):
            raise UsageError(
                expected="both guidance branches at every step, as a learned solver needs them",
                got="a method that drops one",
                remedy="leave one of the two out",
            )
        self._differences.append(slope * (conditional - null))
        weights = self.scheduler.table.guidance[step]
        added = torch.stack([w * d for w, d in zip(weights, self._differences, strict=True)]).sum(dim=0)
        return added / slope
