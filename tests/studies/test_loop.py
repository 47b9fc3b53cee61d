"""The study of the loop: its table's gains and intervals, and equal work for all forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from scipy.stats import ttest_1samp

from harness.sampling.pipeline import Pipeline
from harness.storage.records import write_json
from harness.training.trajectories import record
from ilf.settings import IlfSettings
from studies import loop_page
from studies.converged import ERRORS
from studies.loop import step_seconds
from studies.loop_forms import MODELS
from studies.loop_page import _gains
from tests.conftest import PROMPTS


def result(form: str, seed: int, latent: float, blocks: float = 175.0) -> dict[str, object]:
    return {"model": "class", "form": form, "seed": seed, "minutes": 4.0, "blocks": blocks} | dict.fromkeys(ERRORS, latent)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    rows = [result("adapter", seed, error) for seed, error in enumerate((0.020, 0.022, 0.019))]
    rows += [result("adapter-carried", seed, error) for seed, error in enumerate((0.016, 0.018, 0.016))]
    rows += [result("loop-1", 0, 0.020), result("adapter-carried-6", 0, 0.030, blocks=114)]
    rows += [{"model": "class", "form": "20 steps", "seed": 0, "minutes": 0, "blocks": 480} | dict.fromkeys(ERRORS, 0.025)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(loop_page, "RESULTS", tmp_path / "rows.jsonl")
    lines = [line.strip("| ").split(" | ") for line in loop_page.page().splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in lines}


def test_a_gain_has_students_interval_over_trainings(table: dict[str, list[str]]) -> None:
    ratios = np.log(np.array([0.016 / 0.020, 0.018 / 0.022, 0.016 / 0.019]))
    interval = ttest_1samp(ratios, 0).confidence_interval(0.95)
    wanted = f"{1 - np.exp(ratios.mean()):.0%} ({1 - np.exp(interval.high):.0%}..{1 - np.exp(interval.low):.0%})"
    assert table["adapter-carried"][-1] == wanted and table["adapter-carried"][2] == "3"
    half = scipy.stats.t(2).ppf(0.975) * ratios.std(ddof=1)
    once = f"0% ({1 - np.exp(half):.0%}..{1 - np.exp(-half):.0%})"
    assert table["loop-1"][-2:] == [once, once], "trained once: with the deviation of the form that was trained more often"


def test_the_variance_between_trainings_is_pooled_over_forms_but_not_with_plain_steps() -> None:
    ratios = {"a": np.array([0.1, 0.2, 0.15]), "b": np.array([-0.1, 0.1]), "c": np.array([0.0]), "20 steps": np.array([1.0, 3.0])}
    deviation = ((0.005 + 0.02) / 3) ** 0.5
    gains = _gains(ratios, {"20 steps"})
    for name in "abc":
        half = scipy.stats.t(3).ppf(0.975) * deviation / len(ratios[name]) ** 0.5
        mean = ratios[name].mean()
        assert gains[name] == f"{1 - np.exp(mean):.0%} ({1 - np.exp(mean + half):.0%}..{1 - np.exp(mean - half):.0%})"
    assert _gains({"c": ratios["c"]}, ()) == {"c": "0% (one training)"}
    alone = ttest_1samp(ratios["20 steps"], 0).confidence_interval(0.95)
    assert gains["20 steps"].endswith(f"({1 - np.exp(alone.high):.0%}..{1 - np.exp(alone.low):.0%})")


def test_only_forms_of_one_cost_are_compared(table: dict[str, list[str]]) -> None:
    assert len(table["adapter-carried-6"]) == len(table["loop-1"]) - 2, "empty last cells"
    assert "adapter" in table and len(table["adapter"]) == len(table["loop-1"]) - 2, "no gain over itself"
    assert table["20 steps"][1] == "plain steps"


def test_a_form_gets_as_much_work_as_the_models_first(pipeline: Pipeline, tmp_path: Path) -> None:
    data = record(pipeline, PROMPTS, 7, (999, 500, 200))
    content = {"loop": (6, 6), "grids": (4,), "steps": 4, "inner_pass": False, "optimiser_steps": 0, "end_to_end_steps": 1}
    plain, carried = IlfSettings.of(content), IlfSettings.of(content | {"guidance_carried": "odd"})
    measured = step_seconds(pipeline, plain, data, tmp_path / "a")
    assert measured > 0 and step_seconds(pipeline, plain, data, tmp_path / "b") == measured, "timed once for a model"
    assert 0.7 < step_seconds(pipeline, carried, data, tmp_path / "c") / measured < 0.8, "half of the steps cost half"
    write_json(tmp_path / "speed.json", {"seconds per multiply-accumulate": 0.0})
    assert step_seconds(pipeline, plain, data, tmp_path / "d") == 0.0


def test_a_table_says_what_its_gains_are_held_against(table: dict[str, list[str]]) -> None:
    assert "adapters' latent errors: 0.0200 (seed 0), 0.0220 (seed 1), 0.0190 (seed 2)." in loop_page.page()
    assert "Deviation between trainings: that of adapter-carried.\n" in loop_page.page()


def test_every_form_is_one_that_can_be_trained() -> None:
    for model in MODELS.values():
        for form in model.forms.values():
            assert form.settings.end_to_end_counts == (form.steps,)


def test_what_a_form_starts_from_is_bundled() -> None:
    starting = [(model, form.settings.start) for model in MODELS.values() for form in model.forms.values() if form.settings.start]
    assert starting and all((model.folder / start / "config.json").exists() for model, start in starting)
