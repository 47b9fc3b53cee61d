"""Training: from the teacher's runs and the module's own, resumed to the identical curve, the backbone untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import ArtifactError, UsageError
from harness.sampling.grids import power_grid
from harness.sampling.pipeline import Pipeline
from harness.training import trajectories
from harness.training.fit import TrainSettings
from harness.training.trajectories import Trajectories, record, recorded, union_grid
from ilf.loop import InnerLoop
from ilf.objective import Objective
from ilf.settings import IlfSettings
from ilf.train import build_module, train_module
from ilf.transitions import collect
from tests.conftest import PROMPTS, starting_noise

SEED = 7
OURS = IlfSettings(loop=(6, 6), grids=(2, 4), steps=4, batch=8, rounds=2, runs=5, seed=SEED, guidance_distilled="first-1")
PAPER = IlfSettings.of({"form": "paper", "loop": (2, 5), "grids": (4,), "steps": 4, "seed": SEED})
TRAINING = TrainSettings(steps=30, lr=1e-2, warmup=2, ema=0.9, checkpoint_every=10)


def teacher(pipeline: Pipeline, settings: IlfSettings, copies: int = 1) -> Trajectories:
    return record(pipeline, PROMPTS * copies, SEED, union_grid(settings.grids, settings.power, widest_gap=100), batch=3)


def test_trajectories_start_from_the_keyed_noise_and_hold_every_student_grid(pipeline: Pipeline) -> None:
    data = teacher(pipeline, OURS)
    assert torch.equal(data.states[:, 0], starting_noise(SEED, range(5), pipeline.latent_shape))
    for steps in OURS.grids:
        assert set(power_grid(steps, 1.5)) <= set(data.timesteps.tolist())
    assert pipeline.solver == "dpm++" and pipeline.steps == 4, "recording leaves the pipeline alone"
    assert data.guidance.tolist() == [2.0] * 5
    several = record(pipeline, PROMPTS, SEED, (999, 499), batch=2, guidances=(1.5, 3.0))
    assert several.guidance.tolist() == [1.5, 1.5, 3.0, 3.0, 1.5]


def test_trajectories_are_made_once_and_refused_for_another_recipe(pipeline: Pipeline, tmp_path: Path) -> None:
    grid = union_grid(OURS.grids, OURS.power, widest_gap=100)
    data = teacher(pipeline, OURS)
    first = recorded(tmp_path / "t.pt", "a", pipeline, PROMPTS, SEED, grid, batch=3)
    assert torch.equal(first.states, data.states) and torch.equal(first.guidance, data.guidance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectories, "record", lambda *a, **k: pytest.fail("made twice"))
        again = recorded(tmp_path / "t.pt", "a", pipeline, PROMPTS, SEED, grid, batch=3)
    assert torch.equal(first.states, again.states) and first.null.keys() == again.null.keys() == data.null.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["t.pt"], "the pieces are gone"
    with pytest.raises(ArtifactError, match="made for b"):
        recorded(tmp_path / "t.pt", "b", pipeline, PROMPTS, SEED, grid, batch=3)


def test_the_modules_own_run_is_what_the_pipeline_does(pipeline: Pipeline, tmp_path: Path) -> None:
    """An untrained module's transitions on its own path: the states of the plain run; forced: the teacher's."""
    settings = replace(OURS, guidance_distilled="none")
    data, module = teacher(pipeline, settings), build_module(pipeline, settings)
    schedule = module.schedule(4)
    own = collect(pipeline, module, 4, data, PROMPTS, SEED, torch.arange(5))
    plain = record(pipeline, PROMPTS, SEED, schedule.timesteps)
    for step, t in enumerate(schedule.timesteps):
        at, expected = own.t == t, plain.states[:, step]
        rounding = 1e-6 * float(expected.abs().max())  # random weights lead to states of some hundreds
        assert torch.allclose(own.sample[at], expected, rtol=0, atol=max(1e-5, rounding))
        assert torch.equal(own.target[at], data.states[:, data.column(own.t_next[at])[0]])
    forced = collect(pipeline, module, 4, data, PROMPTS, SEED, torch.arange(5), forced=True)
    for t in schedule.timesteps:
        at = forced.t == t
        assert torch.equal(forced.sample[at], data.states[:, data.column(forced.t[at])[0]])


def test_only_steps_with_feedback_are_learned_from(pipeline: Pipeline) -> None:
    settings = replace(OURS, guidance_distilled="none", feedback="last-2")
    data, module = teacher(pipeline, settings), build_module(pipeline, settings)
    schedule = module.schedule(4)
    transitions = collect(pipeline, module, 4, data, PROMPTS, SEED, torch.arange(5))
    assert sorted(set(transitions.t.tolist())) == sorted(schedule.timesteps[2:])
    assert module.settings.feedback == "last-2"


@pytest.mark.parametrize("guidance_distilled", ["none", "first-2", "all"])
def test_the_objective_predicts_what_a_run_uses(pipeline: Pipeline, guidance_distilled: str) -> None:
    """From stored hidden states the loss sees the guided prediction of the run, whose landing is the run's next state."""
    settings = replace(OURS, guidance_distilled=guidance_distilled, gating="fixed")
    data, module = teacher(pipeline, settings), build_module(pipeline, settings)
    module.scales.data.fill_(0.3)
    transitions = collect(pipeline, module, 4, data, PROMPTS, SEED, torch.arange(5))
    loop = InnerLoop(pipeline.transformer, pipeline.family, module)
    with torch.no_grad(), loop.hooked():
        eps = Objective(pipeline, loop, data, "second-order").guided(transitions)
    for t, after in zip(
        sorted(set(transitions.t.tolist()), reverse=True), sorted(set(transitions.t.tolist()), reverse=True)[1:], strict=False
    ):
        used = transitions.previous[transitions.t == after]
        assert torch.allclose(eps[transitions.t == t], used, atol=0.02, rtol=0.02), "bfloat16 storage"


def test_gradients_reach_the_module_and_only_the_module(pipeline: Pipeline) -> None:
    data, module = teacher(pipeline, OURS), build_module(pipeline, OURS)
    torch.nn.init.normal_(module.gates[-1].weight, std=0.1)
    pipeline.transformer.requires_grad_(False)
    transitions = collect(pipeline, module, 4, data, PROMPTS, SEED, torch.arange(5))
    loop = InnerLoop(pipeline.transformer, pipeline.family, module)
    with loop.hooked():
        Objective(pipeline, loop, data, "second-order")(transitions, torch.Generator()).backward()
    missing = {n for n, p in module.named_parameters() if p.grad is None}
    assert all("class_embedder" in name or "scale_shift" in name for name in missing), missing
    assert all(p.grad is None for p in pipeline.transformer.parameters())


FORCED = replace(OURS, forced=True, rounds=1, grids=(4,))
TARGETS = {
    "ours": FORCED,
    "first order": replace(FORCED, target="first-order"),
    "teacher steps": replace(FORCED, target="teacher-steps", context=False),
    "paper": replace(PAPER, batch=8, runs=5),
    "adapter": replace(FORCED, inner_pass=False, gradient_checkpointing=True, copy=True),
}


def loss_of(pipeline: Pipeline, module: torch.nn.Module, data: Trajectories, settings: IlfSettings) -> float:
    """The training loss on one set of transitions that every module is asked about."""
    untrained = build_module(pipeline, settings)
    transitions = collect(pipeline, untrained, 4, data, PROMPTS, SEED, torch.arange(5), forced=True)
    loop = InnerLoop(pipeline.transformer, pipeline.family, module)  # type: ignore[arg-type]
    with torch.no_grad(), loop.hooked():
        return float(Objective(pipeline, loop, data, settings.target)(transitions, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", TARGETS)
def test_training_lowers_the_loss_and_leaves_the_backbone(pipeline: Pipeline, name: str, tmp_path: Path) -> None:
    settings = TARGETS[name]
    before = {n: p.clone() for n, p in pipeline.transformer.state_dict().items()}
    data = teacher(pipeline, settings)
    module, made = train_module(pipeline, data, PROMPTS, settings, tmp_path / "work.pt", TRAINING)
    assert loss_of(pipeline, module, data, settings) < loss_of(pipeline, build_module(pipeline, settings), data, settings)
    assert made.seconds > 0 and len(made.loss_curve) == 3
    after = pipeline.transformer.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


class Killed(Exception):
    pass


def train_until(pipeline: Pipeline, data: Trajectories, checkpoint: Path, last: int) -> None:
    """A training that dies in its optimizer step ``last``."""
    original = torch.optim.AdamW.step
    calls = 0

    def dying(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == last:
            raise Killed
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", dying)
        with pytest.raises(Killed):
            train_module(pipeline, data, PROMPTS, OURS, checkpoint, TRAINING)


def test_a_killed_training_resumes_to_the_identical_curve(pipeline: Pipeline, tmp_path: Path) -> None:
    data = teacher(pipeline, OURS)
    whole, record_whole = train_module(pipeline, data, PROMPTS, OURS, tmp_path / "whole.pt", TRAINING)
    train_until(pipeline, data, tmp_path / "cut.pt", 17)
    resumed, record_resumed = train_module(pipeline, data, PROMPTS, OURS, tmp_path / "cut.pt", TRAINING)
    assert record_whole.loss_curve == record_resumed.loss_curve and len(record_whole.loss_curve) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_what_a_round_met_is_not_made_again_by_another_module(pipeline: Pipeline, tmp_path: Path) -> None:
    """A lost file of a round that has begun would be made again by the module as it is now, and change the curve in silence."""
    data, met = teacher(pipeline, OURS), tmp_path / "cut.round-0.pt"
    train_until(pipeline, data, tmp_path / "cut.pt", 13)
    met.write_bytes(met.read_bytes()[:-1])
    for said in (r"tensors in .*round-0\.pt", r"round-0\.pt.*no such file"):
        with pytest.raises(ArtifactError, match=rf"{said}.*delete it and .*cut\.pt"):
            train_module(pipeline, data, PROMPTS, OURS, tmp_path / "cut.pt", TRAINING)
        met.unlink(missing_ok=True)
    (tmp_path / "cut.pt").unlink()
    train_module(pipeline, data, PROMPTS, OURS, tmp_path / "cut.pt", TRAINING)


def test_another_recipe_does_not_resume(pipeline: Pipeline, tmp_path: Path) -> None:
    data = teacher(pipeline, OURS)
    train_until(pipeline, data, tmp_path / "cut.pt", 13)
    with pytest.raises(ArtifactError, match="batch=4"):
        train_module(pipeline, data, PROMPTS, replace(OURS, batch=4), tmp_path / "cut.pt", TRAINING)


def test_forms_that_cannot_be_trained_are_refused() -> None:
    with pytest.raises(UsageError, match=r"training\.target.*second-order"):
        IlfSettings.of({"target": "guess"})
    with pytest.raises(UsageError, match="target=fad"):
        replace(OURS, branches="both", guidance_distilled="none")
    with pytest.raises(UsageError, match="context=False"):
        replace(OURS, target="teacher-steps")
    for feedback in ("none", "above-1001", "lust-4"):
        with pytest.raises(UsageError, match=feedback):
            replace(OURS, feedback=feedback).resolved(6)
    with pytest.raises(UsageError, match="recombined"):
        replace(OURS, recombined=3000)
