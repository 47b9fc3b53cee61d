"""Solvers on the toy Gaussian denoiser, whose trajectory is known in closed form."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from harness.clock import StepClock
from harness.errors import UsageError
from harness.patching import patched
from harness.solvers import SOLVERS, build_solver
from tests.gaussian import GaussianDenoiser


def solve(name: str, steps: int) -> float:
    """Largest error at the clean end of one solver against the exact flow."""
    toy, scheduler = GaussianDenoiser(), build_solver(name, DDIMScheduler())
    scheduler.set_timesteps(steps)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    x = start.clone()
    for t in scheduler.timesteps:
        x = scheduler.step(toy.eps(x, int(t)), t, x).prev_sample
    return float((x - toy.flow(start, int(scheduler.timesteps[0]), -1)).abs().max())


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_solver_converges_to_the_exact_sample(name: str) -> None:
    coarse, fine = solve(name, 10), solve(name, 80)
    assert fine < 0.05 and fine < coarse / 4


def test_second_order_beats_first_order() -> None:
    assert solve("dpm++", 40) < 0.5 * solve("dpm++1", 40)
    assert solve("ddim", 20) == pytest.approx(solve("dpm++1", 20), rel=0.05)


def test_unknown_solver_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unipc"):
        build_solver("euler-magic", DDIMScheduler())


def test_own_keeps_the_checkpoints_scheduler() -> None:
    own = DDIMScheduler(beta_end=0.015, timestep_spacing="leading")
    built = build_solver("checkpoint", own)
    assert built is not own and built.config.beta_end == 0.015 and built.config.timestep_spacing == "leading"
    assert build_solver("unipc", own).config.beta_end == 0.015


def test_clock_counts_steps_and_names_the_landing() -> None:
    clock, scheduler = StepClock(), build_solver("ddim", DDIMScheduler())
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
