"""Learned solvers against DPM-Solver++, the exact flow of a Gaussian, and the pipeline that runs their tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from baselines.learned.bespoke import Bespoke
from harness.errors import ArtifactError, UsageError
from harness.sampling.clock import StepClock
from harness.sampling.grids import power_grid
from harness.sampling.pipeline import Pipeline
from harness.sampling.process import Process
from harness.sampling.schedulers.bespoke import BespokeScheduler
from harness.sampling.schedulers.solver_table import SolverTable
from harness.sampling.solvers import on_timesteps
from harness.training.fit import TrainSettings, fit
from harness.training.learned_solver import LearnedSolver, denoiser, image_error, rms_distance
from harness.training.trajectories import Recorder, record
from tests.conftest import PROMPTS, random_table
from tests.gaussian import ALPHAS, GaussianDenoiser


def run(scheduler: object, toy: GaussianDenoiser, x: torch.Tensor, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)  # type: ignore[attr-defined]
    for t in scheduler.timesteps:  # type: ignore[attr-defined]
        x = scheduler.step(toy.eps(x, int(t)), t, x).prev_sample  # type: ignore[attr-defined]
    return x


def gaussian_predict(toy: GaussianDenoiser) -> object:
    def predict(step: int, t: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        eps = toy.eps(x, int(t))
        return eps, torch.zeros_like(eps)

    return predict


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_an_untrained_solver_is_dpm_solver_plus_plus(steps: int) -> None:
    toy, grid = GaussianDenoiser(), power_grid(steps, 1.5)
    plain = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero")
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    expected = run(on_timesteps(plain, grid), toy, x, steps)
    solver = LearnedSolver(Process(ALPHAS, "epsilon"), power_grid(steps, 1.5))
    table = solver.table()
    assert table.timesteps == grid
    assert torch.allclose(run(BespokeScheduler(table=table.content()), toy, x, steps), expected, atol=1e-4)
    assert torch.allclose(solver(gaussian_predict(toy), x), expected, atol=1e-4)


def test_training_finds_the_exact_flow(tmp_path: Path) -> None:
    """A Gaussian's flow is linear, so two steps of learned coefficients can follow it; DPM-Solver++ cannot."""
    toy, solver = GaussianDenoiser(), LearnedSolver(Process(ALPHAS, "epsilon"), power_grid(2, 1.5))
    x = torch.randn(64, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * toy.spread(999)
    target = toy.flow(x, 999, -1)
    before = float(rms_distance(solver(gaussian_predict(toy), x), target).mean().detach())
    settings = TrainSettings(steps=300, lr=1e-3, warmup=5, ema=0.5, checkpoint_every=300)
    fit(solver, lambda g: rms_distance(solver(gaussian_predict(toy), x), target).mean(), settings, tmp_path / "s.pt", "toy")
    after = float(rms_distance(run(BespokeScheduler(table=solver.table().content()), toy, x, 2), target).mean())
    assert after < before / 10, (before, after)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_pipeline_runs_the_table_that_was_trained(pipeline: Pipeline, guidance: float) -> None:
    pipeline.guidance = pipeline.guidance.at(guidance)
    data = record(pipeline, PROMPTS, 7, power_grid(4, 1.5))
    torch.manual_seed(0)
    solver = LearnedSolver(Process.of(pipeline.pipe.scheduler), power_grid(4, 1.5))
    for parameter in solver.parameters():
        torch.nn.init.normal_(parameter, std=0.005)
    rows = torch.arange(5)
    with torch.no_grad():
        ends = solver(denoiser(pipeline, data, rows, StepClock()), data.states[:, 0])
    seen = record_with(pipeline, solver.table())
    assert not torch.allclose(ends, data.states[:, -1], atol=1e-2), "the table differs from DPM-Solver++"
    assert torch.allclose(seen, ends, atol=1e-4)


def record_with(pipeline: Pipeline, table: SolverTable) -> torch.Tensor:
    """The latent at the end of the pipeline's own call with a table."""
    recorder = Recorder(pipeline, len(PROMPTS))
    with pipeline.sampling(table=table), recorder.recording():
        pipeline.generate(PROMPTS, 7, range(len(PROMPTS)))
    return recorder.states[-1]


def test_gradients_reach_timesteps_and_every_coefficient(pipeline: Pipeline) -> None:
    data = record(pipeline, PROMPTS, 7, power_grid(4, 1.5))
    pipeline.transformer.requires_grad_(False)
    solver = LearnedSolver(Process.of(pipeline.pipe.scheduler), power_grid(3, 1.5))
    solver(denoiser(pipeline, data, torch.arange(2), StepClock()), data.states[:2, 0]).square().mean().backward()
    for name, parameter in solver.named_parameters():
        used = torch.tril(torch.ones(3, 3)).bool() if parameter.dim() == 2 else torch.ones(3).bool()
        assert parameter.grad is not None and (parameter.grad[used] != 0).all(), name
        assert (parameter.grad[~used] == 0).all()


def test_another_scheduler_inside_has_no_guidance_terms(pipeline: Pipeline) -> None:
    plain = pipeline.generate(PROMPTS, 7, range(5))
    with pipeline.sampling(table=random_table(3)):
        learned = pipeline.generate(PROMPTS, 7, range(5))
        with pipeline.sampling(solver="dpm++", steps=4):
            inside = pipeline.generate(PROMPTS, 7, range(5))
    assert not torch.equal(learned, plain)
    with pipeline.sampling(solver="dpm++", steps=4):
        assert torch.equal(inside, pipeline.generate(PROMPTS, 7, range(5)))
    assert torch.equal(pipeline.generate(PROMPTS, 7, range(5)), plain)


def test_a_table_survives_json_and_nonsense_is_refused() -> None:
    table = random_table(4)
    assert SolverTable.read(table.content()) == table
    for wrong in (
        {"timesteps": (1, 2, 3, 4)},
        {"timesteps": (9, 8, 7)},
        {"keep": (1.0, float("nan"), 0.0, 0.0)},
        {"clean": ((1.0,),) * 4},
        {"guidance": ()},
        {"timesteps": (9, 8, 7, -1)},
    ):
        with pytest.raises(ArtifactError, match="table"):
            replace(table, **wrong)
    for content in (None, [], {}, {"timesteps": "x"}, table.content() | {"keep": [None] * 4}):
        with pytest.raises(ArtifactError, match="table"):
            SolverTable.read(content)


def test_a_step_count_or_guidance_without_a_solver_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="3 steps"), Bespoke(4).attach(pipeline):
        pass
    pipeline.guidance = pipeline.guidance.at(3.0)
    with pytest.raises(UsageError, match="guidance 2"), Bespoke(3).attach(pipeline):
        pass


def test_the_image_error_is_that_of_the_images_that_the_pipeline_gives(pipeline: Pipeline) -> None:
    recorder, images = Recorder(pipeline, 5), []
    with recorder.recording():
        images.append(pipeline.generate(PROMPTS, 7, range(5)))
    ends = recorder.states[-1].clone()
    recorder = Recorder(pipeline, 5)
    with recorder.recording():
        images.append(pipeline.generate(PROMPTS, 8, range(5)))
    others = recorder.states[-1].clone().requires_grad_()
    error = image_error(pipeline)(others, ends)
    one, other = (batch.float() / 255 for batch in images)
    assert float(error.detach()) == pytest.approx(float((one - other).square().flatten(1).mean(1).sqrt().mean()), abs=2 / 255)
    error.backward()
    assert others.grad is not None and others.grad.abs().sum() > 0
