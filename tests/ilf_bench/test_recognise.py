"""A run without a preset: the family of the folder decides steps, guidance and methods."""

from __future__ import annotations

import json
import shutil
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from harness.config.spec import build_spec
from harness.errors import ArtifactError, UsageError
from harness.models.families import table
from harness.models.loading import find_plan
from harness.results import Failure
from harness.storage.records import read_run
from ilf_bench.cli import main
from ilf_bench.recognise import methods_for, without_preset
from studies.families import CASES

USUAL = {
    **{"DiT": (20, 1.5), "PixArt-Sigma": (20, 4.5), "SD3": (28, 7.0), "FLUX.1-dev": (28, 3.5), "FLUX.1-schnell": (4, 0.0)},
    **{"FLUX.2-dev": (50, 4.0), "FLUX.2-klein": (4, 1.0), "FLUX.2-klein-base": (50, 4.0)},
    "Qwen-Image": (50, 4.0),
    "Chroma": (35, 5.0),
    "Z-Image": (50, 4.0),
    "Z-Image-Turbo": (8, 0.0),
}


@pytest.mark.parametrize("name", USUAL)
def test_a_folder_is_recognised_by_its_index(tmp_path: Path, name: str) -> None:
    folder = CASES[name].save(tmp_path / "my model")
    for pipeline in (str(folder), f"random:{CASES[name].architecture}"):
        preset, fields = without_preset(pipeline)
        assert preset == f"tiny-{CASES[name].family.task}" and fields["pipeline"] == pipeline
        assert (fields["steps"], fields["guidance"]) == USUAL[name] and fields["solver"] == "checkpoint"
        assert fields["methods"][0] == "full" and fields["methods"] == methods_for(CASES[name].family.usual(_configs(name)))
    assert without_preset(str(folder))[1]["name"] == "my-model"


def _configs(name: str) -> Any:
    return CASES[name].tiny.configs


def test_a_distilled_model_has_fewer_than_its_few_steps_as_rivals() -> None:
    assert methods_for(CASES["FLUX.1-schnell"].family.usual(_configs("FLUX.1-schnell")))[:3] == ("full", "steps:3", "steps:2")


def test_what_is_unknown_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no model_index\.json"):
        without_preset(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "NewPipeline"}))
    with pytest.raises(ArtifactError, match=r"StableDiffusion3Pipeline.*got NewPipeline.*docs/add-a-family\.md"):
        without_preset(str(tmp_path))
    with pytest.raises(UsageError, match=r"random:flux\.1-dev"):
        without_preset("random:flux.9")


def test_a_run_of_a_folder_needs_no_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = CASES["SD3"].save(tmp_path / "mine")
    options = ["--device", "cpu", "--samples", "2", "--steps", "3", "--rounds", "1", "--warmup", "0", "--batches", "1"]
    assert main(["run", "--pipeline", str(folder), "--out", str(tmp_path / "runs"), "--methods", "full,steps:2", *options]) == 0
    (found,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(found)
    assert [method.block_evaluations for method in run.methods] == [36.0, 24.0] and "mine" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["DiT", "PixArt-alpha", "SD3", "FLUX.1-dev", "Sana", "FLUX.2-klein", "Qwen-Image", "Z-Image"])
def test_a_size_that_no_model_of_the_family_makes_is_refused(name: str) -> None:
    """FLUX.1 made 28 x 64 of 30 x 64 without a word, and the run said 30 x 64."""
    content = {"name": "x", "task": CASES[name].family.task, "pipeline": f"random:{CASES[name].architecture}", "prompts": "x"}
    content |= {"methods": ["full"], "metrics": [], "steps": 2}
    for height, width in ((1001, 1024), (1024, 2)):
        with pytest.raises(UsageError, match=r"one size|nearest"):
            find_plan(build_spec(content | {"height": height, "width": width}, "here"))
    if CASES[name].family.any_size:
        plan = find_plan(build_spec(content | {"height": 992, "width": 1056}, "here"))
        assert plan.backbone.geometry.tokens in (992 * 1056 // side**2 for side in (16, 32))


@pytest.mark.parametrize("size", [("0", "64"), ("64", "0"), ("64", None)])
def test_one_side_alone_is_refused(size: tuple[str, str | None], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [word for side, pixels in zip(("--height", "--width"), size, strict=True) if pixels for word in (side, pixels)]
    assert main(["run", "--pipeline", "random:flux.1-dev", *chosen, "--dry-run"]) == 64
    assert "height and width are named both" in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_a_part_is_told_which(tmp_path: Path) -> None:
    folder = CASES["FLUX.1-dev"].save(tmp_path / "mine")
    shutil.rmtree(folder / "vae")
    with pytest.raises(ArtifactError, match=r"/vae; got no such folder"):
        find_plan(CASES["FLUX.1-dev"].spec(folder))


def test_a_run_of_random_weights_shows_no_quality(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--samples", "2", "--steps", "2", "--rounds", "1", "--warmup", "0", "--batches", "1"]
    chosen = ["--pipeline", "random:flux.1-schnell:tiny", "--methods", "full,steps:1", "--dtype", "float32"]
    assert main(["run", "--out", str(tmp_path / "runs"), *chosen, *options]) == 0
    (found,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(found)
    assert run.scores and all(isinstance(score, Failure) for score in run.scores.values())


@pytest.mark.parametrize("value", ["no_such_package:FAMILY", "json:dumps", "harness.models.families.sd3:FAMILY"])
def test_a_broken_family_of_another_package_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(table, "entry_points", lambda group: [EntryPoint("theirs", value, group)])
    table.families.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"the family theirs at .* is left out"):
            found = table.families()
        assert list(found) == [family.name for family in table.BUILT_IN]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once
            table.families()
    finally:
        table.families.cache_clear()
