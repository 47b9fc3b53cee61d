"""End-to-end training: what is trained is what the pipeline runs, the error falls, and an interrupted training resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings, fit
from harness.training.learned_solver import latent_error
from harness.training.trajectories import Recorder, Trajectories, record, union_grid
from ilf.attach import attach_module
from ilf.checkpoint import load_module
from ilf.end_to_end import EndToEnd, end_to_end_optimisation, recombined, train_all, train_end_to_end
from ilf.method import Ilf
from ilf.module import FeedbackModule
from ilf.settings import IlfSettings
from ilf.train import build_module
from tests.conftest import PROMPTS

OURS = IlfSettings(loop=(6, 6), grids=(2, 3), steps=3, rounds=1, runs=256, seed=7, end_to_end_steps=12, end_to_end_batch=5)
TRAINING = TrainSettings(steps=12, lr=2e-3, warmup=2, ema=0.5, checkpoint_every=6)
ROWS = torch.arange(5)


def teacher(pipeline: Pipeline) -> Trajectories:
    return record(pipeline, PROMPTS, 7, union_grid(OURS.grids, OURS.power, widest_gap=100))


def module_of(pipeline: Pipeline, settings: IlfSettings = OURS) -> FeedbackModule:
    torch.manual_seed(3)
    module = build_module(pipeline, settings)
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module


def fresh(pipeline: Pipeline) -> EndToEnd:
    return EndToEnd(pipeline, module_of(pipeline), OURS.grids)


@pytest.mark.parametrize("inner_pass", [True, False])
def test_the_pipeline_ends_where_training_did(pipeline: Pipeline, inner_pass: bool) -> None:
    data, module = teacher(pipeline), module_of(pipeline, replace(OURS, inner_pass=inner_pass))
    runs = EndToEnd(pipeline, module, (3,))
    for parameter in runs.solver(3).parameters():
        torch.nn.init.normal_(parameter, std=0.005)
    with torch.no_grad():
        ends = runs.ends(3, data, ROWS)
    module.register_to_config(solvers={"3": runs.solver(3).table().content()})
    schedule, recorder = module.schedule(3), Recorder(pipeline, 5)
    assert schedule.table is not None and schedule.timesteps == schedule.table.timesteps
    with attach_module(pipeline, module, schedule), pipeline.sampling(table=schedule.table), recorder.recording():
        pipeline.generate(PROMPTS, 7, range(5))
    assert torch.allclose(recorder.states[-1], ends, atol=1e-4)


def test_the_error_falls_and_an_interrupted_training_follows_the_same_curve(pipeline: Pipeline, tmp_path: Path) -> None:
    data, latents = teacher(pipeline), latent_error
    before = [parameter.clone() for parameter in pipeline.transformer.parameters()]
    whole = train_end_to_end(fresh(pipeline), data, OURS, TRAINING, tmp_path / "a.pt", latents)
    assert whole.loss_curve[-1][1] < whole.loss_curve[0][1]

    class Killed(Exception):
        pass

    def dies(step: int) -> None:
        if step == 8:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ilf.end_to_end.fit", lambda *args: fit(*args, dies))
        with pytest.raises(Killed):
            train_end_to_end(fresh(pipeline), data, OURS, TRAINING, tmp_path / "b.pt", latents)
    resumed = train_end_to_end(fresh(pipeline), data, OURS, TRAINING, tmp_path / "b.pt", latents)
    assert resumed.loss_curve == whole.loss_curve
    assert all(torch.equal(a, b) for a, b in zip(before, pipeline.transformer.parameters(), strict=True))


def test_solvers_are_saved_with_the_module_and_others_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    words = 0 if pipeline.is_class_conditional else 2
    settings = replace(
        OURS, end_to_end_grids=(2, 4), end_to_end_steps=2, image_steps=2, image_targets=6, recombined=words, runs=2
    )
    data = teacher(pipeline)
    module, made = train_all(pipeline, data, PROMPTS, settings, tmp_path / "a.pt", replace(TRAINING, steps=2))
    assert made.then and made.then.then and made.settings.steps == 2
    assert made.then.settings == made.then.then.settings == end_to_end_optimisation(2, OURS)
    assert made.seconds > data.seconds
    module.save_pretrained(tmp_path / "module")
    found = load_module(tmp_path / "module")
    assert set(found.config.solvers) == {"2", "4"}
    method = Ilf(steps=2, checkpoint=str(tmp_path / "module"))
    assert method.plan(pipeline.plan()).solver == "bespoke" and len(method.plan(pipeline.plan()).steps) == 2
    with method.attach(pipeline):
        assert len(pipeline.generate(PROMPTS, 7, range(5))) == 5
    with pytest.raises(UsageError, match="2, 4"), Ilf(steps=3, checkpoint=str(tmp_path / "module")).attach(pipeline):
        pass
    pipeline.guidance = pipeline.guidance.at(3.0)
    with pytest.raises(UsageError, match="guidance"), method.attach(pipeline):
        pass
    with pytest.raises(UsageError, match="guidance_input"):
        replace(OURS, guidance_input=True)


def test_recombined_captions_are_of_known_words_and_seldom_repeat() -> None:
    captions = recombined(PROMPTS, 200, 1)
    words = {word for prompt in PROMPTS for word in prompt.split()}
    assert all(set(caption.split()) <= words and len(caption.split()) in (2, 3) for caption in captions)
    assert len(set(captions)) > 40 and not set(captions) <= set(PROMPTS)
    assert captions == recombined(PROMPTS, 200, 1) != recombined(PROMPTS, 200, 2)
