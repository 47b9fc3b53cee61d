"""Training targets of the feedback module, each an error [B] of one solver step. Tests hold them to a Gaussian's exact flow."""

from __future__ import annotations

from collections.abc import Callable

import torch


def coefficients(alphas_cumprod: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise coefficients (alpha_t, sigma_t), each [B, 1, 1, 1], of x_t = alpha_t x_0 + sigma_t eps.

    ``t`` int64 [B] in -1..999; -1 is the clean image (1, 0).
    """
    bar = torch.where(t >= 0, alphas_cumprod[t.clamp(min=0)], torch.ones((), device=t.device))[:, None, None, None]
    return bar.sqrt(), (1 - bar).sqrt()


def first_order(
    x: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """Where DDIM's step lands: x_s = (a_s / a_t) x_t + (s_s - a_s s_t / a_t) eps, [B, C, H, W]."""
    a_t, s_t = coefficients(alphas_cumprod, t)
    a_s, s_s = coefficients(alphas_cumprod, t_next)
    return a_s / a_t * x + (s_s - a_s * s_t / a_t) * eps


def second_order(
    x: torch.Tensor,
    eps: torch.Tensor,
    t: torch.Tensor,
    t_next: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    t_before: torch.Tensor,
    clean_before: torch.Tensor,
) -> torch.Tensor:
    """Where DPM-Solver++ 2M lands, with the clean prediction x0' [B, C, H, W] of the step before.

    With l = log(a / s), h = l_s - l_t, r = (l_t - l_before) / h and D = x0 + (x0 - x0') / (2 r):
    x_s = (s_s / s_t) x_t - a_s (e^-h - 1) D. First order (D = x0) on the first step (``t_before`` = 1000) and into the
    clean image, as in diffusers' scheduler with ``final_sigmas_type="zero"``.
    """
    a_t, s_t = coefficients(alphas_cumprod, t)
    a_s, s_s = coefficients(alphas_cumprod, t_next)
    a_b, s_b = coefficients(alphas_cumprod, t_before.clamp(max=len(alphas_cumprod) - 1))
    tiny = torch.finfo(x.dtype).tiny
    log_t, log_s, log_b = (torch.log(a / s.clamp(min=tiny)) for a, s in ((a_t, s_t), (a_s, s_s), (a_b, s_b)))
    h = log_s - log_t
    plain = ((t_before >= len(alphas_cumprod)) | (t_next < 0))[:, None, None, None]
    weight = torch.where(plain, torch.zeros_like(h), h / (2 * torch.where(plain, torch.ones_like(h), log_t - log_b)))
    clean = (x - s_t * eps) / a_t
    extrapolated = clean + weight * (clean - clean_before)
    return s_s / s_t * x - a_s * torch.expm1(-h) * extrapolated


def teacher_steps(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    t: torch.Tensor,
    t_next: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    count: int,
) -> torch.Tensor:
    """Where ``count`` DDIM steps of the teacher, evenly spaced from t to t_next, land: progressive distillation's target.

    ``predict(x, t)`` is the teacher's guided noise prediction. With count = 1 the teacher itself has no error; with many it
    is the exact flow.
    """
    for i in range(count):
        here = t + (t_next - t) * i // count
        there = t + (t_next - t) * (i + 1) // count
        x = first_order(x, predict(x, here), here, there, alphas_cumprod)
    return x


def landing_error(landed: torch.Tensor, target: torch.Tensor, t_next: torch.Tensor) -> torch.Tensor:
    """Mean squared error [B] at the landing point, weighted by how much of it is left in the clean image.

    Measured on the bundled text model by perturbing one step of the teacher's run: errors that land above t = 500 or on
    the clean image come through in full, those between 350 and 500 at 0.7, later ones at a third: the denoiser corrects them.
    """
    left = torch.where((t_next >= 500) | (t_next < 0), 1.0, torch.where(t_next >= 350, 0.7, 0.33))
    return left * (landed - target).square().flatten(1).mean(dim=1)


def fad_error(eps: torch.Tensor, teacher_eps: torch.Tensor, noise: torch.Tensor, denoising_weight: float = 1.0) -> torch.Tensor:
    """The paper's Fast Approximate Distillation [B]: |eps(x_t, t) - eps_teacher(x_{t/2}, t/2)|^2 + w |eps - noise|^2.

    ``teacher_eps`` comes from the same backbone without feedback on the same x_0 and noise, re-noised at t/2. The weight
    of the ordinary denoising term beside it is not published; 1 is our choice.
    """
    distill = (eps - teacher_eps.detach()).square().flatten(1).mean(dim=1)
    denoise = (eps - noise).square().flatten(1).mean(dim=1)
    return distill + denoising_weight * denoise
