"""A named solver as the coefficients that it amounts to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from harness.errors import UsageError
from harness.sampling.grids import whole_grid
from harness.sampling.process import Process
from harness.sampling.schedulers.bespoke import BespokeScheduler
from harness.sampling.schedulers.solver_table import SolverTable
from harness.sampling.solvers import build_solver, on_timesteps, solver_table
from harness.training.learned_solver import LearnedSolver

OWN = {"flow": FlowMatchEulerDiscreteScheduler(shift=3.0), "betas": DDIMScheduler(clip_sample=False)}


def ends(scheduler: Any, x: torch.Tensor, process: Process) -> torch.Tensor:
    """The latent of a model whose clean images are not linear in its inputs."""
    scheduler.set_timesteps(5)
    for i, t in enumerate(scheduler.timesteps):
        signal, noise = process.level(float(t))
        clean = torch.tanh(3 * x + i)
        output = (clean - process.split(0 * x, x, signal, noise)[0]) / process.slope(signal, noise)
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize(
    "kind, name", [("flow", "unipc"), ("flow", "dpm++"), ("flow", "deis"), ("betas", "dpm++"), ("betas", "dpm++1")]
)
@pytest.mark.parametrize("power", [1.0, 1.5])
def test_a_table_takes_the_steps_of_the_solver(kind: str, name: str, power: float) -> None:
    own, grid = OWN[kind], whole_grid(5, power, 3.0 if kind == "flow" else None)
    x, process = torch.randn(7, 2, 3, 3, dtype=torch.float64), Process.of(own)
    table = solver_table(name, own, grid)
    run = BespokeScheduler(table=table.content(), flow=kind == "flow")
    expected = ends(on_timesteps(build_solver(name, own), grid), x, process)
    assert torch.allclose(ends(run, x, process), expected, atol=1e-5)
    other = BespokeScheduler(table=_changed(table).content(), flow=kind == "flow")
    assert not torch.allclose(ends(other, x, process), expected, atol=1e-3)


def _changed(table: SolverTable) -> SolverTable:
    row = table.clean[3]
    return replace(table, clean=(*table.clean[:3], (*row[:2], row[2] + 0.05, row[3]), table.clean[4]))


@pytest.mark.parametrize("kind", OWN)
def test_a_learned_solver_starts_as_the_table(kind: str) -> None:
    own, grid = OWN[kind], whole_grid(6, 1.5)
    plain = LearnedSolver(Process.of(own), grid).table()
    table = solver_table("dpm++", own, grid)
    for mine, other in zip((table.keep, *table.clean), (plain.keep, *plain.clean), strict=True):
        assert mine == pytest.approx(other, abs=2e-5)
    if kind == "flow":
        table = solver_table("unipc", own, grid)
        assert LearnedSolver(Process.of(own), grid, table=table).table().clean[4] == pytest.approx(table.clean[4], abs=1e-5)
        assert table.clean[4] != pytest.approx(plain.clean[4], abs=1e-2)


def test_a_solver_without_free_timesteps_has_no_table() -> None:
    with pytest.raises(UsageError, match="free timesteps"):
        solver_table("unipc", OWN["betas"], whole_grid(5, 1.0))
