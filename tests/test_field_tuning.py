"""Equal tuning budgets, and the rule that picks operating points."""

from __future__ import annotations

from pathlib import Path

from benchmarks import tuning
from benchmarks.field import methods
from benchmarks.tuning import GRIDS, SETTINGS, Setting, Tuner, chosen
from harness.commands.run import BUILT_IN
from harness.experiment import method_labels
from harness.methods import parse_method
from harness.pipeline import Pipeline
from tests.conftest import PROMPTS


def test_every_rival_has_equally_many_different_settings() -> None:
    assert {len(set(grid)) for grid in GRIDS.values()} == {SETTINGS}
    method_labels(
        [parse_method(text, BUILT_IN) for text in methods({rival: [Setting(grid[0], 0.5, 1.0)] for rival, grid in GRIDS.items()})]
    )


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
    assert Tuner(pipeline, PROMPTS, tmp_path / "tuning.json").run() == found
