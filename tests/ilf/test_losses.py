"""The targets against the toy Gaussian denoiser, whose trajectories are known in closed form."""

from __future__ import annotations

import pytest
import torch

from ilf.losses import coefficients, fad_error, jump_error
from tests.gaussian import ALPHAS, GaussianDenoiser, signal_and_noise


def ddim(x: torch.Tensor, eps: torch.Tensor, t: int, t_next: int) -> torch.Tensor:
    """A DDIM step as Song et al. write it: predict x_0, then re-noise with the same noise."""
    a, s = signal_and_noise(t)
    b, r = signal_and_noise(t_next)
    return b * (x - s * eps) / a + r * eps


@pytest.mark.parametrize(("t", "t_next"), [(999, 899), (500, 250), (99, -1)])
def test_the_exact_jump_has_no_error(t: int, t_next: int) -> None:
    toy = GaussianDenoiser()
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64) * toy.spread(t)
    landing = toy.flow(x, t, t_next)
    a, s = signal_and_noise(t)
    b, r = signal_and_noise(t_next)
    exact = (landing - b / a * x) / (r - b * s / a)
    times = torch.full((5,), t), torch.full((5,), t_next)
    assert jump_error(exact, x, landing, *times, ALPHAS).max() < 1e-20
    assert torch.allclose(ddim(x, exact, t, t_next), landing)


def test_jump_error_is_the_squared_landing_error() -> None:
    toy, t, t_next = GaussianDenoiser(), 700, 500
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    eps, landing = toy.eps(x, t), toy.flow(x, t, t_next)
    expected = (ddim(x, eps, t, t_next) - landing).square().mean(dim=(1, 2, 3))
    got = jump_error(eps, x, landing, torch.full((3,), t), torch.full((3,), t_next), ALPHAS)
    assert torch.allclose(got, expected)
    assert (expected > 1e-8).all()


def test_coefficients_of_the_clean_image() -> None:
    a, s = coefficients(ALPHAS, torch.tensor([-1, 0, 999]))
    assert a[0] == 1 and s[0] == 0
    assert torch.allclose(a**2 + s**2, torch.ones_like(a))


def test_fad_of_the_teacher_itself_is_only_the_denoising_term() -> None:
    eps, noise = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    assert torch.allclose(fad_error(eps, eps, noise, 0.0), torch.zeros(4))
    assert torch.allclose(fad_error(eps, eps, noise, 0.5), 0.5 * (eps - noise).square().mean(dim=(1, 2, 3)))


def test_fad_sends_no_gradient_to_the_teacher() -> None:
    eps, teacher = torch.randn(2, 1, 2, 2, requires_grad=True), torch.randn(2, 1, 2, 2, requires_grad=True)
    fad_error(eps, teacher, torch.zeros(2, 1, 2, 2)).sum().backward()
    assert teacher.grad is None and eps.grad is not None
