"""Guidance carried over: steps of the conditional branch alone, with the difference of the step before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings
from harness.training.learned_solver import latent_error
from harness.training.trajectories import record
from ilf.attach import attach_module
from ilf.checkpoint import load_module
from ilf.end_to_end import EndToEnd, train_end_to_end
from ilf.settings import IlfSettings
from tests.conftest import PROMPTS
from tests.ilf.cheaper_steps import check_cost_and_images, check_ends_where_trained
from tests.ilf.test_end_to_end import module_of
from tests.ilf.test_loop import record_outputs

FORM = {"loop": (6, 6), "grids": (4,), "steps": 4, "guidance_carried": "odd", "optimiser_steps": 0, "end_to_end_steps": 12}
LOOP = IlfSettings.of(FORM)
ADAPTER = IlfSettings.of(FORM | {"inner_pass": False})
SOLVER = IlfSettings.of(FORM | {"feedback": "last-1", "guidance_carried": "1.2"})
forms = pytest.mark.parametrize("settings", [LOOP, ADAPTER, SOLVER], ids=["loop", "adapter", "without-feedback"])


def test_the_difference_of_both_branches_is_the_last_steps_that_ran_both(pipeline: Pipeline) -> None:
    module = module_of(pipeline, ADAPTER)
    ran: list[int] = []
    handle = pipeline.blocks[0].register_forward_pre_hook(lambda m, args: ran.append(len(args[0])))
    with attach_module(pipeline, module, module.schedule(4)):
        outputs = record_outputs(pipeline)
    handle.remove()
    (first, null), (second, null_after), (third, null_third), _ = map(pipeline.guidance.halves, outputs)
    assert ran == [6, 3, 6, 3], "three images: both branches, then the conditional one"
    assert torch.allclose(second - null_after, first - null, atol=1e-5) and not torch.allclose(second, first)
    assert not torch.allclose(third - null_third, first - null, atol=1e-5), "a difference of its own"


@forms
def test_counted_work_is_predicted_and_an_image_does_not_depend_on_its_batch(
    pipeline: Pipeline, settings: IlfSettings, tmp_path: Path
) -> None:
    module_and_loop = {LOOP: 4 * 2, ADAPTER: 4, SOLVER: 2}[settings]
    check_cost_and_images(pipeline, settings, 2 * 2 * 6 + 2 * 6 + module_and_loop, tmp_path)


@forms
def test_the_pipeline_ends_where_training_did(pipeline: Pipeline, settings: IlfSettings) -> None:
    check_ends_where_trained(pipeline, settings)


def test_training_lowers_the_error_and_is_saved(pipeline: Pipeline, tmp_path: Path) -> None:
    data = record(pipeline, PROMPTS, 7, (999, 500, 200))
    student = EndToEnd(pipeline, module_of(pipeline, ADAPTER).requires_grad_(True), (4,))
    plan = TrainSettings(steps=24, lr=5e-4, warmup=2, ema=0.5, checkpoint_every=6)
    made = train_end_to_end(student, data, ADAPTER, plan, tmp_path / "a.pt", latent_error)
    assert made.loss_curve[-1][1] < made.loss_curve[0][1]
    student.module.save_pretrained(tmp_path / "module")
    assert load_module(tmp_path / "module").schedule(4).carried == {1, 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"guidance_carried": "all"},
        {"guidance_carried": "0.2"},
        {"guidance_distilled": "last-1"},
        {"optimiser_steps": 5},
        {"branches": "both", "target": "fad"},
        {"partial": True, "feedback": "odd"},
    ],
)
def test_settings_that_carried_guidance_cannot_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="guidance_carried"):
        IlfSettings.of(FORM | wrong)
