"""A sampler that draws noise on the way draws it from each image's own generator."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import LCMScheduler

from harness.config.spec import load_spec
from tests.conftest import PROMPTS, open_pipeline


def test_noise_on_the_way_is_keyed_by_sample(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["pixart"], guidance=0.0)
    pipeline.own_scheduler = LCMScheduler.from_config(pipeline.own_scheduler.config)
    with pipeline.sampling(solver="checkpoint"):
        together = pipeline.generate(PROMPTS, 0, range(5))
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), together)
        alone = pipeline.generate(PROMPTS[2:3], 0, [2])
    assert (alone.int() - together[2:3].int()).abs().max() <= 1
    assert pipeline.plan().steps[0].branches == 1


def test_the_distilled_preset_keeps_its_own_sampler() -> None:
    spec = load_spec("pixart-lcm-1024")
    assert (spec.solver, spec.steps, spec.guidance) == ("checkpoint", 4, 0.0) and "LCM" in spec.pipeline
