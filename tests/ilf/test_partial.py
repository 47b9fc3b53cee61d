"""Partial steps: what they skip, what they start from, and that they are trained as they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import NotMeasured, UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings
from harness.training.learned_solver import latent_error
from harness.training.trajectories import record
from ilf.attach import attach_module
from ilf.checkpoint import load_module
from ilf.end_to_end import EndToEnd, train_all, train_end_to_end
from ilf.settings import IlfSettings
from ilf.train import build_module
from tests.conftest import PROMPTS
from tests.ilf.cheaper_steps import check_cost_and_images, check_ends_where_trained
from tests.ilf.test_end_to_end import module_of
from tests.ilf.test_loop import record_outputs

FORM = {"form": "partial", "loop": (5, 6), "grids": (4,), "steps": 4, "power": 1.0, "end_to_end_steps": 2, "end_to_end_batch": 3}
BOTH = IlfSettings.of(FORM | {"branches": "both"})
CONDITIONAL = IlfSettings.of(FORM)


def test_a_loop_over_all_blocks_without_feedback_is_the_backbone(pipeline: Pipeline) -> None:
    module = build_module(pipeline, replace(BOTH, loop=(1, 6)))
    plain = record_outputs(pipeline)
    with attach_module(pipeline, module, module.schedule(4)):
        partial = record_outputs(pipeline)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain, partial, strict=True))


def test_a_partial_step_equals_a_hand_written_one(pipeline: Pipeline) -> None:
    """Step 1 of a pipeline whose blocks are called by hand, on what step 0 left behind."""
    module = module_of(pipeline, BOTH)
    fed: list[Any] = []
    module.register_forward_hook(lambda m, args, output: fed.append((args, output)))
    entered: dict[int, list[Any]] = {5: [], 6: []}
    left: list[torch.Tensor] = []
    handles = [
        pipeline.blocks[n - 1].register_forward_pre_hook(
            lambda m, args, kw, n=n: entered[n].append((args[0], kw)), with_kwargs=True
        )
        for n in entered
    ]
    handles.append(pipeline.blocks[5].register_forward_hook(lambda m, args, output: left.append(output)))
    ran: list[torch.Tensor] = []
    handles.append(pipeline.blocks[0].get_submodule("attn1").register_forward_hook(lambda m, args, output: ran.append(output)))
    embedded: list[torch.Tensor] = []
    handles.append(
        pipeline.transformer.get_submodule("pos_embed").register_forward_hook(lambda m, args, output: embedded.append(output))
    )
    with attach_module(pipeline, module, module.schedule(4)):
        pipeline.generate(PROMPTS[:3], 0, range(3))
    for handle in handles:
        handle.remove()
    assert len(ran) == len(fed) == 2 and len(left) == 4, "steps 1 and 3 skip blocks 1 to 4"
    (read, null, told, _), additions = fed[0]
    assert torch.equal(read[0], left[0]) and torch.equal(null[0], torch.roll(left[0], 3, 0)), "the other branch's"
    assert float(told.t[0]) == pipeline.clock.timesteps[1] and float(told.t_before[0]) == pipeline.clock.timesteps[0]
    start = entered[5][0][0] + embedded[1] - embedded[0] + additions[0][0]
    with torch.inference_mode():
        hidden = pipeline.blocks[4](start, **entered[5][1][1]) + additions[1][0]
        assert torch.allclose(pipeline.blocks[5](hidden, **entered[6][1][1]), left[1], atol=1e-5)


def test_on_one_branch_the_difference_of_both_is_the_last_whole_steps(pipeline: Pipeline) -> None:
    module = module_of(pipeline, CONDITIONAL)
    with attach_module(pipeline, module, module.schedule(4)):
        whole, partial, *_ = record_outputs(pipeline)
    (conditional, null), (after, null_after) = pipeline.guidance.halves(whole), pipeline.guidance.halves(partial)
    assert torch.allclose(after - null_after, conditional - null, atol=1e-5) and not torch.allclose(after, conditional)


@pytest.mark.parametrize("settings", [BOTH, CONDITIONAL], ids=["both", "conditional"])
def test_counted_work_is_predicted_and_an_image_does_not_depend_on_its_batch(
    pipeline: Pipeline, settings: IlfSettings, tmp_path: Path
) -> None:
    branches = 2 if settings.branches == "both" else 1
    check_cost_and_images(pipeline, settings, 2 * 2 * 6 + 2 * branches * 3, tmp_path)


@pytest.mark.parametrize("settings", [BOTH, CONDITIONAL], ids=["both", "conditional"])
def test_the_pipeline_ends_where_training_did(pipeline: Pipeline, settings: IlfSettings) -> None:
    check_ends_where_trained(pipeline, settings)


def test_training_lowers_the_error_and_is_saved(pipeline: Pipeline, tmp_path: Path) -> None:
    data = record(pipeline, PROMPTS, 7, (999, 500, 200))
    student = EndToEnd(pipeline, module_of(pipeline, BOTH).requires_grad_(True), (4,))
    plan = TrainSettings(steps=12, lr=2e-3, warmup=2, ema=0.5, checkpoint_every=6)
    made = train_end_to_end(student, data, BOTH, plan, tmp_path / "a.pt", latent_error)
    assert made.loss_curve[-1][1] < made.loss_curve[0][1]
    module, _ = train_all(pipeline, data, PROMPTS, BOTH, tmp_path / "b.pt")
    module.save_pretrained(tmp_path / "module")
    assert load_module(tmp_path / "module").settings.partial


@pytest.mark.parametrize(
    "wrong",
    [{"feedback": "all"}, {"feedback": "0,2"}, {"inner_pass": False}, {"optimiser_steps": 5}, {"guidance_distilled": "all"}],
)
def test_settings_that_partial_steps_cannot_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="partial"):
        IlfSettings.of(FORM | wrong)


def test_a_first_step_that_is_partial_is_not_measured(pipeline: Pipeline) -> None:
    module = module_of(pipeline, BOTH)
    schedule = replace(module.schedule(4), feedback=frozenset({0}))
    with attach_module(pipeline, module, schedule), pytest.raises(NotMeasured, match="whole step"):
        pipeline.generate(PROMPTS[:3], 0, range(3))
