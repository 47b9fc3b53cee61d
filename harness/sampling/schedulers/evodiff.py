"""EVODiff: entropy-aware variance optimised inference (Li, Chen and Zeng, NeurIPS 2025, arXiv 2509.26096)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import register_to_config

from harness.sampling.schedulers.base import Level, OwnScheduler

MANY_STEPS = 20  # above, the correction is weighted by how consistent the predictions are


@dataclass(frozen=True)
class _Probe:
    """A predicted step, kept until the model has seen where it leads."""

    euler: torch.Tensor
    probe: torch.Tensor
    clean: torch.Tensor
    before: torch.Tensor
    change: torch.Tensor
    gain: float
    pace: float
    increment: float
    lean: torch.Tensor
    balance: float
    trust: float
    shrink: float


class EVODiffScheduler(OwnScheduler):
    """A predictor and a corrector on clean-image predictions m, both with one model call, whose weights come from the data.

    With k = noise / signal, h = 1/k_t - 1/k_s and E = (noise_t / noise_s) x + noise_t h m_s (DDIM):

        predict  x~ = E + noise_t h / (2 r) D1,              D1 = m_s - a1 m_before
        correct  x  = E + noise_t h / (2 zeta) B,            B = -eta/q D1 + q (1 - eta) D2,    D2 = m(x~) - a2 m_s

    q is the quotient of the last two steps in log k; a1, a2 (the variance balance), r, eta and zeta come from projections of
    predictions on each other, for each sample and channel, squashed by a sigmoid as in the authors' released sampler. m(x~) is
    the next step's m_s, so that a step costs one call. Because a1 and a2 are 1 only in the limit, the formal order is 1.

    The first step is DDIM, and so is the last, which leads to the clean image (deviation: the release stops at a noise level
    above 0 and adds half a difference there, which at 0 would extrapolate past the prediction).
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
    ) -> None:
        self._schedule(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
        )

    def reset(self) -> None:
        """No prediction yet, and no step to correct."""
        self._before: torch.Tensor | None = None
        self._probe: _Probe | None = None

    def advance(self, sample: torch.Tensor, x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Correct the step that led here, now that the model has seen its end; then predict the next."""
        if self._probe is not None:
            sample = self._corrected(self._probe, x0)
        here, there = self.levels[self.index], self.levels[self.index + 1]
        before, self._before, self._probe = self._before, x0, None
        if there.noise == 0:
            return x0
        increment = 1 / there.ratio - 1 / here.ratio
        euler = there.noise / here.noise * sample + there.noise * increment * x0
        if before is None:
            return euler
        self._probe = self._predict(euler, x0, before, increment)
        return self._probe.probe

    def _predict(self, euler: torch.Tensor, clean: torch.Tensor, before: torch.Tensor, increment: float) -> _Probe:
        past, here, there = self.levels[self.index - 1], self.levels[self.index], self.levels[self.index + 1]
        pace = _log_step(past, here) / _log_step(here, there)
        shrink = there.noise / here.noise
        balance = math.sqrt(shrink / (here.noise / past.noise))
        trust = 0.5 * (1 - float((self.timesteps[self.index + 1] + 1) / len(self.alphas_cumprod)) ** 2)
        share = _balanced(clean, before, balance, trust)
        change = clean - share * before
        lean = torch.sigmoid(0.25 * share.abs()) * pace
        gain = 0.5 * there.noise * increment
        probe = euler + gain / lean * change
        return _Probe(euler, probe, clean, before, change, gain, pace, increment, lean, balance, trust, shrink)

    def _corrected(self, p: _Probe, ahead: torch.Tensor) -> torch.Tensor:
        """The step again, with the prediction at its end; see the class."""
        next_change = ahead - _balanced(ahead, p.clean, p.balance, p.trust) * p.clean
        back, forth = p.change / p.pace / p.increment, next_change * p.pace / p.increment
        eta = 0.5 * torch.sigmoid(0.5 * _projection(forth + back, forth - back).abs())
        mixed = p.pace * (1 - eta) * next_change - eta / p.pace * p.change
        missed = p.probe - p.euler - p.gain / p.lean * mixed
        excess = (_projection(missed, p.change) / (2 * p.gain)).abs() - 0.5
        if self.num_inference_steps > MANY_STEPS:
            slope = (p.clean - p.before) / p.increment
            excess = -excess * torch.sigmoid(_projection(p.clean, slope) * (2 - p.shrink**2))
        corrected: torch.Tensor = p.euler + p.gain / torch.sigmoid(excess) * mixed
        return corrected


def _log_step(start: Level, end: Level) -> float:
    return math.log(start.ratio / end.ratio)


def _balanced(a: torch.Tensor, b: torch.Tensor, balance: float, trust: float) -> torch.Tensor:
    """How much of ``b`` to take from ``a``: the schedule's own balance, mixed with the projection."""
    return (1 - trust) * balance + trust * _projection(a, b)


def _projection(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The coefficient of ``a`` on ``b`` for each sample and channel, [B, C, 1, 1], at most 2 in size; 0 where ``b`` is 0."""
    size = (b * b).sum((2, 3), keepdim=True)
    return ((a * b).sum((2, 3), keepdim=True) / size.clamp_min(torch.finfo(b.dtype).tiny)).clamp(-2, 2)
