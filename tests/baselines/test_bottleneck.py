"""The bottleneck's sizes, its ends, and its switch against the formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.bottleneck import Bottleneck
from harness.errors import NotMeasured, UsageError
from harness.sampling.noise import generators
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.sampling.solvers import build_solver
from tests.conftest import PROMPTS, open_pipeline


@pytest.fixture
def pixart(folders: dict[str, Path]) -> Pipeline:
    return open_pipeline(folders["pixart"], steps=10)


def test_no_low_step_is_the_full_run_bit_for_bit(pixart: Pipeline) -> None:
    full = pixart.generate(PROMPTS, 0, range(5))
    with Bottleneck(first=1.0).attach(pixart):
        assert torch.equal(pixart.generate(PROMPTS, 0, range(5)), full)


def test_resolution_goes_high_low_high_and_the_low_steps_cost_their_tokens(pixart: Pipeline) -> None:
    sizes: list[int] = []
    method = Bottleneck(first=0.2, last=0.4)
    hook = pixart.transformer.register_forward_pre_hook(lambda m, a: sizes.append(a[0].shape[-1]))
    with pixart.counting() as counter, method.attach(pixart):
        images = pixart.generate(PROMPTS, 0, range(5))
    hook.remove()
    assert sizes == [8, 8, 4, 4, 4, 4, 8, 8, 8, 8] and images.shape[-2:] == (16, 16)
    plan = method.plan(pixart.plan())
    assert counter.rows / 5 == plan.block_evaluations
    assert plan.steps[2].blocks / plan.steps[0].blocks == pytest.approx(0.25, abs=0.05)  # 4 of 16 tokens, and the caption


def test_equals_a_run_written_by_hand(pixart: Pipeline) -> None:
    """The whole run from the same noise: the solver reset in each of three stages, the clean latent resized and noised again."""
    seen: list[tuple[torch.Tensor, dict[str, Any]]] = []
    hook = pixart.transformer.register_forward_pre_hook(lambda m, a, k: seen.append((a[0][:5], k)), with_kwargs=True)
    with Bottleneck(first=0.2, last=0.4).attach(pixart):
        pixart.generate(PROMPTS, 0, range(5))
    hook.remove()
    random, bars = generators(0, range(5)), pixart.own_scheduler.alphas_cumprod

    def noise(size: int) -> torch.Tensor:
        return torch.cat([torch.randn((1, 4, size, size), generator=generator) for generator in random])

    def solver() -> Any:
        fresh = build_solver("dpm++", pixart.own_scheduler)
        fresh.set_timesteps(10)
        return fresh

    x, scheduler = noise(8), solver()
    times = scheduler.timesteps.tolist()
    for step, (t, (entered, told)) in enumerate(zip(times, seen, strict=True)):
        assert torch.allclose(x, entered, atol=1e-5), step
        with torch.inference_mode():
            null, conditional = pixart.transformer(torch.cat([x, x]), **told)[0][:, :4].chunk(2)
        eps = null + pixart.guidance.scale * (conditional - null)
        if step in (1, 5):
            clean = (x - (1 - bars[t]).sqrt() * eps) / bars[t].sqrt()
            size, bar, scheduler = 4 if step == 1 else 8, bars[times[step + 1]], solver()
            resized = torch.nn.functional.interpolate(clean, size=(size, size), mode="bilinear", antialias=True)
            x = bar.sqrt() * resized + (1 - bar).sqrt() * noise(size)
        else:
            x = scheduler.step(eps, t, x).prev_sample


def test_the_switch_keeps_the_clean_latent_and_takes_the_next_noise_level(pixart: Pipeline) -> None:
    """A model that knows a constant clean latent: after the switch the resized sample is still signal * it + noise."""
    scheduler, transformer = pixart.pipe.scheduler, pixart.transformer
    clean, seen = 0.7, []

    def knowing(hidden_states: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        bar = scheduler.alphas_cumprod[int(timestep[0])]
        eps = (hidden_states - bar.sqrt() * clean) / (1 - bar).sqrt()
        seen.append((hidden_states[:5], float(bar)))
        return (torch.cat([eps, eps], dim=1),)

    with patched(transformer, "forward", knowing), Bottleneck(first=0.2, last=0.4).attach(pixart):
        pixart.generate(PROMPTS, 0, range(5))
    for step in (2, 6):
        sample, bar = seen[step]
        noise = (sample - bar**0.5 * clean) / (1 - bar) ** 0.5
        assert noise.mean().abs() < 0.25 and noise.std() == pytest.approx(1, abs=0.2)


def test_what_it_cannot_do_is_said_in_one_line(pixart: Pipeline, folders: dict[str, Path]) -> None:
    with pytest.raises(NotMeasured, match="a DiT, which has one resolution"):
        Bottleneck().plan(open_pipeline(folders["dit"]).plan())
    with pixart.sampling(solver="ddim"), pytest.raises(NotMeasured, match=r"DPM-Solver"), Bottleneck().attach(pixart):
        pass
    with pytest.raises(UsageError):
        Bottleneck(last=0.0)
