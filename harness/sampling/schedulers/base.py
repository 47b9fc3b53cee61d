"""What our solvers share: noise schedule, trailing timesteps, and both predictions from what the model returned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, DDIMScheduler, SchedulerMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from harness.sampling.process import TRAINED, Process


@dataclass(frozen=True)
class Level:
    """A noise level of x = signal * x0 + noise * eps; ``ratio`` is noise over signal, 0 for the clean image."""

    signal: float
    noise: float

    @property
    def ratio(self) -> float:
        """The time variable in which (x / signal) moves with speed eps."""
        return self.noise / self.signal

    def mix(self, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """The sample at this level."""
        return self.signal * x0 + self.noise * eps


class OwnScheduler(SchedulerMixin, ConfigMixin, ABC):  # type: ignore[misc]
    """A solver with one model call per step on trailing timesteps, the last of which leads to the clean image.

    A subclass forgets its history in :meth:`reset` and moves one step in :meth:`advance`.
    """

    order = 1  # of diffusers' interface: model calls per step
    init_noise_sigma = 1.0

    def _schedule(self, **betas: Any) -> None:
        """Called by the constructor of a subclass with the noise schedule's settings, named as in diffusers."""
        self.alphas_cumprod = DDIMScheduler(**betas).alphas_cumprod
        self._follow(Process(self.alphas_cumprod, self.config.prediction_type))

    def _follow(self, process: Process) -> None:
        """Called by the constructor of a subclass that knows its noising process."""
        self.process = process
        self.set_timesteps(1)

    def set_timesteps(
        self,
        num_inference_steps: int = 0,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] = (),
        sigmas: Any = None,
        mu: Any = None,
    ) -> None:
        """Evenly spaced timesteps from the first one down, or chosen ones; the history is empty again. What a pipeline of a
        flow-matching model says of the grid is not needed."""
        total, count = TRAINED if self.process.bars is None else len(self.process.bars), num_inference_steps
        even = np.round(total - np.arange(count) * total / max(1, count)) - (total - self.process.top)
        steps = np.array(timesteps or even).astype(np.int64)
        self.levels = (*(Level(*self.process.level(t)) for t in steps), Level(1.0, 0.0))
        self.num_inference_steps = len(steps)
        self.timesteps = torch.from_numpy(steps).to(device)
        self.index = 0
        self.reset()

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Steps are taken in order, from the first."""

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Unchanged."""
        return sample

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """The sample [B, C, H, W] at the next timestep; computed in float32 at least. Steps are taken in order."""
        exact = sample if sample.dtype == torch.float64 else sample.float()
        here = self.levels[self.index]
        x0, eps = self.process.split(model_output.to(exact.dtype), exact, here.signal, here.noise)
        moved = self.advance(exact, x0, eps).to(sample.dtype)
        self.index += 1
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)

    @abstractmethod
    def reset(self) -> None:
        """Forget what earlier steps left."""

    @abstractmethod
    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """From ``self.levels[self.index]`` to the next level."""
