"""The two router losses: their extremes in closed form, their gradients, and short trainings that leave no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baselines.learned.denoiser import Denoiser, one_branch
from baselines.learned.routers import HarmoniCa, LearningToCache
from baselines.learned.train_routers import LOSSES, RouterSettings, train_router
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings, step_generator
from harness.training.trajectories import record
from tests.conftest import PROMPTS

QUICK = RouterSettings(TrainSettings(steps=6, lr=0.3, warmup=1, ema=0.5, checkpoint_every=3), price=0.2, batch=4, trajectories=5)


def test_trajectories_replay_the_pipeline(pipeline: Pipeline) -> None:
    """The denoiser on recorded states, guided, takes the recorded next state through a first-order step."""
    with pipeline.sampling(solver="ddim"):
        data = record(pipeline, PROMPTS, 0, batch=2)
        assert data.states.shape[:2] == (5, 5) and data.branches == 2 and data.timesteps[-1] == -1
        index = torch.tensor([3, 0])
        denoise, scheduler = Denoiser(pipeline), pipeline.pipe.scheduler
        scheduler.set_timesteps(4)
        times = torch.full((4,), data.timesteps[1])
        with torch.no_grad():
            both = data.guidance_batch(index, pipeline.guidance)
            eps = denoise(torch.cat([data.states[index, 1]] * 2), times, both)
            branch = torch.tensor([1, 0])
            one = denoise(data.states[index, 1], times[:2], one_branch(data, index, branch, pipeline.guidance))
        after = scheduler.step(denoise.guided(eps), scheduler.timesteps[1], data.states[index, 1]).prev_sample
    assert torch.allclose(after, data.states[index, 2], atol=1e-4)
    assert torch.allclose(one, eps[[2, 1]], atol=1e-5), "row 0 of the second branch, row 1 of the first"


@pytest.mark.parametrize("name", [LearningToCache.name, HarmoniCa.name])
def test_loss_of_all_fresh_is_the_price_and_of_all_kept_is_one(pipeline: Pipeline, name: str) -> None:
    loss = LOSSES[name](pipeline, record(pipeline, PROMPTS, 0), QUICK)
    with loss.mixed.attached():
        loss.router.logits.data.fill_(40.0)
        assert loss(step_generator(0, 0)).item() == pytest.approx(0.2, rel=1e-4)
        loss.router.logits.data.fill_(-40.0)
        if name == LearningToCache.name:
            assert loss(step_generator(0, 0)).item() == pytest.approx(1 + 0.2 * loss.cost(loss.router.keep[1]).item(), rel=1e-3)
        loss.router.logits.data.fill_(0.0)
        loss(step_generator(0, 0)).backward()
    gradient = loss.router.logits.grad
    assert gradient is not None and gradient[0].abs().max() == 0 and gradient[1].abs().min() > 0


@pytest.mark.parametrize("name", [LearningToCache.name, HarmoniCa.name])
def test_training_leaves_the_pipeline_alone_and_moves_the_router(pipeline: Pipeline, tmp_path: Path, name: str) -> None:
    before = pipeline.generate(PROMPTS, 0, range(5))
    router, made = train_router(name, QUICK, pipeline, PROMPTS, tmp_path / "router.pt")
    assert made.seconds > 0 and router.keep[1:].min() < 0.87
    assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), before)
    assert all("forward" not in vars(block.ff) for block in pipeline.blocks)
