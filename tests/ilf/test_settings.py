"""The one settings class: the same from a preset, an option and a checkpoint; every wrong field is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config.spec import load_spec, preset_names
from harness.errors import ArtifactError, UsageError
from harness.paths import ROOT
from ilf.checkpoint import read_settings
from ilf.settings import FORMS, IlfSettings

MODULES = sorted(path.parent for path in (ROOT / "zoo").glob("*/ilf*/config.json"))


@pytest.mark.parametrize("preset", preset_names())
def test_the_training_section_of_every_preset_is_valid(preset: str) -> None:
    spec = load_spec(preset)
    assert IlfSettings.of(spec.training, spec.task).resolved(28).loop == (28, 28)


@pytest.mark.parametrize("form", FORMS)
def test_settings_survive_json(form: str) -> None:
    settings = IlfSettings.of({"form": form}).resolved(28)
    assert IlfSettings(**json.loads(json.dumps(settings.content()))) == settings


def test_forms_are_defaults_that_a_section_overrides() -> None:
    paper = IlfSettings.of({"form": "paper"})
    assert (paper.target, paper.power, paper.rounds) == ("fad", 1.0, 1)
    assert IlfSettings.of({"form": "paper", "power": 1.5}).power == 1.5
    assert paper.resolved(28).loop == (9, 20)


def test_what_is_left_open_follows_from_the_backbone() -> None:
    settings = IlfSettings(grids=(2, 4), steps=9, trajectories=100, optimiser_steps=3)
    resolved = settings.resolved(6, hidden_values=10**6)
    assert (resolved.steps, resolved.rounds, resolved.loop) == (4, 3, (6, 6))
    assert resolved.runs == 1e9 // (3 * 2 * 10**6 * 6), "a round keeps at most 1 GB of hidden states"
    assert settings.resolved(6).runs == 100


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"batch": 0, "lr": -1}, r"training\.lr.*training\.batch"),
        ({"grids": []}, r"training\.grids"),
        ({"stepps": 3}, r"training\.stepps"),
        ({"form": "best"}, "ours, adapter, short, partial, paper"),
        ({"loop": "first"}, r"training\.loop"),
        ({"feedback": "often"}, "above-T"),
        ({"guidance_distilled": "often"}, "above-T"),
        ({"recombined": 3}, "class names"),
    ],
)
def test_a_wrong_section_is_refused_by_field(section: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        IlfSettings.of(section, task="class")


@pytest.mark.parametrize("folder", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_bundled_module_states_its_settings(folder: Path) -> None:
    settings, solvers = read_settings(folder)
    assert settings == settings.resolved(12, 1) and set(map(int, solvers)) <= set(settings.end_to_end_counts)
    assert bool(solvers) == bool(settings.end_to_end_steps)


def test_a_config_of_another_form_is_refused_by_name(tmp_path: Path) -> None:
    for content in (
        {"_class_name": "Other"},
        {"_class_name": "FeedbackModule", "first": 3},
        {"_class_name": "FeedbackModule", "settings": {"stepps": 2}},
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ArtifactError, match="retrain"):
            read_settings(tmp_path)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"form": "short", "batch": 8, "lr": 1e-3}, ["batch, lr in training, where optimiser_steps=0"]),
        ({"power": 1.0, "initial_solver": "unipc"}, ["initial_solver in training, where end_to_end_steps=0 and image_steps=0"]),
        ({"form": "short", "image_targets": 3}, ["image_targets in training, where image_steps=0"]),
        ({"image_steps": 5, "end_to_end_batch": 3, "batch": 8}, []),
        ({"form": "short", "end_to_end_lr": 1e-3, "grids": [6]}, []),
    ],
)
def test_fields_of_a_stage_that_is_left_out_are_named(section: dict[str, object], named: list[str]) -> None:
    assert IlfSettings.of(section).without_effect(section) == [f"no effect: {text}" for text in named]


@pytest.mark.parametrize("preset", preset_names())
def test_no_preset_names_a_field_without_effect(preset: str) -> None:
    spec = load_spec(preset)
    assert IlfSettings.of(spec.training, spec.task).without_effect(spec.training) == []


def test_class_names_cannot_be_recombined() -> None:
    with pytest.raises(UsageError, match="only with captions"):
        IlfSettings.of({"recombined": 5}, "class")
