"""Which sigmas a solver of flow matching runs on."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from harness.sampling.solvers import FLOW_SOLVERS, build_solver

STEPS, SHIFT = 4, 3.0


def sigmas(name: str, told: list[float] | None) -> torch.Tensor:
    own = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    scheduler = build_solver(name, own, lambda steps: told)
    scheduler.set_timesteps(STEPS)
    return scheduler.sigmas


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_a_solver_that_extrapolates_takes_no_last_step_from_almost_nothing(name: str) -> None:
    """SD3's pipeline names no sigmas: its scheduler then ends at its least sigma, and a multistep solver on that grid fails."""
    own = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    own.set_timesteps(STEPS)
    u = 1 - torch.arange(STEPS) / STEPS
    trailing = torch.cat([SHIFT * u / (1 + (SHIFT - 1) * u), torch.zeros(1)])
    expected = own.sigmas if name in ("euler", "ddim") else trailing
    torch.testing.assert_close(sigmas(name, None), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_sigmas_that_the_pipeline_names_are_kept(name: str) -> None:
    told = [1.0, 0.7, 0.4, 0.1]
    own = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    own.set_timesteps(STEPS, sigmas=told)
    torch.testing.assert_close(sigmas(name, told), own.sigmas, atol=2e-6, rtol=0)
