"""Solvers on the toy Gaussian denoiser, whose trajectory is known in closed form."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from harness.config.solvers import SOLVER_NAMES
from harness.errors import UsageError
from harness.sampling.clock import StepClock
from harness.sampling.grids import power_grid
from harness.sampling.patching import patched
from harness.sampling.schedulers.bdia import BDIAScheduler
from harness.sampling.schedulers.ghvb import GHVBScheduler
from harness.sampling.solvers import FLOW_SOLVERS, SOLVERS, build_solver, on_timesteps
from tests.gaussian import GaussianDenoiser, signal_and_noise


def unclipped(**settings: Any) -> DDIMScheduler:
    """The scheduler of a checkpoint for latents, as published ones are: diffusers' default bounds the clean image by 1."""
    return DDIMScheduler(clip_sample=False, **settings)


def test_the_names_of_the_solvers_are_those_of_their_table() -> None:
    assert {*SOLVERS, *FLOW_SOLVERS} == set(SOLVER_NAMES)


def error_at(name: str, steps: int, stop: int = -1) -> float:
    """Largest error of one solver against the exact flow, at timestep ``stop`` or on the clean image."""
    toy, scheduler = GaussianDenoiser(), build_solver(name, unclipped())
    scheduler.set_timesteps(steps)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    x = start.clone()
    for t in scheduler.timesteps:
        if int(t) <= stop:
            break
        x = scheduler.step(toy.eps(x, int(t)), t, x).prev_sample
    return float((x - toy.flow(start, int(scheduler.timesteps[0]), stop)).abs().max())


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_solver_converges_to_the_exact_sample(name: str) -> None:
    coarse, fine = error_at(name, 10), error_at(name, 80)
    assert fine < 0.05 and fine < coarse / 4


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_measured_order_is_the_declared_one(name: str) -> None:
    """Timestep 199 is on each of these grids; the clean end is left out, where the last step is of first order for most.

    EVODiff's weights reach their limit late, and float32 coefficients of diffusers end the decline of others at 100 steps.
    """
    coarse, fine = (200, 1000) if name == "evodiff" else (20, 100)
    order = math.log(error_at(name, coarse, 199) / error_at(name, fine, 199)) / math.log(5)
    assert order == pytest.approx(SOLVERS[name].order, abs=0.3)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_curve_of_fewer_steps_falls(name: str) -> None:
    errors = [error_at(name, steps) for steps in (6, 10, 20, 50)]
    assert sorted(errors, reverse=True) == errors or (name == "evodiff" and errors[2] < errors[0] / 2)


def test_equal_settings_make_equal_solvers() -> None:
    assert error_at("ddim", 20) == pytest.approx(error_at("dpm++1", 20), rel=0.05)
    ddim = solve_own(build_solver("ddim", unclipped()))
    assert torch.allclose(solve_own(BDIAScheduler(gamma=0.0)), ddim, atol=1e-6)


def solve_own(scheduler: Any, steps: int = 20) -> torch.Tensor:
    """Nine points carried to the clean image."""
    toy = GaussianDenoiser()
    scheduler.set_timesteps(steps)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    for t in scheduler.timesteps:
        x = scheduler.step(toy.eps(x, int(t)), t, x).prev_sample
    return x


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_ghvb_equals_one_written_by_hand(beta: float) -> None:
    """In z = x / alpha and s = sigma / alpha; beta = 1 is Adams-Bashforth, 3/2 and -1/2."""
    toy, scheduler, velocities = GaussianDenoiser(), GHVBScheduler(beta=beta), list[torch.Tensor]()
    scheduler.set_timesteps(12)
    times, start = [*scheduler.timesteps.tolist(), -1], torch.linspace(-2, 2, 9, dtype=torch.float64)
    z = start / signal_and_noise(999)[0]
    for t, t_next in itertools.pairwise(times):
        (a, s), (b, r) = signal_and_noise(t), signal_and_noise(t_next)
        eps = toy.eps(a * z, t)
        velocities.append((1 - beta) * velocities[-1] + beta * eps if velocities else eps)
        new, old = (2 + beta) / (2 * beta), -(2 - beta) / (2 * beta)
        z = z + (r / b - s / a) * (new * velocities[-1] + old * velocities[-2] if len(velocities) > 1 else eps)
    assert torch.allclose(z, solve_own(scheduler, 12).flatten(), atol=1e-9)
    assert beta < 1 or (new, old) == (1.5, -0.5)


def test_bdia_satisfies_its_equation() -> None:
    """z(i-1) = z(i+1) - (1-g)(z(i+1) - z(i)) - g D(i -> i+1) + D(i -> i-1), with DDIM increments written out."""
    scheduler, toy, z = BDIAScheduler(gamma=0.7), GaussianDenoiser(), [torch.linspace(-2, 2, 4).view(1, 1, 2, 2).double()]
    scheduler.set_timesteps(8)
    times = [*scheduler.timesteps.tolist(), -1]
    for i, t in enumerate(times[:-1]):
        z.append(scheduler.step(toy.eps(z[i], t), t, z[i]).prev_sample)

        def ddim(to: int, i: int = i, t: int = t) -> torch.Tensor:
            (a, s), (b, r) = signal_and_noise(t), signal_and_noise(to)
            eps = toy.eps(z[i], t)
            return b * (z[i] - s * eps) / a + r * eps - z[i]

        if i:
            expected = z[i - 1] - 0.3 * (z[i - 1] - z[i]) - 0.7 * ddim(times[i - 1]) + ddim(times[i + 1])
            assert torch.allclose(z[i + 1], expected, atol=1e-9)


def evodiff_by_hand(steps: int) -> np.ndarray:
    """Nine channels of one pixel each, so that every projection is a plain quotient; only the model is shared."""
    toy, grid = GaussianDenoiser(), [round(1000 - 1000 * i / steps) - 1 for i in range(steps)]
    pairs = [signal_and_noise(t) for t in grid]
    alpha, sigma = np.array([a for a, _ in pairs]), np.array([s for _, s in pairs])

    def clean(x: np.ndarray, i: int) -> np.ndarray:
        return (x - sigma[i] * toy.eps(torch.from_numpy(x), grid[i]).numpy()) / alpha[i]

    def sigmoid(y: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-y))

    def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.clip(a / b, -2, 2)

    x = np.linspace(-2, 2, 9)
    models = [clean(x, 0)]
    h = alpha[1] / sigma[1] - alpha[0] / sigma[0]
    x = sigma[1] / sigma[0] * x + sigma[1] * h * models[0]
    models.append(clean(x, 1))
    for t in range(2, steps):
        s, r = t - 1, t - 2
        h = alpha[t] / sigma[t] - alpha[s] / sigma[s]
        euler = sigma[t] / sigma[s] * x + sigma[t] * h * models[s]
        q = np.log(sigma[r] * alpha[s] / alpha[r] / sigma[s]) / np.log(sigma[s] * alpha[t] / alpha[s] / sigma[t])
        w = 0.5 * (1 - ((grid[t] + 1) / 1000) ** 2)
        even = (1 - w) * np.sqrt(sigma[t] / sigma[s] / (sigma[s] / sigma[r]))
        a1 = even + w * quotient(models[s], models[r])
        d1, lean = models[s] - a1 * models[r], sigmoid(0.25 * abs(a1)) * q
        guess = euler + 0.5 * sigma[t] * h / lean * d1
        models.append(clean(guess, t))
        d2 = models[t] - (even + w * quotient(models[t], models[s])) * models[s]
        eta = 0.5 * sigmoid(abs(0.5 * quotient(q / h * d2 + d1 / q / h, q / h * d2 - d1 / q / h)))
        b = -eta / q * d1 + q * (1 - eta) * d2
        size = abs(quotient(guess - euler - 0.5 * sigma[t] * h / lean * b, d1) / (h * sigma[t])) - 0.5
        if steps > 20:
            size = -size * sigmoid(quotient(models[s], (models[s] - models[r]) / h) * (2 - (sigma[t] / sigma[s]) ** 2))
        x = euler + 0.5 * sigma[t] * h / sigmoid(size) * b
    return models[-1]


@pytest.mark.parametrize("steps", [4, 12, 30])
def test_evodiff_equals_one_written_by_hand(steps: int) -> None:
    toy, scheduler = GaussianDenoiser(), build_solver("evodiff", unclipped())
    scheduler.set_timesteps(steps)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9, 1, 1)
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(toy.eps(x, t), t, x).prev_sample
    assert np.allclose(x.flatten().numpy(), evodiff_by_hand(steps), atol=1e-6)


@pytest.mark.parametrize("name", ["ghvb", "bdia", "evodiff"])
def test_own_solvers_have_the_interface_of_diffusers(name: str, tmp_path: Path) -> None:
    own = build_solver(name, unclipped(beta_end=0.015))
    own.save_pretrained(tmp_path)
    again = type(own).from_pretrained(tmp_path)
    assert again.config == own.config and again.config.beta_end == 0.015
    assert type(own).from_config(DDIMScheduler(beta_end=0.012).config).config.beta_end == 0.012
    half = own.step(torch.ones(1, 1, 2, 2).half(), own.timesteps[0], torch.ones(1, 1, 2, 2).half(), return_dict=False)[0]
    assert half.dtype == torch.float16
    first = solve_own(own)
    assert torch.equal(solve_own(own), first)


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
@pytest.mark.parametrize("name", ["ghvb", "bdia", "evodiff"])
def test_own_solvers_understand_every_prediction(name: str, kind: str) -> None:
    """The same denoiser, asked for its clean image or its velocity, leads to the same sample."""
    toy, scheduler = GaussianDenoiser(), build_solver(name, unclipped(prediction_type=kind))
    scheduler.set_timesteps(12)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    for t in scheduler.timesteps.tolist():
        (a, s), eps = signal_and_noise(t), toy.eps(x, t)
        x0 = (x - s * eps) / a
        x = scheduler.step(x0 if kind == "sample" else a * eps - s * x0, t, x).prev_sample
    assert torch.allclose(x, solve_own(build_solver(name, unclipped()), 12), atol=1e-6)


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"beta": 1.5}])
def test_impossible_settings_of_own_solvers_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="beta"):
        GHVBScheduler(**setting)
    with pytest.raises(ValueError, match="gamma"):
        BDIAScheduler(gamma=-0.1)


def test_unknown_solver_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unipc"):
        build_solver("euler-magic", unclipped())


def test_own_keeps_the_checkpoints_scheduler() -> None:
    own = unclipped(beta_end=0.015, timestep_spacing="leading")
    built = build_solver("checkpoint", own)
    assert built is not own and built.config.beta_end == 0.015 and built.config.timestep_spacing == "leading"
    assert build_solver("unipc", own).config.beta_end == 0.015


def test_clock_counts_steps_and_names_the_landing() -> None:
    clock, scheduler = StepClock(), build_solver("ddim", unclipped())
    with clock.following(scheduler):
        scheduler.set_timesteps(4)
        seen = []
        x = torch.zeros(1, 1, 2, 2)
        for t in scheduler.timesteps:
            seen.append((clock.step, clock.t, clock.t_next))
            x = scheduler.step(x, t, x).prev_sample
    assert seen == [(0, 999, 749), (1, 749, 499), (2, 499, 249), (3, 249, -1)]
    assert "step" not in vars(scheduler) and "set_timesteps" not in vars(scheduler)


def test_patched_restores_what_was_there() -> None:
    class Thing:
        name = "class"

    thing = Thing()
    with patched(thing, "name", "outer"):
        with pytest.raises(KeyError), patched(thing, "name", "inner"):
            raise KeyError
        assert thing.name == "outer"
    assert thing.name == "class" and vars(thing) == {}


@pytest.mark.parametrize("name", ["dpm++", "ghvb", "bdia", "evodiff"])
def test_chosen_timesteps_are_the_ones_that_run(name: str) -> None:
    """Power 1 is the solver's own grid; power 1.5 ends on the clean image, too, nearer to the exact sample at 10 steps."""
    closer = on_timesteps(build_solver(name, unclipped()), power_grid(10, 1.5))
    closer.set_timesteps(99)
    assert tuple(closer.timesteps.tolist()) == power_grid(10, 1.5)
    even = on_timesteps(build_solver(name, unclipped()), power_grid(10, 1.0))
    assert torch.equal(solve_own(even), solve_own(build_solver(name, unclipped()), 10))
    toy, start = GaussianDenoiser(), torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    exact = toy.flow(start, 999, -1)
    assert (solve_own(closer) - exact).abs().max() < (solve_own(even) - exact).abs().max()


def test_a_solver_that_cannot_choose_says_which_can() -> None:
    with pytest.raises(UsageError, match="ghvb"):
        on_timesteps(build_solver("unipc", unclipped()), power_grid(10, 1.5))
