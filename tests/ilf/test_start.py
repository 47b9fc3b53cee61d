"""Training that starts from a trained module: its weights, its solvers and its seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.trajectories import record
from ilf.end_to_end import EndToEnd, train_all
from ilf.settings import IlfSettings
from ilf.train import seeded_module
from tests.conftest import PROMPTS
from tests.ilf.test_end_to_end import module_of

FORM = {"loop": (6, 6), "grids": (4,), "steps": 4, "inner_pass": False, "optimiser_steps": 0, "end_to_end_steps": 2}
SETTINGS = IlfSettings.of(FORM | {"end_to_end_batch": 3, "end_to_end_lr": 1e-9})


def save_trained(pipeline: Pipeline, folder: Path) -> EndToEnd:
    """A module with a solver of its own, as if it had been trained for 100 seconds."""
    trained = EndToEnd(pipeline, module_of(pipeline, SETTINGS), (4,))
    for parameter in trained.solver(4).parameters():
        torch.nn.init.normal_(parameter, std=0.005)
    trained.keep_solvers()
    trained.module.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"seconds": 100.0}))
    return trained


def test_it_starts_where_the_other_ended(pipeline: Pipeline, tmp_path: Path) -> None:
    trained, data = save_trained(pipeline, tmp_path / "first"), record(pipeline, PROMPTS, 7, (999, 500, 200))
    settings = replace(SETTINGS, start=str(tmp_path / "first"))
    started = EndToEnd(pipeline, seeded_module(pipeline, settings, 0), (4,))
    rows = torch.arange(5)
    with torch.no_grad():
        assert torch.allclose(started.ends(4, data, rows), trained.ends(4, data, rows), atol=1e-4)
        fresh = EndToEnd(pipeline, seeded_module(pipeline, SETTINGS, 0), (4,))
        assert not torch.allclose(fresh.ends(4, data, rows), trained.ends(4, data, rows), atol=1e-2)
    module, made = train_all(pipeline, data, PROMPTS, settings, tmp_path / "training.pt")
    assert made.seconds > 100 and module.settings.start == "first", "no path of this machine in what is saved"
    assert module.config.solvers["4"]["timesteps"] == trained.module.config.solvers["4"]["timesteps"]


def test_another_step_count_gets_a_new_solver(pipeline: Pipeline, tmp_path: Path) -> None:
    save_trained(pipeline, tmp_path / "first")
    settings = replace(SETTINGS, start=str(tmp_path / "first"), grids=(3,), steps=3)
    started = EndToEnd(pipeline, seeded_module(pipeline, settings, 0), (3,))
    assert started.solver(3).table().timesteps == settings.timesteps(3)


def test_single_transitions_are_trained_on_their_own_timesteps(pipeline: Pipeline, tmp_path: Path) -> None:
    """The learned solvers begin with the end-to-end training: before it the named solver runs, on its grid."""
    save_trained(pipeline, tmp_path / "first")
    settings = replace(SETTINGS, start=str(tmp_path / "first"), optimiser_steps=5)
    schedule = seeded_module(pipeline, settings, 0).schedule(4)
    assert schedule.table is None and schedule.timesteps == settings.timesteps(4)


def test_another_architecture_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    save_trained(pipeline, tmp_path / "first")
    with pytest.raises(UsageError, match="same architecture"):
        seeded_module(pipeline, replace(SETTINGS, start=str(tmp_path / "first"), depth=2), 0)


def test_a_start_needs_end_to_end_training() -> None:
    with pytest.raises(UsageError, match="from a start"):
        IlfSettings(start="ilf")
