"""Generalised heavy ball: Adams-Bashforth on a momentum of the noise predictions (Wizadwongsa et al. 2023, arXiv 2307.11118)."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config

from harness.schedulers.base import OwnScheduler


class GHVBScheduler(OwnScheduler):
    """The paper's "GHVB 1.B" with B = ``beta``: second order, with ``beta`` = 1 plain Adams-Bashforth.

    The velocity is an average, v <- (1 - beta) v + beta eps, so it belongs to an EARLIER noise level. Averaging the levels
    with the same weights, p <- (1 - beta) p + beta s, says which one: v = eps(p) up to second order. The step is then the
    line through the two latest (p, v), read in the middle of the step. On even steps these are the paper's coefficients
    (2 + beta) / (2 beta) and -(2 - beta) / (2 beta); on uneven ones they keep the order, which the paper's do not (deviation).
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: list[float] | None = None, prediction_type: str = "epsilon", beta: float = 0.8,
    ) -> None:  # fmt: skip
        if not 0 < beta <= 1:
            raise ValueError(f"beta must be above 0 and at most 1, not {beta}")
        self._schedule(
            num_train_timesteps=num_train_timesteps, beta_start=beta_start, beta_end=beta_end, beta_schedule=beta_schedule,
            trained_betas=trained_betas,
        )  # fmt: skip

    def reset(self) -> None:
        """No velocity yet."""
        self._before: tuple[float, torch.Tensor] | None = None

    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Move x / signal along the extrapolated velocity; see the class."""
        here, there, beta = self.levels[self.index], self.levels[self.index + 1], self.config.beta
        if self._before is None:
            place, velocity, slope = here.ratio, eps, eps
        else:
            old_place, old_velocity = self._before
            place = (1 - beta) * old_place + beta * here.ratio
            velocity = (1 - beta) * old_velocity + beta * eps
            middle = (here.ratio + there.ratio) / 2
            slope = velocity + (middle - place) / (place - old_place) * (velocity - old_velocity)
        self._before = place, velocity
        return there.signal * (sample / here.signal + (there.ratio - here.ratio) * slope)
