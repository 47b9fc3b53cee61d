"""Training targets of the feedback module."""

from __future__ import annotations

import torch


def coefficients(alphas_cumprod: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise coefficients (alpha_t, sigma_t), each [B, 1, 1, 1], of x_t = alpha_t x_0 + sigma_t eps.

    ``t`` int64 [B] in -1..999; -1 is the clean image (1, 0).
    """
    bar = torch.where(t >= 0, alphas_cumprod[t.clamp(min=0)], torch.ones(()))[:, None, None, None]
    return bar.sqrt(), (1 - bar).sqrt()


def jump_error(
    eps: torch.Tensor,
    x_t: torch.Tensor,
    x_next: torch.Tensor,
    t: torch.Tensor,
    t_next: torch.Tensor,
    alphas_cumprod: torch.Tensor,
) -> torch.Tensor:
    """Squared error [B] of where ONE first-order step from (x_t, t) with noise prediction ``eps`` lands, against x_next.

    The step is DDIM's: x_s = (a_s / a_t) x_t + (s_s - a_s s_t / a_t) eps. The prediction that lands exactly on the
    teacher's converged state is eps* = (x_next - (a_s / a_t) x_t) / (s_s - a_s s_t / a_t); |eps - eps*|^2 weighted by
    the squared coefficient, the error it causes at the landing point, is what is returned (mean over pixels).
    """
    a_t, s_t = coefficients(alphas_cumprod, t)
    a_s, s_s = coefficients(alphas_cumprod, t_next)
    landed = a_s / a_t * x_t + (s_s - a_s * s_t / a_t) * eps
    return (landed - x_next).square().flatten(1).mean(dim=1)


def fad_error(eps: torch.Tensor, teacher_eps: torch.Tensor, noise: torch.Tensor, denoising_weight: float = 1.0) -> torch.Tensor:
    """The paper's Fast Approximate Distillation [B]: |eps(x_t, t) - eps_teacher(x_{t/2}, t/2)|^2 + w |eps - noise|^2.

    ``teacher_eps`` comes from the same backbone without feedback on the same x_0 and noise, re-noised at t/2. The weight
    of the ordinary denoising term beside it is not published; 1 is our choice.
    """
    distill = (eps - teacher_eps.detach()).square().flatten(1).mean(dim=1)
    denoise = (eps - noise).square().flatten(1).mean(dim=1)
    return distill + denoising_weight * denoise
