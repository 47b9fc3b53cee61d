"""The search of a schedule: what it tries within a budget, that it finds the best, and that the best becomes the module's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.trajectories import Recorder, Trajectories, record, union_grid
from ilf.checkpoint import load_module
from ilf.method import Ilf
from ilf.module import FeedbackModule
from ilf.search import Choice, choices, search
from ilf.settings import IlfSettings
from ilf.train import build_module
from tests.conftest import PROMPTS, random_table

SETTINGS = IlfSettings(loop=(6, 6), grids=(2, 4), steps=2, power=1.5)
SEED = 7


def module_of(pipeline: Pipeline, spoils: bool) -> FeedbackModule:
    """Untrained: its feedback is zero, or, where it ``spoils``, noise."""
    torch.manual_seed(3)
    module = build_module(pipeline, SETTINGS)
    for parameter in module.parameters() if spoils else ():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def teacher(pipeline: Pipeline) -> Trajectories:
    return record(pipeline, PROMPTS, SEED, union_grid(SETTINGS.grids, SETTINGS.power, widest_gap=100))


def test_choices_spend_the_budget_and_none_goes_beyond_it(pipeline: Pipeline) -> None:
    module, plain = module_of(pipeline, False), 12.0  # two branches of six blocks a step, and two more where the loop runs
    found = choices(module.settings, module.config.solvers, pipeline.plan(), 3 * plain + 2 * 2)
    assert all(choice.cost <= 3 * plain + 4 for choice in found)
    assert {choice.steps for choice in found} == {2, 3}, "step counts between those of the training are tried, too"
    one = {choice.feedback: choice.cost for choice in found if (choice.steps, choice.power) == (3, 1.5)}
    assert one == {"none": 36, "first-2": 40, "last-2": 40, "paper-2": 40}
    assert {choice.power for choice in found} == {1.0, 1.25, 1.5, 1.75, 2.0}
    with pytest.raises(UsageError, match="at least 24"):
        choices(module.settings, module.config.solvers, pipeline.plan(), 23)


@pytest.mark.parametrize("spoils", [False, True])
def test_the_best_is_kept_in_the_checkpoint_and_errs_as_was_said(pipeline: Pipeline, spoils: bool, tmp_path: Path) -> None:
    module, data = module_of(pipeline, spoils), teacher(pipeline)
    tried = search(pipeline, module, data, PROMPTS, SEED, 60)
    assert [one.error for one in tried] == sorted(one.error for one in tried)
    best = tried[0].choice
    if spoils:
        assert best.feedback == "none"
    module.save_pretrained(tmp_path / "module")
    saved = load_module(tmp_path / "module").settings
    assert (saved.steps, saved.feedback, saved.power) == (best.steps, best.feedback, best.power)
    method, recorder = Ilf(checkpoint=str(tmp_path / "module")), Recorder(pipeline, len(PROMPTS))
    assert method.plan(pipeline.plan()).block_evaluations == best.cost <= 60
    with method.attach(pipeline), recorder.recording():
        pipeline.generate(PROMPTS, SEED, range(len(PROMPTS)))
    error = (recorder.states[-1] - data.states[:, -1]).square().flatten(1).mean(dim=1).sqrt().mean()
    assert float(error) == pytest.approx(tried[0].error, rel=1e-3)


def test_learned_solvers_bring_their_own_timesteps(pipeline: Pipeline) -> None:
    module = module_of(pipeline, False)
    module.register_to_config(solvers={"2": random_table(2).content(), "3": random_table(3).content()})
    found = choices(module.settings, module.config.solvers, pipeline.plan(), 1000)
    assert {(choice.steps, choice.power) for choice in found} == {(2, 1.5), (3, 1.5)}
    assert Choice(3, "all", 1.5, 42.0) in found
