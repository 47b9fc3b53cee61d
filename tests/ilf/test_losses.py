"""The targets against the toy Gaussian denoiser, whose trajectories are known in closed form."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from harness.sampling.grids import power_grid
from harness.sampling.process import Process
from harness.sampling.solvers import on_timesteps
from ilf.losses import coefficients, fad_error, first_order, landing_error, second_order, teacher_steps
from tests.gaussian import ALPHAS, GaussianDenoiser, signal_and_noise

PROCESS = Process(ALPHAS, "epsilon")


def ddim(x: torch.Tensor, eps: torch.Tensor, t: int, t_next: int) -> torch.Tensor:
    """A DDIM step as Song et al. write it: predict x_0, then re-noise with the same noise."""
    a, s = signal_and_noise(t)
    b, r = signal_and_noise(t_next)
    return b * (x - s * eps) / a + r * eps


def times(*values: int, rows: int = 5) -> list[torch.Tensor]:
    return [torch.full((rows,), value) for value in values]


@pytest.mark.parametrize(("t", "t_next"), [(999, 899), (500, 250), (99, -1)])
def test_the_exact_transition_has_no_error(t: int, t_next: int) -> None:
    toy = GaussianDenoiser()
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64) * toy.spread(t)
    landing = toy.flow(x, t, t_next)
    a, s = signal_and_noise(t)
    b, r = signal_and_noise(t_next)
    exact = (landing - b / a * x) / (r - b * s / a)
    landed = first_order(x, exact, *times(t, t_next), PROCESS)
    assert landing_error(landed, landing, times(t_next)[0], PROCESS).max() < 1e-20
    assert torch.allclose(ddim(x, exact, t, t_next), landed)


def test_landing_error_is_the_weighted_squared_distance() -> None:
    landed, target = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    got = landing_error(landed, target, torch.tensor([600, 100, -1]), PROCESS)
    plain = (landed - target).square().mean(dim=(1, 2, 3))
    assert torch.allclose(got, plain * torch.tensor([1.0, 0.33, 1.0]))


def test_second_order_is_the_schedulers_own_step() -> None:
    toy, grid = GaussianDenoiser(), power_grid(7, 1.5)
    scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero")
    on_timesteps(scheduler, grid).set_timesteps(7)
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    before, clean = 1000, torch.zeros_like(x)
    for t, t_next in zip(grid, [*grid[1:], -1], strict=True):
        eps = toy.eps(x, t)
        expected = scheduler.step(eps, torch.tensor(t), x).prev_sample
        got = second_order(x, eps, *times(t, t_next), PROCESS, *times(before), clean)
        assert torch.allclose(got, expected, atol=1e-5), t
        a, s = signal_and_noise(t)
        before, clean, x = t, (x - s * eps) / a, expected


def test_many_teacher_steps_are_the_exact_flow_and_one_is_a_plain_step() -> None:
    toy, t, t_next = GaussianDenoiser(), 700, 400
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64) * toy.spread(t)

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return toy.eps(x, int(t[0]))

    exact = toy.flow(x, t, t_next)
    errors = [float((teacher_steps(predict, x, *times(t, t_next), PROCESS, k) - exact).abs().max()) for k in (1, 2, 10, 100)]
    assert errors == sorted(errors, reverse=True) and errors[3] < errors[0] / 50
    one = teacher_steps(predict, x, *times(t, t_next), PROCESS, 1)
    assert torch.allclose(one, ddim(x, toy.eps(x, t), t, t_next))


def test_coefficients_of_the_clean_image() -> None:
    a, s = coefficients(PROCESS, torch.tensor([-1, 0, 999]), torch.zeros(3, 1, 2, 2))
    assert a[0] == 1 and s[0] == 0
    assert torch.allclose(a**2 + s**2, torch.ones_like(a))


def test_fad_on_the_toy_has_its_closed_form() -> None:
    """At t/2 the teacher's prediction differs from the one at t by a known amount: that is FAD's loss of a plain model."""
    toy, t = GaussianDenoiser(), 600
    clean = toy.mean + toy.deviation * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    noise = torch.randn_like(clean)
    (a, s), (b, r) = signal_and_noise(t), signal_and_noise(t // 2)
    eps, teacher = toy.eps(a * clean + s * noise, t), toy.eps(b * clean + r * noise, t // 2)
    gap = s * (a * (clean - toy.mean) + s * noise) / toy.spread(t) ** 2
    gap = gap - r * (b * (clean - toy.mean) + r * noise) / toy.spread(t // 2) ** 2
    assert torch.allclose(fad_error(eps, teacher, noise, 0.0), gap.square().mean(dim=(1, 2, 3)))
    with_denoising = fad_error(eps, teacher, noise, 0.5) - fad_error(eps, teacher, noise, 0.0)
    assert torch.allclose(with_denoising, 0.5 * (eps - noise).square().mean(dim=(1, 2, 3)))


def test_fad_sends_no_gradient_to_the_teacher() -> None:
    eps, teacher = torch.randn(2, 1, 2, 2, requires_grad=True), torch.randn(2, 1, 2, 2, requires_grad=True)
    fad_error(eps, teacher, torch.zeros(2, 1, 2, 2)).sum().backward()
    assert teacher.grad is None and eps.grad is not None
