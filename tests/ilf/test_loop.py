"""The inner loop: exact at zero scales, equal to a hand-written one otherwise, and trained without touching the backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import ArtifactError, UsageError
from harness.pipeline import Pipeline
from harness.training import TrainSettings, step_generator
from ilf.checkpoint import load_module
from ilf.loop import InnerLoop
from ilf.method import Ilf, attach_module
from ilf.module import FeedbackModule
from ilf.schedule import feedback_steps
from ilf.train import IlfSettings, Objective, build_module, train_module
from ilf.trajectories import Trajectories, record, trailing_grid, union_grid
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import save_random_module

SETTINGS = IlfSettings(loop=(2, 5), grids=(2, 4), steps=4, batch=4)


def record_outputs(pipeline: Pipeline) -> list[torch.Tensor]:
    """Noise predictions of one sampling call, as the pipeline's guidance sees them."""
    outputs: list[torch.Tensor] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda module, args, output: outputs.append((output[0] if isinstance(output, tuple) else output.sample).clone())
    )
    pipeline.generate(PROMPTS[:3], 0, range(3))
    handle.remove()
    return outputs


def test_zero_scales_unfolded_are_the_guided_prediction_bit_for_bit(pipeline: Pipeline) -> None:
    settings = IlfSettings(loop=(2, 5), grids=(4,), steps=4, folded=False)
    module = build_module(pipeline, settings)
    plain_images, plain = pipeline.generate(PROMPTS[:3], 0, range(3)), record_outputs(pipeline)
    with attach_module(pipeline, module):
        looped = record_outputs(pipeline)
        assert torch.equal(pipeline.generate(PROMPTS[:3], 0, range(3)), plain_images)
    assert len(plain) == 4 and all(torch.equal(a, b) for a, b in zip(plain, looped, strict=True))


def test_zero_scales_folded_are_the_conditional_branch_bit_for_bit(pipeline: Pipeline) -> None:
    module = build_module(pipeline, SETTINGS)
    seen: list[tuple[torch.Tensor, dict[str, object]]] = []
    forward = type(pipeline.transformer).forward

    def remember(hidden_states: torch.Tensor, **kwargs: object) -> object:
        seen.append((hidden_states, kwargs))
        return forward(pipeline.transformer, hidden_states, **kwargs)

    pipeline.transformer.forward = remember
    with attach_module(pipeline, module):
        outputs = record_outputs(pipeline)
    del pipeline.transformer.forward
    with torch.inference_mode():
        for output, (hidden_states, kwargs) in zip(outputs, seen, strict=True):
            assert hidden_states.shape[0] == 3, "half of the guidance batch"
            alone = forward(pipeline.transformer, hidden_states, **kwargs)
            alone = alone[0] if isinstance(alone, tuple) else alone.sample
            assert torch.equal(output, torch.cat([alone, alone]))


def test_inner_loop_equals_a_hand_written_one(pipeline: Pipeline) -> None:
    module = build_module(pipeline, SETTINGS)
    module.scales.data = torch.tensor([0.3, -0.2, 0.1, 0.5])
    calls: list[tuple[torch.Tensor, dict[str, object]]] = []
    first = pipeline.blocks[0]
    handle = first.register_forward_pre_hook(lambda m, args, kwargs: calls.append((args[0], kwargs)), with_kwargs=True)
    leaving: list[torch.Tensor] = []
    last = pipeline.blocks[-1].register_forward_hook(lambda m, args, output: leaving.append(output))
    with attach_module(pipeline, module):
        pipeline.generate(PROMPTS[:3], 0, range(3))
    handle.remove()
    last.remove()
    grid = [*pipeline.clock.timesteps, -1.0]
    with torch.inference_mode():
        for step, (h, conditioning) in enumerate(calls):
            h = pipeline.blocks[0](h, **conditioning)
            entered = h
            for block in pipeline.blocks[1:5]:
                h = block(h, **conditioning)
            t, t_next = torch.full((3,), grid[step]), torch.full((3,), grid[step + 1])
            feedback = module(h, t, t_next, **conditioning)
            h = entered
            for scale, block in zip(module.scales, pipeline.blocks[1:5], strict=True):
                h = block(h + scale * feedback, **conditioning)
            assert torch.equal(pipeline.blocks[5](h, **conditioning), leaving[step])


def test_gradients_reach_the_module_and_only_the_module(pipeline: Pipeline) -> None:
    module = build_module(pipeline, SETTINGS)
    module.scales.data.fill_(0.1)
    pipeline.transformer.requires_grad_(False)
    data = record(pipeline, PROMPTS, 0, SETTINGS.grids, widest_gap=250)
    loop = InnerLoop(pipeline.transformer, module)
    with loop.hooked():
        loop.jump = (torch.full((5,), 999.0), torch.full((5,), 749.0))
        t = torch.full((5,), 999)
        pipeline.transformer(data.states[:, 0], timestep=t, **data.conditioning).sample.square().mean().backward()
    missing = {n for n, p in module.named_parameters() if p.grad is None}
    assert all("class_embedder" in name or "scale_shift" in name for name in missing), missing
    assert module.scales.grad is not None and module.scales.grad.abs().min() > 0
    assert all(p.grad is None for p in pipeline.transformer.parameters())


def fixed_batch_loss(pipeline: Pipeline, module: FeedbackModule, data: Trajectories) -> float:
    """The training loss on one batch that every module is asked about."""
    loop = InnerLoop(pipeline.transformer, module)
    with torch.no_grad(), loop.hooked():
        return float(Objective(pipeline, loop, data, replace(SETTINGS, batch=64))(step_generator(5, 5)))


def test_training_lowers_the_loss_resumes_identically_and_leaves_the_backbone(pipeline: Pipeline, tmp_path: Path) -> None:
    before = {n: p.clone() for n, p in pipeline.transformer.state_dict().items()}
    data = record(pipeline, PROMPTS * 4, 0, SETTINGS.grids, widest_gap=100)
    training = TrainSettings(steps=30, lr=1e-2, warmup=2, ema=0.9, checkpoint_every=10)
    whole, record_whole = train_module(pipeline, data, SETTINGS, training, tmp_path / "whole.pt")

    class Killed(Exception):
        pass

    original = torch.optim.AdamW.step
    calls = 0

    def dying(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 17:
            raise Killed
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", dying)
        with pytest.raises(Killed):
            train_module(pipeline, data, SETTINGS, training, tmp_path / "cut.pt")
    resumed, record_resumed = train_module(pipeline, data, SETTINGS, training, tmp_path / "cut.pt")
    assert record_whole.loss_curve == record_resumed.loss_curve and len(record_whole.loss_curve) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert fixed_batch_loss(pipeline, whole, data) < fixed_batch_loss(pipeline, build_module(pipeline, SETTINGS), data)
    assert whole.scales.abs().min() > 0
    after = pipeline.transformer.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_trajectories_start_from_the_keyed_noise_and_end_on_the_pipelines_image(pipeline: Pipeline) -> None:
    from harness.noise import starting_noise

    data = record(pipeline, PROMPTS, 7, (2, 4), widest_gap=100, batch=2)
    assert data.timesteps.tolist() == [*union_grid((2, 4), 100), -1]
    assert torch.equal(data.states[:, 0], starting_noise(7, range(5), pipeline.latent_shape))
    with pipeline.sampling(steps=len(union_grid((2, 4), 100)), solver="dpm++"):
        pass  # restored: recording left the solver alone
    assert pipeline.solver == "dpm++" and pipeline.steps == 4
    for grid in (2, 4):
        assert set(trailing_grid(grid)) <= set(data.timesteps.tolist())


def test_a_student_grid_is_what_the_scheduler_uses(pipeline: Pipeline) -> None:
    for steps in (6, 8, 10, 12, 20):
        with pipeline.sampling(steps=steps, solver="dpm++1"):
            pipeline.pipe.scheduler.set_timesteps(steps)
            assert pipeline.pipe.scheduler.timesteps.tolist() == trailing_grid(steps)


def test_first_order_solver_is_ddim(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["dit"], steps=10)
    with pipeline.sampling(solver="ddim"):
        ddim = pipeline.generate(PROMPTS, 0, range(5)).int()
    with pipeline.sampling(solver="dpm++1"):
        first_order = pipeline.generate(PROMPTS, 0, range(5)).int()
    assert (ddim - first_order).abs().max() <= 1


def test_guidance_that_was_not_folded_in_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    module = save_random_module(pipeline, tmp_path / "module")
    pipeline.guidance = 4.0
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


def test_feedback_steps() -> None:
    assert feedback_steps("all", 3) == {0, 1, 2}
    assert feedback_steps("none", 3) == frozenset()
    assert feedback_steps("first-2", 5) == {0, 1}
    assert feedback_steps("last-2", 5) == {3, 4}
    assert feedback_steps("paper-4", 10) == {0, 2, 5, 7}
    assert feedback_steps("0.3", 5) == {0, 3}
    with pytest.raises(UsageError):
        feedback_steps("sometimes", 5)
    with pytest.raises(UsageError):
        feedback_steps("7", 5)


def test_paper_cost_formula() -> None:
    """28 blocks, 12 looped, 4 of 10 steps with feedback: 332 block evaluations on one branch, as in the paper's table."""
    steps, depth, looped = 10, 28, 12
    assert steps * depth + 4 * (looped + 1) == 332
