"""Solvers of flow matching on the toy Gaussian model in its flow form, whose trajectory is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from harness.sampling.schedulers.flow import FlowHeun
from harness.sampling.solvers import FLOW_SOLVERS, build_solver

MEAN, DEVIATION = 0.7, 0.3  # of the data
FIRST, LAST = 800, 400  # timesteps: at the ends the steps of a multistep solver are of first order


def spread(sigma: float) -> float:
    """The standard deviation of x = (1 - sigma) data + sigma noise."""
    return math.hypot((1 - sigma) * DEVIATION, sigma)


def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The exact flow, E[noise - data | x]."""
    off = (x - (1 - sigma) * MEAN) / spread(sigma) ** 2
    return sigma * off - (MEAN + (1 - sigma) * DEVIATION**2 * off)


def exact(x: torch.Tensor, sigma: float, end: float) -> torch.Tensor:
    """Where the flow carries x from one sigma to another: it keeps each point's standard score."""
    return (1 - end) * MEAN + (x - (1 - sigma) * MEAN) / spread(sigma) * spread(end)


def solved(name: str, timesteps: list[float], calls: int) -> torch.Tensor:
    """Where ``calls`` calls of the model on these timesteps lead from nine points, float64."""
    scheduler = build_solver(name, FlowMatchEulerDiscreteScheduler())
    scheduler.set_timesteps(timesteps=timesteps)
    scheduler.sigmas = scheduler.sigmas.double()  # in float32 rounding ends the decline of errors early
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    for t in scheduler.timesteps[:calls]:
        x = scheduler.step(velocity(x, float(t) / 1000), t, x, return_dict=False)[0].double()
    return x


def error(name: str, steps: int) -> float:
    """The largest one at ``LAST``, of equal steps from ``FIRST``."""
    timesteps = np.linspace(FIRST, LAST, steps + 1).tolist()
    found = solved(name, timesteps, 2 * steps if FLOW_SOLVERS[name].scheduler is FlowHeun else steps)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    return float((found - exact(start, FIRST / 1000, LAST / 1000)).abs().max())


def test_the_closed_form_solves_the_flow() -> None:
    x, step = torch.linspace(-2, 2, 9, dtype=torch.float64), 1e-6
    for sigma in (0.1, 0.5, 0.9):
        slope = (exact(x, sigma, sigma + step) - exact(x, sigma, sigma - step)) / (2 * step)
        torch.testing.assert_close(slope, velocity(x, sigma), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_measured_order_is_the_declared_one(name: str) -> None:
    order = math.log(error(name, 14) / error(name, 56)) / math.log(4)
    assert order == pytest.approx(FLOW_SOLVERS[name].order, abs=0.3)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_the_whole_way_ends_at_the_exact_sample(name: str) -> None:
    """On the checkpoint's own sigmas, from noise to the clean image."""
    start, errors = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3), list[float]()
    for steps in (10, 80):
        scheduler, x = build_solver(name, FlowMatchEulerDiscreteScheduler(shift=3.0)), start
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            x = scheduler.step(velocity(x, float(t) / 1000), t, x, return_dict=False)[0]
        errors.append(float((x - exact(start, 1.0, 0.0)).abs().max()))
    assert errors[1] < 0.05 and errors[1] < errors[0] / 4
