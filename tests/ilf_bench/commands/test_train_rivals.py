"""``ilf-bench train --method NAME``: learned rivals are trained on a user's own pipeline and are charged with their cost."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from baselines.learned.train import TRAININGS
from harness.storage.records import read_run
from ilf_bench.cli import main
from tests.ilf_bench.test_cli import preset as preset

SHORT = {
    "learning-to-cache": ("learning-to-cache:steps=2:batch=2:trajectories=3", ""),
    "harmonica": ("harmonica:steps=2:batch=2:trajectories=3", ""),
    "deediff": ("deediff:steps=2:batch=2:trajectories=3", ""),
    "bespoke": ("bespoke:steps=2:batch=2:runs=2:grids=2,3", ":2"),
    "ecad": ("ecad:population=4:generations=1:images=3", ""),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_trained_rival_runs_and_says_what_it_cost(
    preset: Callable[..., str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text, value), path, out = SHORT[name], preset("class"), tmp_path / "mine"
    command = ["train", path, "--method", text, "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    method = f"{name}{value}:{TRAININGS[name].option}={out}"
    assert method in said.replace("\n", "") and "device-seconds in all" in said
    before = {file: file.read_bytes() for file in out.iterdir() if file.is_file()}
    assert main(command) == 0
    assert {file: file.read_bytes() for file in out.iterdir() if file.is_file()} == before, "a finished training changes nothing"
    assert main(["train", path, "--method", f"{text}:seed=7", "--out", str(out)]) == 64
    assert "choose another --out" in capsys.readouterr().err
    runs = tmp_path / "runs"
    affordable = method.replace("ecad:", "ecad:budget=1:")  # so short a search finds nothing that is cheap
    assert main(["run", path, "--methods", f"full,{affordable}", "--out", str(runs)]) == 0
    found = next(m for m in read_run(next(runs.glob("toy-*"))).methods if m.label != "full")
    assert found.training_s is not None and found.training_s > 0


def test_a_training_that_lost_its_checkpoint_gives_the_same_again(preset: Callable[..., str], tmp_path: Path) -> None:
    """From the trajectories that it kept."""
    path, text = preset("class"), "learning-to-cache:steps=21:batch=2:trajectories=3"
    assert main(["train", path, "--method", text, "--out", str(tmp_path / "whole")]) == 0
    whole = (tmp_path / "whole" / "router.json").read_bytes()
    begun = Path(shutil.copytree(tmp_path / "whole", tmp_path / "begun"))
    for lost in ("router.json", "training.json", "SHA256SUMS"):
        (begun / lost).unlink()
    (begun / "work" / "training.pt").unlink()
    assert main(["train", path, "--method", text, "--out", str(begun)]) == 0
    assert (begun / "router.json").read_bytes() == whole


def test_what_was_trained_on_another_model_is_refused(
    preset: Callable[..., str], folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A published fault: coefficients of one model, run on another of the same shape."""
    path, out, other = preset("class"), tmp_path / "mine", Path(shutil.copytree(folders["dit"], tmp_path / "other"))
    assert main(["train", path, "--method", SHORT["harmonica"][0], "--out", str(out)]) == 0
    config = other / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_eps": 1e-4}))
    command = [
        "run",
        path,
        "--pipeline",
        str(other),
        "--methods",
        f"full,harmonica:router={out}",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main(command) == 65
    assert "trained on another" in " ".join(capsys.readouterr().err.split())
    (out / "trained-on.json").unlink()
    assert main(command) == 0


def test_no_preset_is_needed_for_a_folder(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine"
    command = [
        "train",
        "--pipeline",
        str(folders["dit"]),
        "--method",
        "harmonica:steps=1:batch=1:trajectories=2",
        "--out",
        str(out),
    ]
    assert main([*command, "--set", "steps=3", "--device", "cpu"]) == 0
    _, _, said = capsys.readouterr().out.replace("\n", "").partition("use it: ilf-bench ")
    assert said.endswith(f"--methods full,steps:1,harmonica:router={out}") and (out / "router.json").exists()
    assert main([*shlex.split(said), "--dry-run"]) == 0
    assert "NOT-MEASURED" not in capsys.readouterr().out, "what it says to use runs: a router belongs to its steps"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method", "harmonicca"], "did you mean 'harmonica'"),
        (["--method", "harmonica:stepz=3"], "did you mean 'steps'"),
        (["--method", "harmonica:steps=0"], "above 0"),
        (["--method", "harmonica:steps=many"], "valid integer"),
        (["--method", "harmonica:40"], "SETTING=VALUE"),
        (["--method", "ecad:seed=1000"], "a seed from 0 to 998"),
        (["--method", "ecad", "--trajectories", "3"], "options of ilf (trajectories)"),
    ],
)
def test_what_is_wrong_is_refused_before_the_first_image(
    preset: Callable[..., str], arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", preset("class"), *arguments, "--out", str(tmp_path / "mine")]) == 64
    assert expected in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "mine").exists()
