"""The inner loop: exact at zero scales, equal to a hand-written one otherwise, in every form of the module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import ArtifactError, UsageError
from harness.sampling.pipeline import Pipeline
from ilf.attach import attach_module
from ilf.checkpoint import load_module
from ilf.method import Ilf
from ilf.module import FeedbackModule, Transition
from ilf.schedule import Schedule
from ilf.settings import IlfSettings
from ilf.train import build_module
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import save_random_module

PAPER = IlfSettings.of({"form": "paper", "loop": (2, 5), "grids": (4,), "steps": 4})
OURS = IlfSettings(loop=(5, 6), grids=(4,), steps=4, power=1.0)
FORMS = {
    "paper": PAPER,
    "ours": OURS,
    "adapter": replace(OURS, inner_pass=False),
    "separate": replace(OURS, separate=True, depth=2),
    "guidance": replace(OURS, guidance_input=True, inner_time="next"),
    "middle": replace(PAPER, inner_time="middle"),
}


def schedule(module: FeedbackModule, **changes: str) -> Schedule:
    """The module's own at 4 steps."""
    return module.schedule(4, **changes)


def record_outputs(pipeline: Pipeline) -> list[torch.Tensor]:
    """Noise predictions of one sampling call, as the pipeline's guidance sees them."""
    outputs: list[torch.Tensor] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda module, args, output: outputs.append((output[0] if isinstance(output, tuple) else output.sample).clone())
    )
    pipeline.generate(PROMPTS[:3], 0, range(3))
    handle.remove()
    return outputs


@pytest.mark.parametrize("form", FORMS)
def test_an_untrained_module_changes_nothing(pipeline: Pipeline, form: str) -> None:
    module = build_module(pipeline, FORMS[form])
    if FORMS[form].separate:
        assert module.maps is not None, "a linear map a looped block"
    plain_images, plain = pipeline.generate(PROMPTS[:3], 0, range(3)), record_outputs(pipeline)
    with attach_module(pipeline, module, schedule(module)):
        looped = record_outputs(pipeline)
        images = pipeline.generate(PROMPTS[:3], 0, range(3))
    if FORMS[form].inner_time != "same":
        assert not torch.equal(images, plain_images), "the second pass runs at another time"
        return
    assert len(plain) == 4
    if form == "paper":  # bit for bit; a loop on half of the rows multiplies matrices of another size
        assert all(torch.equal(a, b) for a, b in zip(plain, looped, strict=True))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain, looped, strict=True))
    assert (images.int() - plain_images.int()).abs().max() <= 1


def test_zero_scales_guidance_distilled_are_the_conditional_branch_bit_for_bit(pipeline: Pipeline) -> None:
    module = build_module(pipeline, replace(PAPER, guidance_distilled="all", target="first-order"))
    seen: list[tuple[torch.Tensor, dict[str, object]]] = []
    forward = type(pipeline.transformer).forward

    def remember(hidden_states: torch.Tensor, **kwargs: object) -> object:
        seen.append((hidden_states, kwargs))
        return forward(pipeline.transformer, hidden_states, **kwargs)

    pipeline.transformer.forward = remember
    with attach_module(pipeline, module, schedule(module)):
        outputs = record_outputs(pipeline)
    del pipeline.transformer.forward
    with torch.inference_mode():
        for output, (hidden_states, kwargs) in zip(outputs, seen, strict=True):
            assert hidden_states.shape[0] == 3, "half of the guidance batch"
            alone = forward(pipeline.transformer, hidden_states, **kwargs)
            alone = alone[0] if isinstance(alone, tuple) else alone.sample
            assert torch.equal(output, torch.cat([alone, alone]))


def first_call(pipeline: Pipeline, module: FeedbackModule) -> tuple[torch.Tensor, dict[str, object], torch.Tensor]:
    """What entered the first block in the first step, and what left the last."""
    entered: list[tuple[torch.Tensor, dict[str, object]]] = []
    left: list[torch.Tensor] = []
    handles = [
        pipeline.blocks[0].register_forward_pre_hook(lambda m, args, kw: entered.append((args[0], kw)), with_kwargs=True),
        pipeline.blocks[-1].register_forward_hook(lambda m, args, output: left.append(output)),
    ]
    with attach_module(pipeline, module, schedule(module)):
        pipeline.generate(PROMPTS[:3], 0, range(3))
    for handle in handles:
        handle.remove()
    return *entered[0], left[-1] if len(left) == 4 else left[0]


def transition(pipeline: Pipeline, rows: int) -> Transition:
    """The first step's, for a module without context."""
    grid = pipeline.clock.timesteps
    t, t_next = torch.full((rows,), grid[0]), torch.full((rows,), grid[1])
    nothing = torch.zeros(rows, *pipeline.latent_shape)
    return Transition(
        t, t_next, torch.full((rows,), 1000.0), nothing, nothing, torch.zeros(rows).bool(), torch.full((rows,), 2.0)
    )


def test_the_papers_loop_equals_a_hand_written_one(pipeline: Pipeline) -> None:
    module = build_module(pipeline, PAPER)
    module.scales.data = torch.tensor([0.3, -0.2, 0.1, 0.5])
    leaving: list[torch.Tensor] = []
    handle = pipeline.blocks[-1].register_forward_hook(lambda m, args, output: leaving.append(output))
    h, conditioning, _ = first_call(pipeline, module)
    handle.remove()
    with torch.inference_mode():
        h = pipeline.blocks[0](h, **conditioning)
        entered = h
        for block in pipeline.blocks[1:5]:
            h = block(h, **conditioning)
        feedback = module.blocks[0](h, **conditioning)
        h = entered
        for scale, block in zip([0.3, -0.2, 0.1, 0.5], pipeline.blocks[1:5], strict=True):
            h = block(h + scale * feedback, **conditioning)
        assert torch.allclose(pipeline.blocks[5](h, **conditioning), leaving[0], atol=1e-6)


def test_feedback_on_the_conditional_branch_leaves_the_null_branch_alone(pipeline: Pipeline) -> None:
    module = build_module(pipeline, replace(OURS, gating="fixed"))
    plain = record_outputs(pipeline)
    module.scales.data.fill_(0.5)
    with attach_module(pipeline, module, schedule(module)):
        looped = record_outputs(pipeline)
    first = pipeline.family.name == "dit"
    rows = slice(3, None) if first else slice(None, 3)
    other = slice(None, 3) if first else slice(3, None)
    assert torch.equal(plain[0][rows], looped[0][rows])
    assert not torch.equal(plain[0][other], looped[0][other])


def test_context_is_this_steps_latent_and_the_last_steps_guided_prediction(pipeline: Pipeline) -> None:
    module = build_module(pipeline, replace(OURS, gating="fixed"))
    module.scales.data.fill_(0.2)
    told: list[Transition] = []
    with attach_module(pipeline, module, schedule(module), lambda transition, passage, null: told.append(transition)):
        outputs = record_outputs(pipeline)
    assert [int(j.t_before[0]) for j in told] == [1000, *(int(j.t[0]) for j in told[:-1])]
    assert torch.equal(told[0].previous, told[0].sample)
    for output, after in zip(outputs, told[1:], strict=False):
        eps = output[:, : pipeline.latent_shape[0]]
        first, second = eps[:3], eps[3:]
        conditional, null = (first, second) if pipeline.family.name == "dit" else (second, first)
        assert torch.allclose(after.previous, null + pipeline.guidance.scale * (conditional - null), atol=1e-6)


def test_first_order_solver_is_ddim(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["dit"], steps=10)
    with pipeline.sampling(solver="ddim"):
        ddim = pipeline.generate(PROMPTS, 0, range(5)).int()
    with pipeline.sampling(solver="dpm++1"):
        first_order = pipeline.generate(PROMPTS, 0, range(5)).int()
    assert (ddim - first_order).abs().max() <= 1


def test_guidance_that_was_not_distilled_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    module = save_random_module(pipeline, tmp_path / "module", guidance_distilled="first-2")
    pipeline.guidance = pipeline.guidance.at(4.0)
    with pytest.raises(UsageError, match=r"guidance 2\.0"), Ilf(checkpoint=str(module)).attach(pipeline):
        pass


def test_checkpoints_of_another_backbone_or_damaged_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    dit, pixart = open_pipeline(folders["dit"]), open_pipeline(folders["pixart"])
    folder = save_random_module(dit, tmp_path / "module")
    with pytest.raises(ArtifactError, match="was trained on this backbone"), Ilf(checkpoint=str(folder)).attach(pixart):
        pass
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="retrain"):
        load_module(folder)
    with pytest.raises(UsageError, match=r"no config\.json"), Ilf(checkpoint=str(tmp_path / "nowhere")).attach(dit):
        pass
