"""BDIA-DDIM: bidirectional integration approximation (Zhang et al. 2023, arXiv 2307.10829, equation 15)."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config

from harness.sampling.schedulers.base import Level, OwnScheduler


class BDIAScheduler(OwnScheduler):
    """DDIM that also integrates backwards over the step it has just made, and adds what that step missed.

    With D(i -> j) the DDIM increment at z_i: z_(i-1) = z_(i+1) - (1 - g)(z_(i+1) - z_i) - g D(i -> i+1) + D(i -> i-1).
    ``gamma`` = g = 0 is DDIM. Only g = 1 is of second order (and can be inverted exactly): a step's error c h^2 follows
    c <- g (1 - c), whose rest g / (1 + g) is one half only there, where it does not damp: smaller g trade order for that.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        gamma: float = 1.0,
    ) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be from 0 to 1, not {gamma}")
        self._schedule(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
        )

    def reset(self) -> None:
        """The first step is plain DDIM."""
        self._before: tuple[Level, torch.Tensor] | None = None

    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """The DDIM step, plus ``gamma`` of the error that a step back would show; see the class."""
        moved = self.levels[self.index + 1].mix(x0, eps)
        if self._before is not None:
            level, came_from = self._before
            moved = moved + self.config.gamma * (came_from - level.mix(x0, eps))
        self._before = self.levels[self.index], sample
        return moved
