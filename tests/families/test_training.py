"""Every family trains: ILF's three stages and learned solvers take steps, change the module alone, and sample afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import UsageError
from harness.models.families.table import described
from harness.sampling.grids import whole_grid
from harness.training.fit import TrainSettings
from harness.training.learned_solver import image_error
from harness.training.trajectories import record
from ilf.attach import attach_module
from ilf.end_to_end import train_all
from ilf.settings import IlfSettings
from ilf.train import build_module
from studies.families import CASES, opened

pytestmark = pytest.mark.families
ONE_STEP = TrainSettings(steps=2, lr=1e-3, warmup=1, ema=0.5, checkpoint_every=2)
OURS = {"loop": "last", "grids": (3,), "steps": 3, "optimiser_steps": 2, "batch": 2, "trajectories": 4, "runs": 4, "rounds": 1}

END_TO_END = {"optimiser_steps": 0, "end_to_end_steps": 2, "end_to_end_batch": 2}
FORMS = {
    "partial": END_TO_END | {"form": "partial", "loop": "last-third"},
    "carried": END_TO_END | {"form": "adapter", "guidance_carried": "odd"},
}


@pytest.mark.parametrize("form", ["ours", "adapter", "carried", "partial", "paper"])
@pytest.mark.parametrize("name", CASES)
def test_the_module_learns_and_nothing_else_does(name: str, form: str, tmp_path: Path) -> None:
    pipeline = opened(name, tmp_path).pipeline
    backbone = pipeline.plan().backbone
    settings = IlfSettings.of(OURS | FORMS.get(form, {"form": form})).resolved(backbone.depth, shift=backbone.shift)
    if form == "ours":
        settings = replace(settings, end_to_end_steps=2, end_to_end_batch=2)
    before = {key: value.clone() for key, value in pipeline.transformer.state_dict().items()}
    prompts = ["red cat", "blue dog", "red dog", "red cat"]
    data = record(pipeline, prompts, 0, whole_grid(3, settings.power, settings.shift), 4)
    module, training = train_all(pipeline, data, prompts, settings, tmp_path / "training.pt", ONE_STEP)
    assert torch.isfinite(torch.tensor(training.final_loss)) and training.loss_curve
    torch.manual_seed(settings.seed if form in FORMS else ONE_STEP.seed)
    untrained = build_module(pipeline, settings).state_dict()
    assert any(not torch.equal(value, untrained[key]) for key, value in module.state_dict().items())
    assert all(p.isfinite().all() for p in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in pipeline.transformer.state_dict().items())
    plain = pipeline.generate(prompts, 5, range(4))
    with attach_module(pipeline, module, module.schedule(3)):
        looped = pipeline.generate(prompts, 5, range(4))
    assert looped.shape == plain.shape and torch.equal(pipeline.generate(prompts, 5, range(4)), plain)


@pytest.mark.parametrize(("name", "fits"), [("PixArt-alpha", True), ("SD3", True), ("FLUX.1-dev", False), ("Qwen-Image", False)])
def test_errors_of_decoded_images_need_latents_that_can_be_decoded_plainly(name: str, fits: bool, tmp_path: Path) -> None:
    pipeline = opened(name, tmp_path).pipeline
    if not fits:
        with pytest.raises(UsageError, match="train without image_steps"):
            image_error(pipeline)
        return
    latents = torch.randn(2, *pipeline.geometry.latent)
    assert float(image_error(pipeline)(latents, latents)) == 0 < float(image_error(pipeline)(latents, -latents))


@pytest.mark.parametrize("name", ["Qwen-Image", "Z-Image"])
def test_captions_of_unequal_length_train_together(name: str, tmp_path: Path) -> None:
    """One is padded to the longest of its batch, the other kept at a length of its own: batches differ in their shapes."""
    pipeline = opened(name, tmp_path).pipeline
    pipeline.pipe.tokenizer.model_max_length = 128
    pipeline.described = described(pipeline.pipe, *pipeline.image_size)
    prompts = [*["red cat", "dog", "red red dog"] * 22, "blue dog " * 20]
    plain = pipeline.backbone
    settings = IlfSettings.of(OURS | {"form": "ours", "trajectories": 67}).resolved(plain.depth, shift=plain.shift)
    settings = replace(settings, end_to_end_steps=2, end_to_end_batch=67)
    data = record(pipeline, prompts, 0, whole_grid(3, settings.power, settings.shift), 64)
    _, training = train_all(pipeline, data, prompts, settings, tmp_path / "training.pt", ONE_STEP)
    assert torch.isfinite(torch.tensor(training.final_loss))
    with pipeline.sampling(timesteps=data.timesteps[:-1].tolist(), solver="dpm++"):
        alone = record(pipeline, prompts[:2], 0, batch=1)
    torch.testing.assert_close(data.states[:2], alone.states, rtol=0, atol=2e-3)
