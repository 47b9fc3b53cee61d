"""Solvers of flow matching on the sigmas of the checkpoint's own scheduler, or on chosen ones.

diffusers' multistep solvers know flow matching, but not the sigmas of a model: they make their own, and most take no others. Here
they get those that the checkpoint's scheduler makes, with its shift by resolution. Where the pipeline names none, as SD3's, that
scheduler goes down to its least sigma before the last step. Euler, the family's own, does so, too; for the others that step would
be a jump in the logarithm of signal over noise across which they extrapolate, so they get trailing sigmas.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from harness.sampling.process import ALMOST_NOISE, TRAINED

Sigmas = Callable[[int], "Sequence[float] | None"]  # what a pipeline passes to its scheduler for a step count, before any shift
TOLD = (
    *("use_dynamic_shifting", "base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift", "time_shift_type", "shift"),
    *("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
)


def set_steps(scheduler: Any, steps: int, sigmas: Sequence[float] | None, mu: float | None) -> None:
    """Tell a scheduler its steps as a pipeline does: with its sigmas and its shift by resolution, where it takes them."""
    takes = inspect.signature(scheduler.set_timesteps).parameters
    given = {"sigmas": sigmas, "mu": mu}
    scheduler.set_timesteps(steps, **{name: value for name, value in given.items() if value is not None and name in takes})


class FlowGrid:
    """Sigmas and timesteps as a flow-matching checkpoint's own scheduler makes them."""

    def __init__(self, own: Any, sigmas: Sigmas) -> None:
        self.own, self.sigmas = type(own).from_config(own.config), sigmas

    def make(
        self, steps: int, sigmas: Sequence[float] | None, mu: float | None, trailing: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sigmas [steps + 1], the last of which is 0, and timesteps [steps], float32 on the host.

        ``trailing``: before any shift 1, 1 - 1 / steps, ... 1 / steps, where nobody names others.
        """
        told = self.sigmas(steps) if sigmas is None else sigmas
        if told is None and trailing:
            told = [1 - i / steps for i in range(steps)]
        set_steps(self.own, steps, told, mu)
        return self.own.sigmas.float().cpu(), self.own.timesteps.float().cpu()


class OnFlowGrid:
    """Mixed into a scheduler of diffusers: ``grid`` decides its sigmas."""

    grid: FlowGrid
    trailing = False  # see FlowGrid.make
    most = 1 - ALMOST_NOISE  # of sigma: multistep solvers take the logarithm of 1 - sigma

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """The checkpoint's sigmas for a step count, or those of chosen timesteps, 1000 sigma; the history is empty again."""
        if timesteps is not None:
            found = torch.tensor(list(timesteps), dtype=torch.float32)
            made = torch.cat([found / TRAINED, torch.zeros(1)]), found
        else:
            steps = len(sigmas) if num_inference_steps is None and sigmas is not None else num_inference_steps
            assert steps is not None
            made = self.grid.make(steps, sigmas, mu, self.trailing)
        this: Any = self
        this.sigmas, this.timesteps = made[0].clamp(max=self.most), made[1].to(device)
        this.num_inference_steps = len(made[1])
        this.model_outputs = [None] * this.config.get("solver_order", 1)
        this.lower_order_nums, this.last_sample, this._step_index, this._begin_index = 0, None, None, None


class FlowEuler(OnFlowGrid, FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """First order: the families' own solver."""

    most = 1.0


class FlowDPM(OnFlowGrid, DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), multistep."""


class FlowUniPC(OnFlowGrid, UniPCMultistepScheduler):  # type: ignore[misc]
    """UniPC (Zhao et al. 2023, arXiv 2302.04867)."""


class FlowDEIS(OnFlowGrid, DEISMultistepScheduler):  # type: ignore[misc]
    """DEIS (Zhang and Chen 2022, arXiv 2204.13902).

    Its steps of first order, from pure noise and to the clean image, are written as what they are, mixtures of both predictions:
    its own form divides by the signal at the one and by the noise at the other.
    """

    def convert_model_output(self, model_output: torch.Tensor, *args: Any, sample: Any = None, **kwargs: Any) -> torch.Tensor:
        """The noise; the clean image is kept."""
        sigma = self.sigmas[self.step_index]
        self._clean = sample - sigma * model_output
        return sample + (1 - sigma) * model_output  # type: ignore[no-any-return]

    def deis_first_order_update(self, model_output: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A step of DDIM."""
        sigma = self.sigmas[self.step_index + 1]
        return (1 - sigma) * self._clean + sigma * model_output  # type: ignore[no-any-return]

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True) -> Any:
        """The last step is of first order."""
        if self.step_index == len(self.timesteps) - 1:
            self.lower_order_nums = 0
        return super().step(model_output, timestep, sample, return_dict)


class FlowHeun(FlowEuler):
    """Second order by two calls of the model a step, the last step one of Euler: 2 n - 1 calls, and as many timesteps."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Every timestep but the first twice: where a step ends, and where the next begins."""
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)
        this: Any = self
        this.timesteps = torch.cat([this.timesteps[:1], this.timesteps[1:].repeat_interleave(2)])
        self._calls = 0
        self._begun = self._velocity = torch.empty(0)

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Towards the end of a step, or, in every second call, from its beginning again with the mean of both velocities."""
        number, corrects = divmod(self._calls, 2)
        width = self.sigmas[number + 1] - self.sigmas[number]
        if corrects:
            moved = self._begun + width * (self._velocity + model_output.float()) / 2
        else:
            self._begun, self._velocity = sample.float(), model_output.float()
            moved = self._begun + width * self._velocity
        self._calls += 1
        moved = moved.to(sample.dtype)
        return SchedulerOutput(prev_sample=moved) if kwargs.get("return_dict", True) else (moved,)


FLOW_SETTINGS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def on_flow_grid(scheduler: Any, own: Any, sigmas: Sigmas, trailing: bool) -> Any:
    """A scheduler on the grid of the checkpoint's own, which pipelines read its settings from; ``trailing`` as in
    :meth:`FlowGrid.make`."""
    scheduler.grid, scheduler.trailing = FlowGrid(own, sigmas), trailing
    scheduler.register_to_config(**{name: own.config[name] for name in TOLD if name in own.config})
    return scheduler
