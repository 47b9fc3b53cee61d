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
        self.set_timesteps(len(self.alphas_cumprod))

    def set_timesteps(
        self, num_inference_steps: int = 0, device: str | torch.device | None = None, timesteps: Sequence[int] = ()
    ) -> None:
        """Evenly spaced timesteps from the last training step down, or chosen ones; the history is empty again."""
        total, count = len(self.alphas_cumprod), num_inference_steps
        even = np.round(total - np.arange(count) * total / max(1, count)) - 1
        steps = np.array(timesteps or even).astype(np.int64)
        bars = [float(self.alphas_cumprod[t]) for t in steps]
        self.levels = (*(Level(bar**0.5, (1 - bar) ** 0.5) for bar in bars), Level(1.0, 0.0))
        self.num_inference_steps = len(steps)
        self.timesteps = torch.from_numpy(steps).to(device)
        self.index = 0
        self.reset()

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Unchanged."""
        return sample

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """The sample [B, C, H, W] at the next timestep; computed in float32 at least. Steps are taken in order."""
        exact = sample if sample.dtype == torch.float64 else sample.float()
        x0, eps = self._predictions(model_output.to(exact.dtype), exact)
        moved = self.advance(exact, x0, eps).to(sample.dtype)
        self.index += 1
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)

    def _predictions(self, output: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean image and noise, from a model that predicts either or their velocity."""
        level, kind = self.levels[self.index], self.config.prediction_type
        if kind == "epsilon":
            return (sample - level.noise * output) / level.signal, output
        if kind == "sample":
            return output, (sample - level.signal * output) / level.noise
        if kind == "v_prediction":
            return level.signal * sample - level.noise * output, level.signal * output + level.noise * sample
        raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, not {kind}")

    @abstractmethod
    def reset(self) -> None:
        """Forget what earlier steps left."""

    @abstractmethod
    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """From ``self.levels[self.index]`` to the next level."""
