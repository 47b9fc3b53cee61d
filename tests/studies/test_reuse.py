"""A second run of the field samples what has changed, and links the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.config.methods import parse_method
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.execution.experiment import Experiment
from harness.execution.identity import files_of
from harness.history.verify import verify_run
from harness.models.identity import component_paths
from harness.models.loading import load_pipeline
from harness.results import Score
from harness.storage.hashing import contents_digest
from harness.storage.layout import slug
from harness.storage.records import read_json, read_run, write_json
from harness.storage.samples import SampleSet
from ilf_bench import experiment as app
from ilf_bench.registry import BUILT_IN
from studies.reuse import identities, linked_run
from tests.harness.execution.test_runner import write_preset

METHODS = ["full", "steps:2", "ecad:1.0", "harmonica:0.6", "t-stitch:0.5"]


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a pipeline with everything that was trained for it."""
    shutil.copytree(folders["dit"].with_name("dit-small"), tmp_path / "dit-small")
    return Path(shutil.copytree(folders["dit"], tmp_path / "dit"))


@pytest.fixture
def again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Path, list[str]]]:
    """Run the preset; returns the run's folder and the labels that were sampled."""
    preset = write_preset(tmp_path, folder, methods=METHODS, samples=4, timing={"rounds": 0, "batch": 2}, metrics=["psnr"])
    sampled: list[str] = []
    begin = SampleSet.begin
    monkeypatch.setattr(SampleSet, "begin", lambda self, *a, **k: sampled.append(self.folder.name) or begin(self, *a, **k))

    def run() -> tuple[Path, list[str]]:
        prepared = app.prepare(str(preset), {}, [])
        pipeline = load_pipeline(prepared.experiment.spec)
        made, found = linked_run(prepared.experiment, pipeline, tmp_path / "runs")
        sampled.clear()
        executed = app.execute(prepared, made.parent, Console(quiet=True))
        assert not executed.failures and executed.run.path == made
        names = [label for label in prepared.experiment.methods if slug(label) in sampled]
        assert set(found).isdisjoint(names)
        return made, names

    return run


def test_a_rival_trained_again_is_the_only_one_sampled_again(folder: Path, again: Callable[[], tuple[Path, list[str]]]) -> None:
    first, sampled = again()
    assert len(sampled) == len(METHODS) and again() == (first, [])
    before = values(first)
    (folder / "harmonica" / "router.json").write_text((folder / "harmonica" / "router.json").read_text() + "\n")
    assert again() == (first, ["harmonica(0.6)"])
    assert values(first) == before and len(before) >= len(METHODS) - 2  # full, and a schedule that skips nothing: infinite


def values(run: Path) -> dict[tuple[str, str], float]:
    return {key: score.value for key, score in read_run(run).scores.items() if isinstance(score, Score)}


def test_another_setting_has_a_folder_of_its_own_and_the_other_images_are_linked(folder: Path, tmp_path: Path) -> None:
    def sample(*methods: str, samples: int = 4) -> tuple[Path, list[str]]:
        fields = {
            "methods": ["full", *methods],
            "samples": samples,
            "batch": 2,
            "timing": {"rounds": 0, "batch": 2},
            "metrics": ["psnr"],
        }
        prepared = app.prepare(str(write_preset(tmp_path, folder, **fields)), {}, [])
        made, found = linked_run(prepared.experiment, load_pipeline(prepared.experiment.spec), tmp_path / "runs")
        executed = app.execute(prepared, tmp_path / "runs", Console(quiet=True))
        assert executed.run.path == made and verify_run(made, executed.run).findings == ()
        return made, found

    first, found = sample("steps:2", "fora:2")
    second, again = sample("steps:2", "fora:3")
    fewer, rest = sample("steps:2", samples=2)
    assert first != second and found == [] and sorted(again) == ["2 steps", "full"] == sorted(rest)
    for run in (second, fewer):
        image = Path("samples") / slug("2 steps") / "000000.png"
        assert (first / image).samefile(run / image)
    for run in (first, second, fewer):
        content = read_json(run / "environment.json")
        write_json(run / "environment.json", content | {"machine_key": "another"})
    assert sample("steps:2", "fora:4")[1] == []


def test_what_a_method_reads(folder: Path) -> None:
    plan = Plan.full(Backbone(6, folder), 5, Guidance(1.0))

    def names(text: str) -> set[str]:
        return {path.name for path in files_of(parse_method(text, BUILT_IN), plan)}

    assert {path.name for path in component_paths(folder)} == {"model_index.json", "transformer", "vae", "scheduler"}
    assert names("steps:5+fora:2") == set() and names("steps:5+ecad:0.7") == {"schedules.json"}
    assert next(files_of(parse_method("t-stitch:0.5", BUILT_IN), plan)) == folder.with_name("dit-small") / "transformer"


def test_cards_and_training_records_change_no_image(folder: Path) -> None:
    before = contents_digest([folder / "harmonica"])
    (folder / "harmonica" / "README.md").write_text("a card")
    (folder / "harmonica" / "training.json").write_text("{}")
    assert contents_digest([folder / "harmonica"]) == before
    (folder / "harmonica" / "more.json").write_text("{}")
    assert contents_digest([folder / "harmonica"]) != before


def test_other_prompts_seeds_and_settings_are_other_images(folder: Path, tmp_path: Path) -> None:
    def keys(**changes: object) -> set[str]:
        preset = write_preset(tmp_path, folder, **({"methods": METHODS} | changes))
        experiment: Experiment = app.prepare(str(preset), {}, []).experiment
        return {json.dumps(each) for each in identities(experiment, load_pipeline(experiment.spec)).values()}

    base = keys()
    assert len(base) == len(METHODS) and keys(samples=7) == base
    assert all(base.isdisjoint(other) for other in (keys(seed=77), keys(batch=3), keys(guidance=1.25), keys(prompts="classes:3")))
