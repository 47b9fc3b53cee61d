"""Generalised heavy ball: Adams-Bashforth on a momentum of the noise predictions (Wizadwongsa et al. 2023, arXiv 2307.11118)."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config

from harness.sampling.schedulers.base import OwnScheduler


class GHVBScheduler(OwnScheduler):
    """The paper's "GHVB 1.B" with B = ``beta``: second order, with ``beta`` = 1 plain Adams-Bashforth.

    The velocity is an average, v <- (1 - beta) v + beta eps, so it lags behind; x / signal moves over the step in noise / signal
    with ((2 + beta) v - (2 - beta) v_before) / (2 beta), which makes up for the lag. The first step is DDIM. The coefficients are
    those of even steps, as in the paper; on a grid whose neighbouring steps become alike the order stays.
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
        beta: float = 0.8,
    ) -> None:
        if not 0 < beta <= 1:
            raise ValueError(f"beta must be above 0 and at most 1, not {beta}")
        self._schedule(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
        )

    def reset(self) -> None:
        """No velocity yet."""
        self._velocity: torch.Tensor | None = None

    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Move x / signal; see the class."""
        here, there, beta, before = self.levels[self.index], self.levels[self.index + 1], self.config.beta, self._velocity
        if before is None:
            self._velocity = slope = eps
        else:
            self._velocity = (1 - beta) * before + beta * eps
            slope = ((2 + beta) * self._velocity - (2 - beta) * before) / (2 * beta)
        return there.signal * (sample / here.signal + (there.ratio - here.ratio) * slope)
