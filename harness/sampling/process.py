"""The noising process of a model, x_t = signal(t) x_0 + noise(t) eps, and what its prediction says of x_0 and eps.

Two kinds: the variance-preserving one of DDPM, told by betas at whole timesteps from 999 (noise) down, and the straight one of
flow matching, signal = 1 - sigma and noise = sigma, at timesteps 1000 sigma from 1000 down. Timestep -1 is the clean image in
both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

TRAINED = 1000  # timesteps
ALMOST_NOISE = 1e-6  # the least signal in a quotient: at sigma = 1 there is none
Level = TypeVar("Level", float, torch.Tensor)
BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


@dataclass(frozen=True)
class Process:
    """``bars``: alphas_cumprod, float [T], or None with flow matching. ``predicts``: ``epsilon``, ``sample``, ``v_prediction`` or
    ``flow_prediction``, which is eps - x_0."""

    bars: torch.Tensor | None
    predicts: str

    @classmethod
    def of(cls, scheduler: Any) -> Process:
        """That of a diffusers scheduler."""
        config = scheduler.config
        if is_flow(config):
            return cls(None, "flow_prediction")
        from diffusers import DDIMScheduler

        return cls(DDIMScheduler(**{n: config[n] for n in BETAS if n in config}).alphas_cumprod, config["prediction_type"])

    def to(self, device: torch.device | str) -> Process:
        """On another device."""
        return self if self.bars is None else Process(self.bars.to(device), self.predicts)

    @property
    def top(self) -> int:
        """The first timestep, of pure noise."""
        return TRAINED if self.bars is None else len(self.bars) - 1

    def coefficients(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and noise [B] at timesteps [B]; -1 is the clean image."""
        if self.bars is None:
            sigma = t.clamp(min=0).float() / TRAINED
            return 1 - sigma, sigma
        bar = torch.where(t >= 0, self.bars[t.clamp(min=0).long()], torch.ones((), device=t.device))
        return bar.sqrt(), (1 - bar).sqrt()

    def level(self, t: float) -> tuple[float, float]:
        """Signal and noise at one timestep."""
        if self.bars is None:
            sigma = max(t, 0.0) / TRAINED
            return 1 - sigma, sigma
        bar = float(self.bars[int(t)]) if t >= 0 else 1.0
        return bar**0.5, (1 - bar) ** 0.5

    def split(
        self, output: torch.Tensor, sample: torch.Tensor, signal: torch.Tensor | float, noise: torch.Tensor | float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean image and noise, from what the model returned at this signal and noise."""
        if self.predicts == "flow_prediction":
            return sample - noise * output, sample + signal * output
        if self.predicts == "epsilon":
            return (sample - noise * output) / signal, output
        if self.predicts == "sample":
            return output, (sample - signal * output) / noise
        if self.predicts == "v_prediction":
            return signal * sample - noise * output, signal * output + noise * sample
        raise ValueError(f"prediction_type must be epsilon, sample, v_prediction or flow_prediction, not {self.predicts}")

    def slope(self, signal: Level, noise: Level) -> Level:
        """How far the clean image moves when the model's output moves by 1."""
        if self.predicts == "sample":
            return signal**0  # 1, of the type of the levels
        return -noise / signal if self.predicts == "epsilon" else -noise


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is one of flow matching."""
    return bool(config.get("use_flow_sigmas")) or ("shift" in config and "beta_start" not in config)


def mu_of(config: Mapping[str, Any], tokens: int) -> float | None:
    """What a pipeline tells a scheduler that shifts by resolution: linear in the tokens of an image. None: it does not."""
    if not config.get("use_dynamic_shifting"):
        return None
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(base + (tokens - low) * (most - base) / (high - low))


def shift_of(config: Mapping[str, Any], mu: float | None) -> float | None:
    """The shift of flow-matching timesteps, sigma = shift u / (1 + (shift - 1) u); None with betas."""
    if not is_flow(config):
        return None
    if mu is None:
        return float(config.get("flow_shift") or config.get("shift") or 1.0)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
