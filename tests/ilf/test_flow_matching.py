"""Training on flow matching: targets, learned solvers and whole trainings on models of several streams."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from harness.sampling.grids import whole_grid
from harness.sampling.process import Process
from harness.sampling.schedulers.bespoke import BespokeScheduler
from harness.sampling.schedulers.flow import FlowDPM, FlowGrid
from harness.training.fit import TrainSettings, fit
from harness.training.learned_solver import LearnedSolver, rms_distance
from ilf.losses import FADING, coefficients, second_order
from tests.gaussian import ALPHAS

FLOW = Process(None, "flow_prediction")
SPREAD = 0.5  # of the data, a Gaussian around 0


def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """eps - x_0 as the best denoiser of that Gaussian predicts it."""
    a, s = FLOW.level(t)
    clean = a * SPREAD**2 / (a**2 * SPREAD**2 + s**2) * x
    return (x - clean) / s


def exact(x: torch.Tensor, t: float) -> torch.Tensor:
    """The clean image at the end of the flow from t: it keeps each point's standard score."""
    a, s = FLOW.level(t)
    return x * SPREAD / (a**2 * SPREAD**2 + s**2) ** 0.5


def multistep(x: torch.Tensor, timesteps: tuple[int, ...]) -> list[torch.Tensor]:
    """The states of DPM-Solver++ 2M as diffusers has it, the first one included."""
    scheduler = FlowDPM(use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="zero")
    scheduler.grid = FlowGrid(FlowMatchEulerDiscreteScheduler(), lambda steps: None)
    scheduler.set_timesteps(timesteps=timesteps)
    states = [x]
    for t in scheduler.timesteps:
        states.append(scheduler.step(velocity(states[-1], float(t)), t, states[-1]).prev_sample)
    return states


def test_the_second_order_target_is_the_solvers_step() -> None:
    grid = whole_grid(4, 1.0, shift=3.0)
    states = multistep(torch.randn(5, 1, 2, 2, dtype=torch.float64), grid)
    before, clean = 1000, torch.zeros_like(states[0])
    for t, t_next, x, landed in zip(grid, (*grid[1:], -1), states[:-1], states[1:], strict=True):
        rows = [torch.full((5,), value) for value in (t, t_next, before)]
        seen, eps = FLOW.split(velocity(x, t), x, *coefficients(FLOW, rows[0], x))
        assert torch.allclose(second_order(x, eps, rows[0], rows[1], FLOW, rows[2], clean), landed, atol=1e-5)
        before, clean = t, seen


def test_errors_fade_at_the_same_ratio_of_noise_to_signal() -> None:
    for plain, flow in zip(*FADING, strict=True):
        (a, s), (b, r) = Process(ALPHAS, "epsilon").level(plain), FLOW.level(flow)
        assert s / a == pytest.approx(r / b, rel=0.01)


@pytest.mark.parametrize("steps", [2, 5])
def test_an_untrained_solver_is_dpm_solver_plus_plus(steps: int) -> None:
    grid, x = whole_grid(steps, 1.5, shift=2.0), torch.randn(5, 1, 2, 2, dtype=torch.float64)
    solver = LearnedSolver(FLOW, grid)
    table = solver.table()
    assert table.timesteps == grid
    expected = multistep(x, grid)[-1]
    assert torch.allclose(solver(lambda i, t, x: (velocity(x, t.item()), torch.zeros_like(x)), x), expected, atol=1e-4)
    assert torch.allclose(run_table(solver, x), expected, atol=1e-4)


def run_table(solver: LearnedSolver, x: torch.Tensor) -> torch.Tensor:
    scheduler = BespokeScheduler(table=solver.table().content(), flow=True)
    scheduler.set_timesteps()
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, t.item()), t, x).prev_sample
    return x


def test_training_finds_the_exact_flow(tmp_path: Path) -> None:
    solver = LearnedSolver(FLOW, whole_grid(2, 1.5))
    x = torch.randn(64, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = exact(x, 999)
    before = float(rms_distance(run_table(solver, x), target).mean())

    def loss(generator: torch.Generator) -> torch.Tensor:
        ends = solver(lambda i, t, x: (velocity(x, t.item()), torch.zeros_like(x)), x)
        return rms_distance(ends, target).mean()

    fit(solver, loss, TrainSettings(steps=300, lr=1e-3, warmup=5, ema=0.5, checkpoint_every=300), tmp_path / "s.pt", "toy")
    assert float(rms_distance(run_table(solver, x), target).mean()) < before / 10
