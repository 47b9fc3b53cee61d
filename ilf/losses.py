"""Training targets of the feedback module, each an error [B] of one solver step. Tests hold them to a Gaussian's exact flow."""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.sampling.process import TRAINED, Process

FADING = ((500, 350), (775, 614))  # timesteps under which an error fades, of betas and of flow matching


def per_row(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One value a row [B], with as many dimensions as ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def coefficients(process: Process, t: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise coefficients (alpha_t, sigma_t) of x_t = alpha_t x_0 + sigma_t eps, shaped to multiply ``like`` [B, ...].

    ``t`` int64 [B] in -1..999; -1 is the clean image (1, 0).
    """
    signal, noise = process.coefficients(t)
    return per_row(signal, like), per_row(noise, like)


def first_order(x: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor, process: Process) -> torch.Tensor:
    """Where DDIM's step lands: x_s = (a_s / a_t) x_t + (s_s - a_s s_t / a_t) eps, [B, C, H, W]."""
    a_t, s_t = coefficients(process, t, x)
    a_s, s_s = coefficients(process, t_next, x)
    return a_s / a_t * x + (s_s - a_s * s_t / a_t) * eps


def second_order(
    x: torch.Tensor,
    eps: torch.Tensor,
    t: torch.Tensor,
    t_next: torch.Tensor,
    process: Process,
    t_before: torch.Tensor,
    clean_before: torch.Tensor,
) -> torch.Tensor:
    """Where DPM-Solver++ 2M lands, with the clean prediction x0' [B, C, H, W] of the step before.

    With l = log(a / s), h = l_s - l_t, r = (l_t - l_before) / h and D = x0 + (x0 - x0') / (2 r):
    x_s = (s_s / s_t) x_t - a_s (e^-h - 1) D. First order (D = x0) on the first step (``t_before`` = 1000) and into the
    clean image, as in diffusers' scheduler with ``final_sigmas_type="zero"``.
    """
    a_t, s_t = coefficients(process, t, x)
    a_s, s_s = coefficients(process, t_next, x)
    a_b, s_b = coefficients(process, t_before.clamp(max=TRAINED - 1), x)
    tiny = torch.finfo(x.dtype).tiny
    log_t, log_s, log_b = (torch.log(a / s.clamp(min=tiny)) for a, s in ((a_t, s_t), (a_s, s_s), (a_b, s_b)))
    h = log_s - log_t
    plain = per_row((t_before >= TRAINED) | (t_next < 0), x)
    weight = torch.where(plain, torch.zeros_like(h), h / (2 * torch.where(plain, torch.ones_like(h), log_t - log_b)))
    clean = (x - s_t * eps) / a_t
    extrapolated = clean + weight * (clean - clean_before)
    return s_s / s_t * x - a_s * torch.expm1(-h) * extrapolated


def teacher_steps(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    t: torch.Tensor,
    t_next: torch.Tensor,
    process: Process,
    count: int,
) -> torch.Tensor:
    """Where ``count`` DDIM steps of the teacher, evenly spaced from t to t_next, land: progressive distillation's target.

    ``predict(x, t)`` is the teacher's guided noise prediction. With count = 1 the teacher itself has no error; with many it
    is the exact flow.
    """
    for i in range(count):
        here = t + (t_next - t) * i // count
        there = t + (t_next - t) * (i + 1) // count
        x = first_order(x, predict(x, here), here, there, process)
    return x


def landing_error(landed: torch.Tensor, target: torch.Tensor, t_next: torch.Tensor, process: Process) -> torch.Tensor:
    """Mean squared error [B] at the landing point, weighted by how much of it is left in the clean image.

    Measured on the bundled text model by perturbing one step of the teacher's run: errors that land above t = 500 or on
    the clean image come through in full, those between 350 and 500 at 0.7, later ones at a third: the denoiser corrects them.
    With flow matching the borders are the timesteps of the same ratio of noise to signal, 775 and 614.
    """
    high, low = FADING[process.bars is None]
    left = torch.where((t_next >= high) | (t_next < 0), 1.0, torch.where(t_next >= low, 0.7, 0.33))
    return left * (landed - target).square().flatten(1).mean(dim=1)


def fad_error(eps: torch.Tensor, teacher_eps: torch.Tensor, noise: torch.Tensor, denoising_weight: float = 1.0) -> torch.Tensor:
    """The paper's Fast Approximate Distillation [B]: |eps(x_t, t) - eps_teacher(x_{t/2}, t/2)|^2 + w |eps - noise|^2.

    ``teacher_eps`` comes from the same backbone without feedback on the same x_0 and noise, re-noised at t/2. The weight
    of the ordinary denoising term beside it is not published; 1 is our choice.
    """
    distill = (eps - teacher_eps.detach()).square().flatten(1).mean(dim=1)
    denoise = (eps - noise).square().flatten(1).mean(dim=1)
    return distill + denoising_weight * denoise
