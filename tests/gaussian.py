"""A toy denoiser with a closed form: data from N(mean, deviation^2), so that the exact noise prediction is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler

ALPHAS = DDPMScheduler().alphas_cumprod.double()


def signal_and_noise(t: int) -> tuple[float, float]:
    """alpha_t and sigma_t; t = -1 is the clean image."""
    bar = float(ALPHAS[t]) if t >= 0 else 1.0
    return bar**0.5, (1 - bar) ** 0.5


@dataclass(frozen=True)
class GaussianDenoiser:
    """eps(x, t) = sigma_t (x - alpha_t m) / v_t with v_t = alpha_t^2 s^2 + sigma_t^2: the score of N(alpha_t m, v_t)."""

    mean: float = 0.7
    deviation: float = 0.3

    def spread(self, t: int) -> float:
        """Standard deviation of x_t."""
        a, s = signal_and_noise(t)
        return float((a * a * self.deviation**2 + s * s) ** 0.5)

    def eps(self, x: torch.Tensor, t: int) -> torch.Tensor:
        """The exact noise prediction."""
        a, s = signal_and_noise(t)
        return s * (x - a * self.mean) / self.spread(t) ** 2

    def flow(self, x: torch.Tensor, t: int, t_next: int) -> torch.Tensor:
        """Where the probability-flow ODE carries x from t to t_next: it keeps each point's standard score."""
        a, _ = signal_and_noise(t)
        b, _ = signal_and_noise(t_next)
        return b * self.mean + (x - a * self.mean) / self.spread(t) * self.spread(t_next)
