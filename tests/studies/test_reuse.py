"""A second run of the field samples what has changed, and links the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.config.description import describe_method
from harness.config.methods import parse_method
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.execution.experiment import Experiment
from harness.results import Score
from harness.storage.layout import slug
from harness.storage.records import read_json, read_run
from harness.storage.samples import SampleSet
from ilf_bench import experiment as app
from ilf_bench.registry import BUILT_IN
from studies.reuse import KEYS, content_digest, image_keys, read_by, run_root, take_over
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
        keys = image_keys(prepared.experiment, folder, "machine")
        made = prepared.experiment.folder(run_root(tmp_path / "runs", keys))
        take_over(tmp_path / "runs", made, keys)
        sampled.clear()
        assert not app.execute(prepared, made.parent, Console(quiet=True)).failures
        return made, [label for label in keys if slug(label) in sampled]

    return run


def test_a_rival_trained_again_is_the_only_one_sampled_again(folder: Path, again: Callable[[], tuple[Path, list[str]]]) -> None:
    first, sampled = again()
    assert set(sampled) == set(read_json(first / KEYS)) and len(sampled) == len(METHODS)
    assert again() == (first, [])
    (folder / "harmonica" / "router.json").write_text((folder / "harmonica" / "router.json").read_text() + "\n")
    second, sampled = again()
    assert second.parent != first.parent and sampled == ["harmonica(0.6)"]
    scores = [
        {key: score.value for key, score in read_run(run).scores.items() if isinstance(score, Score)} for run in (first, second)
    ]
    assert scores[0] == scores[1] and len(scores[0]) >= len(METHODS) - 2  # full, and a schedule that skips nothing: infinite
    image = Path("samples") / slug("2 steps") / "000000.png"
    assert (first / image).samefile(second / image)


def test_what_a_method_reads(folder: Path) -> None:
    parts = {"transformer", "vae", "scheduler"}
    plan = Plan.full(Backbone(6, folder), 5, Guidance(1.0))

    def names(text: str) -> set[str]:
        record = describe_method(text, text, parse_method(text, BUILT_IN), plan, {})
        return {path.name for path in read_by(folder, record)}

    assert names("steps:5+fora:2") == parts
    assert names("steps:5+ecad:0.7") == parts | {"ecad"}
    assert names("t-stitch:0.5") == parts | {"dit-small"}


def test_cards_and_training_records_change_no_image(folder: Path) -> None:
    before = content_digest([folder / "harmonica"])
    (folder / "harmonica" / "README.md").write_text("a card")
    (folder / "harmonica" / "training.json").write_text("{}")
    assert content_digest([folder / "harmonica"]) == before
    (folder / "harmonica" / "more.json").write_text("{}")
    assert content_digest([folder / "harmonica"]) != before


def test_other_prompts_seeds_and_machines_are_other_images(folder: Path, tmp_path: Path) -> None:
    def keys(machine: str = "a", **changes: object) -> set[str]:
        preset = write_preset(tmp_path, folder, **({"methods": METHODS} | changes))
        experiment: Experiment = app.prepare(str(preset), {}, []).experiment
        return set(image_keys(experiment, folder, machine).values())

    base = keys()
    assert len(base) == len(METHODS) and keys(samples=7) == base
    assert all(base.isdisjoint(other) for other in (keys("b"), keys(seed=77), keys(batch=3), keys(guidance=1.25)))
