"""Equal tuning budgets, and the rule that picks operating points."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from harness.config.methods import parse_method
from harness.config.spec import load_spec
from harness.errors import NotMeasured
from harness.execution.experiment import method_labels
from harness.models.loading import find_plan
from harness.sampling.pipeline import Pipeline
from ilf_bench.registry import BUILT_IN
from studies import tuning
from studies.field import methods
from studies.tuning import GRIDS, SETTINGS, Setting, Tuner, chosen
from tests.conftest import PROMPTS


def test_every_rival_has_equally_many_different_settings() -> None:
    assert {len(set(grid)) for grid in GRIDS.values()} == {SETTINGS}
    method_labels(
        [parse_method(text, BUILT_IN) for text in methods({rival: [Setting(grid[0], 0.5, 1.0)] for rival, grid in GRIDS.items()})]
    )


@pytest.mark.parametrize("preset", ["field-text", "field-class"])
def test_no_setting_of_a_rival_is_lost_to_the_depth_of_the_model(preset: str) -> None:
    """A setting that the model has not enough blocks for would be a smaller budget than the others have."""
    spec = load_spec(preset)
    plan = find_plan(spec)
    for text in [text for grid in GRIDS.values() for text in grid]:
        with suppress(NotMeasured):  # not for this kind of model, or not yet trained
            assert 0 < parse_method(text, BUILT_IN).plan(plan).block_evaluations <= plan.block_evaluations * 1.01


def test_the_best_setting_within_each_budget_is_chosen() -> None:
    settings = [
        Setting("a", 0.9, 0.0),
        Setting("b", 0.55, 2.0),
        Setting("c", 0.5, 1.0),
        Setting("d", 0.3, 5.0),
        Setting("e", failure="no"),
    ]
    assert chosen(settings) == ["c", "d"]
    assert chosen(settings[:1]) == ["a"] and chosen(settings[4:]) == [] and chosen(settings[2:3]) == ["c"]


def test_a_tuning_is_measured_once(pipeline: Pipeline, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tuning, "GRIDS", {"deepcache": ("deepcache:interval=1", "deepcache:interval=2"), "fp8": ("fp8",)})
    monkeypatch.setattr(tuning, "IMAGES", 3)
    found = Tuner(pipeline, PROMPTS, tmp_path / "tuning.json").run()
    assert found["deepcache"][0] == Setting("deepcache:interval=1", 1.0, 0.0)
    assert 0 < found["deepcache"][1].cost < 1 and found["deepcache"][1].error > 0 and "8.9" in found["fp8"][0].failure  # type: ignore[operator]
    monkeypatch.setattr(Tuner, "_sample", None)
    again = Tuner(pipeline, PROMPTS, tmp_path / "tuning.json")
    assert again.unknown() == [] and again.run() == found


def test_new_weights_of_one_rival_are_tuned_alone(pipeline: Pipeline, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tuning, "GRIDS", {"fora": ("fora:2",), "ecad": ("ecad:1.0",)})
    monkeypatch.setattr(tuning, "IMAGES", 2)
    folder = shutil.copytree(pipeline.folder, tmp_path / pipeline.folder.name)  # type: ignore[arg-type, union-attr]
    monkeypatch.setattr(pipeline, "folder", folder)
    Tuner(pipeline, PROMPTS, tmp_path / "tuning.json").run()
    (folder / "ecad" / "schedules.json").write_text((folder / "ecad" / "schedules.json").read_text() + "\n")
    assert Tuner(pipeline, PROMPTS, tmp_path / "tuning.json").unknown() == ["ecad"]
